"""This machine's clock beside the times of blocks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.clock_offset import ClockOffset


class ClockOffsetTests(SynchronousTestCase):
    """``ClockOffset``."""

    def offset(self, ages: list[float], interval: float = 6.0) -> float | None:
        """The offset after blocks that came so many seconds after their own times."""
        now = 0.0
        clock_offset = ClockOffset(lambda: now)
        for number, age in enumerate(ages):
            block_time = 1e9 + number * interval
            now = block_time + age
            clock_offset.record(100 + number, round(block_time * 1e9))
        return clock_offset.seconds

    def test_not_known_at_first(self) -> None:
        self.assertIsNone(self.offset([]))
        self.assertIsNone(self.offset([0.0, 0.0, 0.0]))
        self.assertEqual(self.offset([0.0, 0.0, 0.0, 0.0]), 0.0)

    def test_a_block_is_up_to_one_block_old(self) -> None:
        for age in (0.0, 0.5, 6.0):
            self.assertEqual(self.offset([age] * 5), 0.0)

    def test_ahead_and_behind(self) -> None:
        self.assertEqual(self.offset([66.5] * 5), 60.5)
        self.assertEqual(self.offset([-20.0] * 5), -20.0)

    def test_the_first_block_and_single_delays_do_not_count(self) -> None:
        self.assertEqual(self.offset([3600.0, 6.0, 50.0, 6.0, 90.0]), 0.0)

    def test_a_clock_that_is_set_right_is_right_soon(self) -> None:
        self.assertEqual(self.offset([100.0] * 9 + [1.0]), 0.0)

    def test_a_block_twice_is_no_sample(self) -> None:
        clock_offset = ClockOffset(lambda: 1e9)
        for _ in range(9):
            clock_offset.record(5, 10**18)
        self.assertIsNone(clock_offset.seconds)
