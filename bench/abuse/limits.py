"""What an abuse may cost, and what it cost."""

from __future__ import annotations

from typing import NamedTuple

from dapi.timing.histogram import percentile


class Limits(NamedTuple):
    """The limits of the table: ack times in milliseconds, memory in MB."""

    least_p99_ms: float = 20.0
    times_more: float = 2.0
    grown_mb: float = 100.0

    def p99_ms(self, without: float | None) -> float:
        """Return what the 99th percentile may be beside an abuse, given that without it; None: there was no ack."""
        return max(self.least_p99_ms, self.times_more * (without or 0.0))


def p99(times: list[float]) -> float | None:
    """Return the 99th percentile by the nearest rank; None of nothing."""
    return percentile(sorted(times), 99) if times else None


def broken_limits(without: float | None, beside: float | None, grown_mb: float, limits: Limits) -> list[str]:
    """Return which limits are broken, in words, given both 99th percentiles; without any ack the first one is."""
    broken, allowed = [], limits.p99_ms(without)
    if beside is None:
        broken.append("no message was acknowledged")
    elif beside > allowed:
        broken.append(f"the 99th percentile is {beside:.1f} ms, at most {allowed:.1f} are allowed")
    if grown_mb > limits.grown_mb:
        broken.append(f"dapi grew by {grown_mb:.0f} MB, at most {limits.grown_mb:.0f} are allowed")
    return broken
