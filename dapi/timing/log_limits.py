"""Limits to how often the same is logged."""

from __future__ import annotations

import math

from twisted.internet.interfaces import IReactorTime


class SayOnce:
    """Lets a problem be logged when it is new, and again only after another problem, or none, came in between."""

    def __init__(self) -> None:
        self._logged: str | None = None

    def is_new(self, problem: str | None) -> bool:
        """Tell whether ``problem`` is to be logged now; None means that there is no problem any more."""
        if problem == self._logged:
            return False
        self._logged = problem
        return problem is not None


class OncePerMinute:
    """Lets one event of each kind be logged every ``SECONDS``; there must be a bounded number of kinds."""

    SECONDS = 60.0

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._logged_at: dict[str, float] = {}

    def is_due(self, kind: str) -> bool:
        """Tell whether an event of this ``kind`` is to be logged now."""
        now = self._clock.seconds()
        if now - self._logged_at.get(kind, -math.inf) < self.SECONDS:
            return False
        self._logged_at[kind] = now
        return True
