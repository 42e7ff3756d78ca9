"""Who had more than the others waits; what is counted is bounded."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.submission.node_shares import STEP_BYTES, NodeShares

GROUP = (10, "generated")


class NodeSharesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shares = NodeShares()

    def lists(self) -> list[str]:
        return list(self.shares.to_let_wait(GROUP))

    def test_within_a_step_nobody_waits(self) -> None:
        self.assertEqual(self.lists(), ["[]"])
        self.shares.record(GROUP, "a", STEP_BYTES - 1)
        self.shares.record(GROUP, None, 1)
        self.assertEqual(self.lists(), ["[]"])

    def test_each_step_waits_for_those_below_it(self) -> None:
        for node, steps in (("a", 2), ("b", 1), (None, 1), ("d", 0)):
            self.shares.record(GROUP, node, steps * STEP_BYTES)
        self.assertEqual(self.lists(), ['["", "a", "b"]', '["a"]', "[]"])

    def test_who_has_had_nothing_yet_goes_before_all(self) -> None:
        self.shares.record(GROUP, "a", STEP_BYTES)
        self.assertEqual(self.lists(), ['["a"]', "[]"])

    def test_each_stage_and_kind_for_itself_and_not_all_for_ever(self) -> None:
        self.shares.record(GROUP, "a", STEP_BYTES)
        for height in range(20, 28):
            self.assertEqual(self.lists(), ['["a"]', "[]"])
            self.shares.record((height, "generated"), "a", 1)
        self.assertEqual(self.lists(), ["[]"])

    def test_what_was_found_holds_for_a_round(self) -> None:
        self.shares.found(GROUP, "run", "[]", 7)
        self.assertEqual(self.shares.first(GROUP, "run", "[]"), 7)
        self.assertEqual(self.shares.first(GROUP, "", "[]"), 0)
        self.assertEqual(self.shares.first(GROUP, "run", '["a"]'), 0)
        self.shares.begin_round()
        self.assertEqual(self.shares.first(GROUP, "run", "[]"), 0)
