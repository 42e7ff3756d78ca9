"""Which of many equal events get a line in the log."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime


class SayOnce:
    """Says a cause when it is new, and not again until another cause, or none, has come in between."""

    def __init__(self) -> None:
        self._said: str | None = None

    def is_new(self, cause: str | None) -> bool:
        """Tell whether ``cause`` is to be logged now; None means that there is none any more."""
        if cause == self._said:
            return False
        self._said = cause
        return cause is not None


class OncePerMinute:
    """Lets one event of each kind through every ``seconds``; the number of kinds has to be bounded."""

    def __init__(self, clock: IReactorTime, seconds: float = 60.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._said_at: dict[str, float] = {}

    def is_due(self, kind: str) -> bool:
        """Tell whether an event of this ``kind`` is to be logged now."""
        now = self._clock.seconds()
        said_at = self._said_at.get(kind)
        if said_at is not None and now - said_at < self._seconds:
            return False
        self._said_at[kind] = now
        return True
