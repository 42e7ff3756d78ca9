from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.histogram import Histogram, percentile

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


class PercentileTests(SynchronousTestCase):
    def test_the_nearest_rank(self) -> None:
        hundred = [float(number) for number in range(1, 101)]
        self.assertEqual([percentile(hundred, percent) for percent in (1, 50, 99, 100)], [1.0, 50.0, 99.0, 100.0])
        self.assertEqual([percentile([7.0], percent) for percent in (0, 50, 99)], [7.0] * 3)
        self.assertEqual(percentile([1.0, 2.0, 3.0], 50), 2.0)
