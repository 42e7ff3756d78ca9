"""What each command does to a node and its WebSocket, in which order, and what comes of each failure."""

from __future__ import annotations

import json

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.broker.node_worker_commands import (
    Command,
    CommandResult,
    InferenceUpCommand,
    InitValidateCommand,
    NodeFailure,
    StartPocCommand,
    StopNodeCommand,
)
from dapi.broker.nodes import Node
from dapi.mlnode.client import MLNodeState
from tests.nodes import INIT, StubNode, make_worker, node_config

INIT_COMMANDS: list[tuple[Command, str, str]] = [
    (StartPocCommand(INIT), "pow/init/generate", "GENERATING"),
    (InitValidateCommand(INIT), "pow/init/validate", "VALIDATING"),
]


class CommandTestCase(SynchronousTestCase):
    """Runs commands on a worker of a stubbed node."""

    def submit(self, command: Command, stub: StubNode, *, websocket_open: bool = True) -> Deferred[CommandResult]:
        self.clock = Clock()
        worker = make_worker(self.clock, Node(node_config(), 1), stub)
        self.websocket = worker.websocket_client
        self.websocket.running = websocket_open
        worker.startService()
        return worker.submit(command)

    def run_command(
        self, command: Command, stub: StubNode, *, websocket_open: bool = True, seconds: float = 0
    ) -> CommandResult:
        answer = self.submit(command, stub, websocket_open=websocket_open)
        self.clock.advance(seconds)
        return self.successResultOf(answer)

    def assert_websocket(self, *, is_open: bool) -> None:
        self.assertEqual(is_open, self.websocket.running)


class InitTests(CommandTestCase):
    """StartPocCommand and InitValidateCommand."""

    def test_stopped_node(self) -> None:
        for command, init, status in INIT_COMMANDS:
            stub = StubNode("STOPPED")
            result = self.run_command(command, stub, websocket_open=False)
            self.assertEqual(CommandResult(True, status, None), result)
            self.assertEqual(["state", init, "websocket restart"], stub.events)
            self.assertEqual(json.loads(msgspec.json.encode(INIT)), stub.bodies[1])
            self.assert_websocket(is_open=True)

    def test_node_in_pow_is_sent_an_init_all_the_same(self) -> None:
        for command, init, _ in INIT_COMMANDS:
            stub = StubNode("POW")
            self.assertTrue(self.run_command(command, stub).succeeded)
            self.assertEqual(["state", init, "websocket restart"], stub.events)

    def test_node_that_does_something_else_is_stopped_first(self) -> None:
        for command, init, status in INIT_COMMANDS:
            for state in ("INFERENCE", "TRAIN"):
                stub = StubNode(state)
                self.assertEqual(CommandResult(True, status, None), self.run_command(command, stub))
                self.assertEqual(["state", "stop", init, "websocket restart"], stub.events)

    def test_each_success_restarts_the_websocket(self) -> None:
        stub = StubNode()
        worker = make_worker(Clock(), Node(node_config(), 1), stub)
        worker.startService()
        for command, _, _ in INIT_COMMANDS * 2:
            self.assertTrue(self.successResultOf(worker.submit(command)).succeeded)
        self.assertEqual(4, stub.events.count("websocket restart"))
        self.assertNotIn("websocket stop", stub.events)

    def test_failures_close_the_websocket(self) -> None:
        for command, init, _ in INIT_COMMANDS:
            for failing, calls in (
                ("state", ["state"]),
                ("stop", ["state", "stop"]),
                (init, ["state", "stop", init]),
            ):
                stub = StubNode("INFERENCE")
                stub.refused[failing] = 500
                result = self.run_command(command, stub)
                error = f'node1: {failing} (500): refused: {{"detail": "no"}}'
                self.assertEqual(CommandResult.failed(error, NodeFailure.REFUSED), result)
                self.assertEqual([*calls, "websocket stop"], stub.events)
                self.assert_websocket(is_open=False)


