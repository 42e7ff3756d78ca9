"""How long the latest commits took."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import deque
from collections.abc import Iterator

from twisted.internet.interfaces import IReactorTime

from dapi.timing.histogram import Histogram, percentile

_REMEMBERED = 512
_SECONDS = 300.0
# Of fewer, the slowest one says nothing about the disk.
_ENOUGH = 20


class CommitTimes:
    """Remembers the commits of the last five minutes, the latest 512 at most; ``last_seconds`` is what the last took.

    All of them are counted in ``histogram``, too. One thread commits; any other may ask meanwhile.
    """

    def __init__(self, clock: IReactorTime, histogram: Histogram) -> None:
        self.last_seconds = 0.0
        self._histogram = histogram
        self._clock = clock
        self._commits: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    @contextlib.contextmanager
    def timed(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Remember how long a write takes, if it changes something."""
        began, changes = self._clock.seconds(), connection.total_changes
        yield
        if connection.total_changes != changes:
            now = self._clock.seconds()
            self.last_seconds = now - began
            self._histogram.observe(self.last_seconds)
            self._commits.append((now, self.last_seconds))

    def p99_seconds(self) -> float | None:
        """Return how long 99 of 100 commits took at most, to the millisecond; None when there were not 20 lately."""
        now = self._clock.seconds()
        # A copy in one step: the other thread may append meanwhile.
        recent = sorted(seconds for at, seconds in self._commits.copy() if now - at <= _SECONDS)
        return round(percentile(recent, 99), 3) if len(recent) >= _ENOUGH else None
