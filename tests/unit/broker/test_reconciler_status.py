"""What the reconciler tells of the nodes."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel

from dapi.broker.node_reconciler import NodeStanding, OtherRun
from dapi.broker.node_worker_commands import NodeFailure
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


class RunTestCase(ReconcilerTestCase):
    """A node that delivers batches."""

    def batch(self, **changes: Any) -> None:
        intention = {"public_key": GENERATE.public_key, "block_hash": GENERATE.block_hash, "node_id": 1}
        batch = generated_batch(**(intention | changes))
        self.successResultOf(self.worker("a").batch_handler.handle_generated_batch(batch))


class SilenceTests(RunTestCase):
    """For how long a node that is to generate has sent no batch."""

    def test_silent(self) -> None:
        self.intend(GENERATE)
        self.blocks(59)
        self.assertEqual(self.standing().silent_seconds, 59)
        self.batch()
        self.assertEqual(self.standing().silent_seconds, 0)

    def test_silent_again(self) -> None:
        self.intend(GENERATE)
        for _ in range(10):
            self.blocks(20)
            self.batch()
            self.assertEqual(self.standing().silent_seconds, 0)
        self.blocks(61)
        self.assertEqual(self.standing().silent_seconds, 61)

    def test_only_of_those_who_are_to_generate(self) -> None:
        for intention in (VALIDATE, INFERENCE, STOPPED, None):
            self.intend(intention)
            self.blocks(100)
            self.assertIsNone(self.standing().silent_seconds)
        self.intend(GENERATE)
        self.assertEqual(self.standing().silent_seconds, 0)
        self.blocks(100)
        self.intend(NEXT)
        self.assertEqual(self.standing().silent_seconds, 0)
        self.blocks(100)
        self.successResultOf(self.broker.disable_node("a"))
        self.assertIsNone(self.standing().silent_seconds)


class FailureTests(ReconcilerTestCase):
    """Of which kind a failure is, and what the node was found doing."""

    def test_a_node_that_refuses(self) -> None:
        self.stub.refused["state"] = 502
        self.intend(GENERATE)
        self.blocks(5)
        self.assert_standing(failure=NodeFailure.REFUSED, problem='a: state (502): refused: {"detail": "no"}')
        del self.stub.refused["state"]
        self.blocks(10)
        self.assert_standing(failure=None, problem=None)

    def test_a_node_that_does_not_answer_a_question(self) -> None:
        self.intend(GENERATE)
        self.blocks(5)
        self.stub.held = {"state"}
        self.blocks(60)
        self.assert_standing(failure=NodeFailure.UNREACHABLE)

    def test_a_node_that_takes_its_command_and_stays_idle(self) -> None:
        self.intend(GENERATE)
        self.assert_standing(found=None)
        for _ in range(6):
            self.stub.pow_status = "IDLE"
            self.blocks(5)
        self.assert_standing(found="IDLE")
        self.blocks(20)
        self.assert_standing(found=None)


class DayTests(ReconcilerTestCase):
    """A node that is down for a day."""

    def test_one_line_tells_of_it(self) -> None:
        log = log_of(self)
        self.intend(INFERENCE)
        self.blocks(10)
        self.stub.refused["state"] = 503
        for _hour in range(24):
            for intention in (GENERATE, VALIDATE, INFERENCE, NEXT):
                self.intend(intention)
                for _ in range(900 // 30):
                    self.clock.advance(30)
                    self.reconciler.reconcile()
        self.assertEqual(log.warnings(), ['a: StartPocCommand failed: a: state (503): refused: {"detail": "no"}'])


class OtherRunTests(RunTestCase):
    """Of which other run the batches were that came within the last minute."""

    def test_of_another_stage_or_owner(self) -> None:
        self.intend(GENERATE)
        for changes, run in (({"block_hash": "another"}, OtherRun.STAGE), ({"public_key": "02ff"}, OtherRun.OWNER)):
            self.blocks(6)
            self.batch(**changes)
            self.blocks(59)
            self.assert_standing(other_run=run)
        self.blocks(2)
        self.assert_standing(other_run=None)

    def test_what_comes_right_after_the_init_is_no_other_run(self) -> None:
        self.intend(GENERATE)
        self.batch(block_hash="another")
        self.assert_standing(other_run=None, batches_of_others=1)

    def test_a_new_stage_begins_anew(self) -> None:
        self.intend(GENERATE)
        self.blocks(6)
        self.batch(block_hash="another")
        self.assert_standing(other_run=OtherRun.STAGE)
        self.intend(NEXT)
        self.assert_standing(other_run=None)