class InferenceUpTests(CommandTestCase):
    """InferenceUpCommand."""

    def test_stopped_node(self) -> None:
        for blocking in (False, True):
            stub = StubNode("STOPPED")
            stub.up_status = None if blocking else "completed"
            result = self.run_command(InferenceUpCommand(), stub, seconds=0 if blocking else 2)
            self.assertEqual(CommandResult(True, "INFERENCE", None), result)
            then = ["inference/up"] if blocking else ["inference/up/status"]
            self.assertEqual(["state", "websocket stop", "inference/up/async", *then], stub.events)
            self.assertEqual(
                {
                    "model": "Qwen/Qwen2.5-7B-Instruct",
                    "dtype": "float16",
                    "additional_args": ["--quantization", "fp8"],
                },
                stub.bodies[1],
            )
            self.assert_websocket(is_open=False)

    def test_waits_until_it_serves(self) -> None:
        stub = StubNode("STOPPED")
        stub.up_status = "in_progress"
        answer = self.submit(InferenceUpCommand(), stub)
        for _ in range(300):
            self.clock.advance(2)
        self.assertNoResult(answer)
        self.assertEqual(300, stub.events.count("inference/up/status"))
        stub.up_status = "completed"
        self.clock.advance(2)
        self.assertEqual(CommandResult(True, "INFERENCE", None), self.successResultOf(answer))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_does_not_come_up(self) -> None:
        for status, error in (
            ("failed", "failed: no memory"),
            ("cancelled", "cancelled"),
            ("not_started", "not_started"),
        ):
            stub = StubNode("STOPPED")
            stub.up_status = status
            result = self.run_command(InferenceUpCommand(), stub, seconds=2)
            self.assertEqual(CommandResult.failed(f"node1: inference/up: {error}", NodeFailure.REFUSED), result)

    def test_node_that_does_something_else_is_stopped_first(self) -> None:
        for state in ("POW", "TRAIN"):
            stub = StubNode(state)
            self.assertTrue(self.run_command(InferenceUpCommand(), stub).succeeded)
            self.assertEqual(["state", "stop", "websocket stop", "inference/up/async", "inference/up"], stub.events)

    def test_node_that_serves_already(self) -> None:
        stub = StubNode("INFERENCE")
        self.assertEqual(CommandResult(True, "INFERENCE", None), self.run_command(InferenceUpCommand(), stub))
        self.assertEqual(["state", "health", "websocket stop"], stub.events)

    def test_node_that_is_about_to_serve_is_not_disturbed(self) -> None:
        stub = StubNode("INFERENCE")
        stub.up_status = "in_progress"
        answer = self.submit(InferenceUpCommand(), stub)
        stub.up_status = "completed"
        self.clock.advance(2)
        self.assertTrue(self.successResultOf(answer).succeeded)
        self.assertEqual(
            ["state", "health", "inference/up/status", "websocket stop", "inference/up/status"], stub.events
        )

    def test_sick_node_is_started_anew(self) -> None:
        for up_status, last in (("completed", "inference/up/status"), ("failed", None), (None, "inference/up")):
            stub = StubNode("INFERENCE")
            stub.refused["health"] = 503
            stub.up_status = up_status
            answer = self.submit(InferenceUpCommand(), stub)
            begin = ["state", "health", "inference/up/status", "stop", "websocket stop", "inference/up/async"]
            self.assertEqual(begin, stub.events[:6])
            self.clock.advance(2)
            self.assertEqual(last is not None, self.successResultOf(answer).succeeded)
            if last is not None:
                self.assertEqual([*begin, last], stub.events)

    def test_inference_port_that_cannot_be_reached(self) -> None:
        stories = [
            (up_status, is_left_alone, is_found)
            for up_status, is_left_alone in (("completed", True), ("failed", False), (None, False))
            for is_found in (True, False)
        ]
        for up_status, is_left_alone, is_found in stories:
            stub = StubNode("INFERENCE")
            stub.up_status = up_status
            if is_found:
                stub.refused["health"] = 404
            else:
                stub.unreachable = {"health"}
            answer = self.submit(InferenceUpCommand(), stub)
            self.assertEqual(is_left_alone, "stop" not in stub.events)
            if is_left_alone:
                self.assertTrue(self.successResultOf(answer).succeeded)

    def test_refused_by_a_node_that_did_not_serve(self) -> None:
        for path, up_status in (("inference/up", None), ("inference/up/async", "completed")):
            stub = StubNode("STOPPED")
            stub.up_status = up_status
            stub.refused[path] = 409
            self.assertFalse(self.run_command(InferenceUpCommand(), stub).succeeded)

    def test_failures_close_the_websocket(self) -> None:
        for failing in ("state", "stop", "inference/up/async", "inference/up", "inference/up/status"):
            stub = StubNode("POW")
            stub.up_status = None if failing == "inference/up" else "completed"
            stub.refused[failing] = 503
            result = self.run_command(InferenceUpCommand(), stub, seconds=2)
            self.assertEqual((False, "UNKNOWN"), (result.succeeded, result.status))
            self.assertIn(f"node1: {failing} (503)", str(result.error))
            self.assert_websocket(is_open=False)


class StopNodeTests(CommandTestCase):
    """StopNodeCommand."""

    def test_success(self) -> None:
        for state in MLNodeState:
            stub = StubNode(state)
            self.assertEqual(CommandResult(True, "STOPPED", None), self.run_command(StopNodeCommand(), stub))
            self.assertEqual(["stop", "websocket stop"], stub.events)
            self.assertEqual("STOPPED", stub.state)
            self.assert_websocket(is_open=False)

    def test_failure_closes_the_websocket(self) -> None:
        stub = StubNode("POW")
        stub.refused["stop"] = 500
        result = self.run_command(StopNodeCommand(), stub)
        self.assertEqual((False, "UNKNOWN"), (result.succeeded, result.status))
        self.assertEqual(["stop", "websocket stop"], stub.events)
        self.assert_websocket(is_open=False)
