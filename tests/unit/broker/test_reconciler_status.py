"""What the reconciler tells of the nodes, and which of them it warns of."""

from __future__ import annotations

from twisted.logger import LogLevel

from dapi.broker.node_reconciler import NodeStanding
from dapi.broker.switch_log import SwitchLog
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
        self.clock.advance(5)
        log = log_of(self)
        self.blocks(100)
        self.assertEqual(log.lines(LogLevel.debug), log.lines())

    def test_a_node_from_another_stage_makes_one_line_a_minute(self) -> None:
        log = log_of(self)
        self.intend(GENERATE)
        for _ in range(24):
            # Another API node has it validate, again and again.
            self.stub.pow_status = "VALIDATING"
            self.blocks(5)
        found = [line for line in log.lines() if "found VALIDATING" in line]
        self.assertGreater(len(found), 10)
        self.assertEqual(len(log.warnings()), 2, log.warnings())
        self.assertEqual(len(log.lines(LogLevel.info)), 1, log.lines(LogLevel.info))


class SwitchTests(ReconcilerTestCase):
    """A stage's start is one line, however many nodes there are."""

    def infos(self) -> list[str]:
        return [line for line in self.log.lines(LogLevel.info) if "switched" in line]

    def test_one_line_for_all_nodes(self) -> None:
        self.add("b")
        self.log = log_of(self)
        self.intend(INFERENCE, "a", "b")
        self.advance(1)
        self.intend(GENERATE, "a", "b")
        self.advance(30)
        self.assertEqual(
            self.infos(),
            ["switched to inference: 2 nodes (a, b)", "stage 1000: switched to generation: 2 nodes (a, b)"],
        )
        self.assertEqual(self.log.warnings(), [])

    def test_a_command_that_gives_way_is_no_news(self) -> None:
        self.stub.held = {"inference/up"}
        self.log = log_of(self)
        self.intend(INFERENCE)
        self.advance(1)
        self.intend(GENERATE)
        self.advance(10)
        self.assertEqual(self.infos(), ["stage 1000: switched to generation: 1 node (a)"])
        self.assertEqual(self.log.warnings(), [])

    def test_a_late_node_has_its_own_line_and_a_failure_is_told(self) -> None:
        self.add("b")
        self.stubs["b"].refused["state"] = 503
        self.log = log_of(self)
        self.intend(GENERATE, "a", "b")
        self.advance(20)
        del self.stubs["b"].refused["state"]
        self.advance(20)
        self.assertEqual(
            self.infos(),
            ["stage 1000: switched to generation: 1 node (a)", "stage 1000: switched to generation: 1 node (b)"],
        )
        self.assertEqual(len(self.log.warnings("b: StartPocCommand failed")), 1)

    def test_many_nodes_are_counted(self) -> None:
        self.log = log_of(self)
        switch_log = SwitchLog(self.clock)
        for number in range(1000):
            switch_log.switched(f"n{number}", GENERATE)
        self.clock.advance(5)
        (line,) = self.infos()
        self.assertIn("1000 nodes (n0, n1, ", line)
        self.assertTrue(line.endswith("n19 and 980 more)"))

    def test_a_stop_leaves_nothing(self) -> None:
        self.log = log_of(self)
        self.intend(GENERATE)
        self.successResultOf(self.reconciler.stopService())
        self.assertEqual(len(self.infos()), 1)


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
