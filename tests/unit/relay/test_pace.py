"""How long one try may take, so that neither a hanging nor a slow container costs a payload its stage."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.sizes import MIB
from dapi.relay.pace import try_seconds


class PaceTests(SynchronousTestCase):
    def test_far_from_the_end_a_try_has_a_minute(self) -> None:
        self.assertEqual(try_seconds(MIB, None, 1), 60)
        self.assertEqual(try_seconds(MIB, 300.0, 1), 60)

    def test_a_try_leaves_time_for_another_one(self) -> None:
        for left in range(50, 400):
            self.assertLessEqual(try_seconds(MIB, float(left), 1), max(5.25, left - 45))
            self.assertGreater(try_seconds(MIB, float(left), 1), 5)

    def test_near_the_end_it_is_short_but_for_who_needs_long(self) -> None:
        self.assertEqual([try_seconds(0, 30.0, tries) for tries in (1, 2, 3, 9)], [5, 5, 10, 10])
        self.assertGreater(try_seconds(70 * MIB, 30.0, 1), 20)
