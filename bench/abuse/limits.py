"""What an abuse may cost, and what it cost."""

from __future__ import annotations

import math
from typing import NamedTuple

from dapi.timing.histogram import percentile


class Limits(NamedTuple):
    """The limits of the table: ack times in milliseconds, memory in MB."""

    least_p99_ms: float = 20.0
    times_more: float = 2.0
    grown_mb: float = 100.0

    def p99_ms(self, quiet: list[float]) -> float:
        """Return what the 99th percentile may be beside an abuse, given the times without it."""
        return max(self.least_p99_ms, self.times_more * p99(quiet))


def p99(times: list[float]) -> float:
    """Return the 99th percentile by the nearest rank; NaN of nothing."""
    return percentile(sorted(times), 99) if times else math.nan


def broken_limits(quiet: list[float], beside: list[float], grown_mb: float, limits: Limits) -> list[str]:
    """Return which limits are broken, in words; without any ack the first one is."""
    broken = []
    # Written so that NaN breaks it, too.
    if not p99(beside) <= limits.p99_ms(quiet):
        broken.append(f"the 99th percentile is {p99(beside):.1f} ms, at most {limits.p99_ms(quiet):.1f} are allowed")
    if grown_mb > limits.grown_mb:
        broken.append(f"dapi grew by {grown_mb:.0f} MB, at most {limits.grown_mb:.0f} are allowed")
    return broken
