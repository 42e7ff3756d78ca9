"""A rehearsal of PoC on one stubbed node: its steps, what cuts it short, and that nothing of it is stored."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed

from dapi.broker.node_worker_commands import CommandResult, InferenceUpCommand, StartPocCommand, StopNodeCommand
from dapi.broker.nodes import Node
from dapi.broker.rehearsal import (
    TRANSITIONS,
    RehearsalState,
    RehearsalStatus,
    RehearsalTimes,
    RehearseCommand,
)
from dapi.broker.rehearsals import Rehearsals
from dapi.errors import NotReadyError, UnknownNodeError
from dapi.messages import ProofBatch, Receipt, ValidatedBatch, Via
from dapi.phases.duty import Duty
from dapi.poc.batch_handler import Recorder
from dapi.poc.rehearsal import HEIGHT, PUBLIC_KEY
from dapi.websocket.client import WebSocketState
from tests.batches import generated_batch, validated_batch
from tests.nodes import INIT
from tests.unit.broker.broker_case import BrokerTestCase

STAGE = (1000, "ABCDEF", "02ab")
ALL = ["init", "WebSocket", "first batch over the WebSocket", "rate", "first batch over the callback", "stop"]


class NothingMayCome(Recorder):
    """A recorder that no batch of a rehearsal may reach."""

    def __init__(self) -> None:
        self.kept: list[ProofBatch | ValidatedBatch] = []

    def submit_poc_batch(
        self, batch: ProofBatch, *, batch_id: str, node_id: str, via: Via, **_details: Any
    ) -> Deferred[Receipt]:
        self.kept.append(batch)
        return succeed(Receipt(batch_id, 1))

    def submit_poc_validation(
        self, batch: ValidatedBatch, *, batch_id: str, node_id: str | None, via: Via
    ) -> Deferred[Receipt]:
        self.kept.append(batch)
        return succeed(Receipt(batch_id, 1))


class RehearsalTestCase(BrokerTestCase):
    brings_back = False

    def setUp(self) -> None:
        super().setUp()
        self.recorder = NothingMayCome()
        self.add("a")
        self.stub = self.stubs["a"]
        self.rehearsals = Rehearsals(self.clock, self.broker, brings_back=self.brings_back)

    def make_worker(self, node: Node) -> Any:
        worker = super().make_worker(node)
        worker.batch_handler._recorder = self.recorder
        return worker

    def begin(self) -> RehearsalStatus:
        return self.rehearsals.begin("a")

    def status(self) -> RehearsalStatus:
        return self.rehearsals.status("a")

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds * 10))

    def deliver(self, via: Via, *, nonces: int = 10, **changes: Any) -> Receipt:
        """Deliver a batch as the node would, and return what it is answered."""
        (body,) = [body for body in self.stub.bodies if body is not None and "block_hash" in body][-1:]
        batch = generated_batch(
            **{
                "block_hash": body["block_hash"],
                "public_key": body["public_key"],
                "block_height": body["block_height"],
                "nonces": list(range(nonces)),
                "dist": [0.5] * nonces,
                **changes,
            }
        )
        return self.successResultOf(self.worker("a").batch_handler.handle_generated_batch(batch, via))

    def results(self) -> dict[str, str]:
        return {step.name: step.result.value for step in self.status().steps}


class StepTests(RehearsalTestCase):
    def test_all_steps_pass(self) -> None:
        began = self.begin()
        self.assertEqual((began.state, began.node_id, began.ended_at), (RehearsalState.RUNNING, "a", None))
        self.pass_time(1)
        self.assertEqual(self.deliver(Via.WEBSOCKET).seen, 0)
        self.pass_time(1)
        for _ in range(3):
            self.deliver(Via.WEBSOCKET, nonces=50)
        self.pass_time(15)
        self.assertFalse(self.websocket("a").running)
        self.assertEqual(self.results(), dict.fromkeys(ALL[:4], "PASS"))
        self.deliver(Via.HTTP)
        self.pass_time(1)
        done = self.status()
        self.assertEqual((done.state, self.results()), (RehearsalState.PASSED, dict.fromkeys(ALL, "PASS")))
        # 150 in 15 s, and the turn of the clock in which that is noticed.
        self.assertEqual(round(done.nonces_per_second or 0), 10)
        self.assertEqual(self.stub.state, "STOPPED")
        self.assertEqual(self.recorder.kept, [])
        self.assertIsNotNone(done.ended_at)
        self.assertEqual([step.to_do for step in done.steps], [None] * len(ALL))

    def test_the_init_is_one_of_a_poc_but_for_its_stage(self) -> None:
        self.begin()
        (body,) = [body for body in self.stub.bodies if body is not None]
        self.command_all(Duty.GENERATE, *STAGE)
        real = self.stub.bodies[-1]
        made_up = {"block_hash", "block_height", "public_key"}
        self.assertEqual({name for name in real if body[name] != real[name]}, made_up)
        self.assertEqual((body["block_height"], body["public_key"]), (HEIGHT, PUBLIC_KEY))

    def test_a_node_that_cannot_be_reached(self) -> None:
        self.stub.unreachable.add("state")
        self.begin()
        self.assertEqual((self.status().state, self.results()), (RehearsalState.FAILED, {"init": "FAIL"}))
        self.assertIn("look whether the node runs", str(self.status().steps[0].to_do))

    def test_a_node_that_refuses_the_init(self) -> None:
        self.stub.refused["pow/init/generate"] = 422
        self.begin()
        self.assertEqual((self.status().state, self.results()), (RehearsalState.FAILED, {"init": "FAIL"}))

    def test_a_node_that_serves_is_stopped_first(self) -> None:
        self.stub.state = "INFERENCE"
        self.begin()
        self.assertEqual(self.stub.events[:3], ["state", "stop", "pow/init/generate"])

    def refuse_websocket(self) -> None:
        websocket = self.websocket("a")
        told = websocket.status

        def status() -> Any:
            return msgspec.structs.replace(told(), state=WebSocketState.REFUSED, reason="404 Not Found")

        self.patch(websocket, "status", status)

    def test_no_websocket(self) -> None:
        self.refuse_websocket()
        self.begin()
        self.pass_time(31)
        self.assertEqual(self.results(), {"init": "PASS", "WebSocket": "FAIL"})
        self.deliver(Via.HTTP)
        self.pass_time(1)
        self.deliver(Via.HTTP)
        self.pass_time(20)
        self.assertEqual(self.results(), {**dict.fromkeys(ALL, "PASS"), "WebSocket": "FAIL", ALL[2]: "SKIPPED"})
        self.assertEqual(self.status().steps[1].found, "404 Not Found")
        self.assertEqual(self.status().state, RehearsalState.FAILED)

    def test_batches_come_by_http_though_the_websocket_is_open(self) -> None:
        self.begin()
        self.deliver(Via.HTTP)
        self.pass_time(1)
        self.assertEqual(self.results()[ALL[2]], "FAIL")

    def test_no_batch(self) -> None:
        self.begin()
        self.pass_time(245)
        self.assertEqual(self.results(), {"init": "PASS", "WebSocket": "PASS", ALL[2]: "FAIL", "stop": "PASS"})
        self.assertEqual((self.status().state, self.stub.state), (RehearsalState.FAILED, "STOPPED"))

    def test_nothing_after_the_first_and_no_callback(self) -> None:
        self.begin()
        self.deliver(Via.WEBSOCKET)
        self.pass_time(80)
        self.assertEqual(self.results(), {**dict.fromkeys(ALL, "PASS"), "rate": "FAIL", ALL[4]: "FAIL"})
        self.assertEqual(self.status().nonces_per_second, 0)
        self.assertIn("poc_callback_url", str(self.status().steps[4].to_do))

    def test_it_ends_in_time_whatever_the_node_does(self) -> None:
        self.assertLessEqual(240 + 30 + 15 + 60, RehearsalTimes().longest)


class NothingIsStoredTests(RehearsalTestCase):
    def test_not_before_in_or_after_a_rehearsal(self) -> None:
        self.begin()
        self.deliver(Via.WEBSOCKET)
        self.pass_time(80)
        self.assertNotEqual(self.status().state, RehearsalState.RUNNING)
        steps = self.status().steps
        for via in (Via.WEBSOCKET, Via.HTTP):
            self.assertEqual(self.deliver(via).seen, 0)
        # As after a restart of dapi.
        self.restart()
        self.deliver(Via.HTTP)
        self.assertEqual(self.recorder.kept, [])
        self.assertEqual(self.made[0].batch_handler.counts.generated, 0)
        self.assertEqual(self.made[0].batch_handler.counts.stored, 0)
        self.assertEqual(len(steps), len(ALL))

    def test_batches_of_an_earlier_rehearsal_are_not_counted_in_this_one(self) -> None:
        self.begin()
        self.deliver(Via.WEBSOCKET, block_hash="rehearsal-other")
        self.pass_time(1)
        self.assertNotIn(ALL[2], self.results())
        self.assertEqual(self.recorder.kept, [])

    def test_a_real_batch_meanwhile_is_recorded(self) -> None:
        self.begin()
        self.assertEqual(self.deliver(Via.WEBSOCKET, block_hash="ABCD").seen, 1)
        self.worker("a").batch_handler.handle_validated_batch(validated_batch())
        self.assertEqual(len(self.recorder.kept), 2)


class CutShortTests(RehearsalTestCase):
    def test_another_command_comes_first(self) -> None:
        for command in (StopNodeCommand(), StartPocCommand(INIT)):
            self.begin()
            self.pass_time(1)
            result = self.successResultOf(self.worker("a").submit(command))
            self.assertTrue(result.succeeded)
            self.assertEqual(self.status().state, RehearsalState.CUT_SHORT)
            self.assertEqual(self.results()["end"], "FAIL")
            self.successResultOf(self.worker("a").submit(StopNodeCommand()))

    def test_what_brings_inference_back_waits_for_the_end(self) -> None:
        self.begin()
        back = self.worker("a").submit(InferenceUpCommand())
        self.deliver(Via.WEBSOCKET)
        self.pass_time(40)
        self.assertEqual(self.status().state, RehearsalState.RUNNING)
        self.assertNoResult(back)
        self.pass_time(40)
        self.assertTrue(self.successResultOf(back).succeeded)
        self.assertEqual(self.stub.state, "INFERENCE")

    def test_a_disabled_node(self) -> None:
        self.begin()
        self.successResultOf(self.broker.disable_node("a"))
        self.assertEqual((self.status().state, self.stub.state), (RehearsalState.CUT_SHORT, "STOPPED"))
        self.begin()
        self.assertEqual(self.status().state, RehearsalState.RUNNING)

    def test_dapi_stops(self) -> None:
        self.begin()
        rehearsed = self.rehearsals._last["a"]
        self.successResultOf(self.broker.stopService())
        self.assertEqual(rehearsed.state, RehearsalState.CUT_SHORT)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_state_is_left_only_as_drawn(self) -> None:
        for before in RehearsalState:
            for after in RehearsalState:
                command = RehearseCommand(self.clock, INIT, self.worker("a").batch_handler, RehearsalTimes())
                command.state = before
                if after in TRANSITIONS[before]:
                    command.turn(after)
                    self.assertEqual(command.state, after)
                else:
                    self.assertRaises(RuntimeError, command.turn, after)


class RefusalTests(RehearsalTestCase):
    def refused(self) -> str:
        with self.assertRaises(NotReadyError) as caught:
            self.begin()
        return str(caught.exception)

    def test_unknown(self) -> None:
        for ask in (self.rehearsals.begin, self.rehearsals.status):
            with self.assertRaises(UnknownNodeError):
                ask("other")
        with self.assertRaisesRegex(UnknownNodeError, "not tested"):
            self.status()

    def test_while_one_is_under_way(self) -> None:
        self.begin()
        self.assertIn("under way already", self.refused())

    def test_while_the_node_does_poc_by_hand_or_something_else(self) -> None:
        self.command_all(Duty.GENERATE, *STAGE)
        self.assertIn("proof of compute", self.refused())
        self.command_all(Duty.STOPPED)
        self.stub.held.add("stop")
        self.broker.command_all(Duty.STOPPED)
        self.assertIn("StopNodeCommand is under way", self.refused())
        self.stub.release()

    def test_while_no_command_may_be_given(self) -> None:
        self.broker.refuse_commands_while(lambda: "the network runs PoC v2")
        self.assertIn("PoC v2", self.refused())
        self.assertEqual(self.stub.events, [])

    def test_a_node_that_is_gone_is_forgotten(self) -> None:
        self.begin()
        self.successResultOf(self.broker.remove_node("a"))
        self.add("b")
        self.assertRaises(UnknownNodeError, self.status)
        self.assertEqual(self.rehearsals._last, {})


class BringBackTests(RehearsalTestCase):
    brings_back = True

    def rehearse(self) -> None:
        self.begin()
        self.deliver(Via.WEBSOCKET)
        self.pass_time(80)

    def test_a_node_that_served_serves_again(self) -> None:
        self.stub.state = "INFERENCE"
        self.rehearse()
        self.assertEqual(self.stub.state, "INFERENCE")

    def test_a_node_that_was_stopped_stays_so(self) -> None:
        self.rehearse()
        self.assertEqual(self.stub.state, "STOPPED")

    def test_not_after_another_command(self) -> None:
        self.stub.state = "INFERENCE"
        self.begin()
        result: CommandResult = self.successResultOf(self.worker("a").submit(StopNodeCommand()))
        self.assertTrue(result.succeeded)
        self.assertEqual(self.stub.state, "STOPPED")
