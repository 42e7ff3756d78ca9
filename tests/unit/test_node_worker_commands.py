"""What each command does to a node and its WebSocket, in which order, and what comes of each failure."""

from __future__ import annotations

import json

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.broker.node_worker_commands import (
    Command,
    CommandResult,
    InferenceUpCommand,
    InitValidateCommand,
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

    def run_command(self, command: Command, stub: StubNode, *, websocket_open: bool = True) -> CommandResult:
        worker = make_worker(Clock(), Node(node_config(), 1), stub)
        self.websocket = worker.websocket_client
        self.websocket.running = websocket_open  # type: ignore[attr-defined]
        worker.startService()
        return self.successResultOf(worker.submit(command))

    def assert_websocket(self, *, is_open: bool) -> None:
        self.assertEqual(is_open, self.websocket.running)  # type: ignore[attr-defined]


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
                self.assertEqual(CommandResult(False, "UNKNOWN", error), result)
                self.assertEqual([*calls, "websocket stop"], stub.events)
                self.assert_websocket(is_open=False)


class InferenceUpTests(CommandTestCase):
    """InferenceUpCommand."""

    def test_stopped_node(self) -> None:
        stub = StubNode("STOPPED")
        self.assertEqual(CommandResult(True, "INFERENCE", None), self.run_command(InferenceUpCommand(), stub))
        self.assertEqual(["state", "websocket stop", "inference/up"], stub.events)
        self.assertEqual(
            {
                "model": "Qwen/Qwen2.5-7B-Instruct",
                "dtype": "float16",
                "additional_args": ["--quantization", "fp8"],
            },
            stub.bodies[1],
        )
        self.assert_websocket(is_open=False)

    def test_node_that_does_something_else_is_stopped_first(self) -> None:
        for state in ("POW", "TRAIN"):
            stub = StubNode(state)
            self.assertTrue(self.run_command(InferenceUpCommand(), stub).succeeded)
            self.assertEqual(["state", "stop", "websocket stop", "inference/up"], stub.events)

    def test_node_that_serves_already(self) -> None:
        stub = StubNode("INFERENCE")
        self.assertEqual(CommandResult(True, "INFERENCE", None), self.run_command(InferenceUpCommand(), stub))
        self.assertEqual(["state", "websocket stop", "inference/up"], stub.events)

    def test_refused_by_a_node_that_did_not_serve(self) -> None:
        stub = StubNode("STOPPED")
        stub.refused["inference/up"] = 409
        self.assertFalse(self.run_command(InferenceUpCommand(), stub).succeeded)

    def test_failures_close_the_websocket(self) -> None:
        for failing in ("state", "stop", "inference/up"):
            stub = StubNode("POW")
            stub.refused[failing] = 503
            result = self.run_command(InferenceUpCommand(), stub)
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
