"""What the reconciler tells of the nodes, and which of them it warns of."""

from __future__ import annotations

from twisted.logger import LogLevel

from dapi.broker.node_reconciler import NodeStanding
from tests.batches import generated_batch
from tests.logs import log_of
from tests.unit.broker.reconciler_case import GENERATE, INFERENCE, NEXT, STOPPED, VALIDATE, ReconcilerTestCase


class StatusTests(ReconcilerTestCase):
    """What it tells of the nodes."""

    def test_fresh(self) -> None:
        self.assertEqual(NodeStanding(None, None, None, 1000, None, 0), self.standing())

    def test_since(self) -> None:
        self.advance(10)
        self.intend(GENERATE)
        self.advance(60)
        self.assertAlmostEqual(1010, self.standing().since)

    def test_found_elsewhere_is_logged(self) -> None:
        self.intend(GENERATE)
        self.advance(10)
        self.stub.state = "STOPPED"
        self.advance(30)
        self.assertIn("a: found STOPPED, where it is to GENERATE", self.lines)

    def test_no_line_for_a_node_that_is_well(self) -> None:
        self.intend(GENERATE)
        log = log_of(self)
        self.blocks(100)
        self.assertEqual(log.lines(LogLevel.debug), log.lines())


class WarningTests(ReconcilerTestCase):
    """A node that generates nothing is told of."""

    def batch(self) -> None:
        self.successResultOf(self.worker("a").batch_handler.handle_generated_batch(generated_batch(node_id=1)))

    def test_silent(self) -> None:
        self.intend(GENERATE)
        self.blocks(59)
        self.assertEqual({}, self.reconciler.warnings())
        self.blocks(1)
        self.assertEqual({"a": "a: is to generate, and no batch came from it for 60 s"}, self.reconciler.warnings())
        self.batch()
        self.assertEqual({}, self.reconciler.warnings())

    def test_silent_again(self) -> None:
        self.intend(GENERATE)
        for _ in range(10):
            self.blocks(20)
            self.batch()
            self.assertEqual({}, self.reconciler.warnings())
        self.blocks(61)
        self.assertEqual(1, len(self.reconciler.warnings()))

    def test_unreachable(self) -> None:
        self.stub.refused["state"] = 502
        self.intend(GENERATE)
        self.blocks(60)
        [warning] = self.reconciler.warnings().values()
        self.assertIn('(a: state (502): refused: {"detail": "no"})', warning)

    def test_only_of_those_who_are_to_generate(self) -> None:
        for intention in (VALIDATE, INFERENCE, STOPPED, None):
            self.intend(intention)
            self.blocks(100)
            self.assertEqual({}, self.reconciler.warnings())
        self.intend(GENERATE)
        self.assertEqual({}, self.reconciler.warnings())
        self.blocks(100)
        self.intend(NEXT)
        self.assertEqual({}, self.reconciler.warnings())
        self.blocks(100)
        self.successResultOf(self.broker.disable_node("a"))
        self.assertEqual({}, self.reconciler.warnings())
