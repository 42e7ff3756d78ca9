"""Compares this machine's clock with the times of the blocks."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

_SAMPLES = 8
_ENOUGH_SAMPLES = 3
_MAX_INTERVAL_SECONDS = 15.0


class ClockOffset:
    """How far this machine's clock is from the chain's, as far as blocks tell.

    The validators choose a block's time while they sign the block before it (CometBFT's BFT time), so a block that
    has just come is up to one block old: that much is no offset. The least delayed of the last blocks counts, and the
    first one does not: it may be old.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._last: tuple[int, float] | None = None
        self._ages: deque[float] = deque(maxlen=_SAMPLES)
        self._intervals: deque[float] = deque(maxlen=_SAMPLES)

    def record(self, height: int, block_time_ns: int) -> None:
        """Hear of a block that has just come."""
        block_time = block_time_ns / 1e9
        last, self._last = self._last, (height, block_time)
        if last is None or height <= last[0]:
            return
        self._ages.append(self._now() - block_time)
        self._intervals.append((block_time - last[1]) / (height - last[0]))

    @property
    def seconds(self) -> float | None:
        """By how many seconds the clock is ahead (above 0) or behind (below 0); None: not known yet."""
        if len(self._ages) < _ENOUGH_SAMPLES:
            return None
        age = min(self._ages)
        interval = min(max(statistics.median(self._intervals), 0.0), _MAX_INTERVAL_SECONDS)
        return round(age if age < 0 else max(0.0, age - interval), 1)
