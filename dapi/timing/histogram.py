"""How long things took, counted at next to no cost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds for what takes from a millisecond to half a minute."""


def percentile(sorted_values: Sequence[float], percent: int) -> float:
    """Return the smallest of these values, of which there has to be one, that ``percent`` of 100 do not exceed."""
    return sorted_values[max(0, -(-percent * len(sorted_values) // 100) - 1)]


class Histogram:
    """Counts values by the smallest of ``bounds`` that they do not exceed.

    One thread at a time may observe; what another thread reads meanwhile may lack the last value.
    """

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.sum = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[int]:
        """Return how many values do not exceed each bound, and at last how many there are."""
        return list(accumulate(self._counts))
