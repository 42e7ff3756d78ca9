"""No holder of a shared amount has so much that nothing is left for the others."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.http.shares import Shares


class ShareTests(SynchronousTestCase):
    def fill(self, shares: Shares, holder: str) -> int:
        while shares.may_take(holder):
            shares.take(holder)
        return shares.held_by(holder)

    def test_each_leaves_room_for_the_next(self) -> None:
        shares = Shares(1024)
        held = [self.fill(shares, str(number)) for number in range(12)]
        self.assertEqual(held[:4], [342, 228, 152, 101])
        self.assertTrue(all(held), held)
        self.assertLess(shares.total, 1024)
        self.assertTrue(shares.may_take("somebody else"))

    def test_what_is_given_back_may_be_taken(self) -> None:
        shares = Shares(3)
        for holder in "abc":
            shares.take(holder)
        self.assertFalse(shares.may_take("d"))
        shares.give_back("a")
        self.assertTrue(shares.may_take("d"))
        for holder in "bc":
            shares.give_back(holder)
        self.assertEqual((shares.total, shares.holders), (0, 0))

    def test_more_at_once(self) -> None:
        shares = Shares(100)
        self.assertTrue(shares.may_take("a", 100))
        self.assertFalse(shares.may_take("a", 101))
        shares.take("a", 30)
        self.assertEqual((shares.may_take("a", 70), shares.may_take("b", 71)), (True, False))
        shares.take("a", 10)
        self.assertFalse(shares.may_take("a"))
