"""The node counts of the latest stages."""

from __future__ import annotations

from dapi.broker.node_counts import NodeCounts
from dapi.phases.duty import Duty
from tests.unit.broker.broker_case import BrokerTestCase


class NodeCountTests(BrokerTestCase):
    def test_the_latest_stages_are_remembered(self) -> None:
        counts = NodeCounts()
        counts.record_all({2: 12, 1: 11})
        for height in range(3, 10):
            counts.record(height, 10 + height)
        counts.record(9, 30)
        self.assertEqual([counts.of(height) for height in (1, 2, 8, 9)], [set(), {12}, {18}, {19, 30}])

    def test_of_stages_by_hand_and_of_those_that_are_stored(self) -> None:
        self.add("a", "b")
        self.command_all(Duty.GENERATE, 100, "AB", "02aa")
        self.add("c")
        self.command_all(Duty.GENERATE, 200, "AB", "02aa")
        self.assertEqual((self.broker.node_counts(100), self.broker.node_counts(200)), ({3}, {4}))
        self.database._connection.execute("INSERT INTO stages (height, stage, node_count) VALUES (300, '', 9)")
        self.restart()
        self.assertEqual((self.broker.node_counts(100), self.broker.node_counts(300)), (set(), {9}))
