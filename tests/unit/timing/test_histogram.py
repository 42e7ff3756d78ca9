from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.histogram import Histogram

BOUNDS = (0.1, 1.0, 10.0)


class HistogramTests(SynchronousTestCase):
    def test_nothing(self) -> None:
        self.assertEqual((Histogram(BOUNDS).cumulative(), Histogram(BOUNDS).sum), ([0, 0, 0, 0], 0.0))

    @given(st.lists(st.floats(0, 20) | st.sampled_from(BOUNDS)))
    def test_counts_what_does_not_exceed_each_bound(self, values: list[float]) -> None:
        histogram = Histogram(BOUNDS)
        for value in values:
            histogram.observe(value)
        expected = [sum(value <= bound for value in values) for bound in (*BOUNDS, float("inf"))]
        self.assertEqual(histogram.cumulative(), expected)
        self.assertAlmostEqual(histogram.sum, sum(values))
