"""The states of a worker: what each event does in each of them."""

from __future__ import annotations

import contextlib

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.broker.node_worker import WorkerState
from dapi.broker.node_worker_commands import CommandResult, NodeAccess, StopNodeCommand
from dapi.broker.nodes import Node
from tests.nodes import StubNode, make_worker, node_config


class StubbornCommand:
    """Takes until its Deferred fires, though it is cancelled."""

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred()

    async def execute(self, access: NodeAccess) -> CommandResult:
        while not self.done.called:
            ended: Deferred[None] = Deferred()
            self.done.addCallback(ended.callback)
            with contextlib.suppress(CancelledError):
                await ended
        return CommandResult(True, "DONE")


class StateTests(SynchronousTestCase):
    """The drawing at the top of node_worker.py."""

    def setUp(self) -> None:
        self.worker = make_worker(Clock(), Node(node_config(), 3), StubNode())
        self.command = StubbornCommand()

    def bring_to(self, state: WorkerState) -> None:
        self.setUp()
        steps = {
            WorkerState.NEW: "",
            WorkerState.IDLE: "start",
            WorkerState.WORKING: "start submit",
            WorkerState.STOPPING: "start submit stop",
            WorkerState.STOPPED: "stop",
        }
        for event in steps[state].split():
            self.make(event)
        self.assertIs(state, self.worker.state)

    def make(self, event: str) -> None:
        match event:
            case "start":
                self.worker.startService()
            case "stop":
                self.worker.stopService()
            case "submit":
                self.worker.submit(self.command)
            case "end":
                self.command.done.callback(None)

    def test_each_event_in_each_state(self) -> None:
        new, idle, working, stopping, stopped = WorkerState
        for before, event, after in (
            *((new, "start", idle), (new, "submit", new), (new, "stop", stopped)),
            *((idle, "start", idle), (idle, "submit", working), (idle, "stop", stopped)),
            *((working, "start", working), (working, "submit", working), (working, "stop", stopping)),
            *((stopping, "start", working), (stopping, "submit", stopping), (stopping, "stop", stopping)),
            *((stopped, "start", idle), (stopped, "submit", stopped), (stopped, "stop", stopped)),
            *((working, "end", idle), (stopping, "end", stopped)),
        ):
            self.bring_to(before)
            self.make(event)
            self.assertIs(after, self.worker.state, f"{before} {event}")

    def test_started_with_a_command_that_waits(self) -> None:
        self.make("submit")
        self.make("start")
        self.assertIs(WorkerState.WORKING, self.worker.state)

    def test_started_again_before_the_last_command_has_ended(self) -> None:
        self.bring_to(WorkerState.STOPPING)
        self.make("start")
        answer = self.worker.submit(StopNodeCommand())
        self.assertNoResult(answer)
        self.make("end")
        self.assertTrue(self.successResultOf(answer).succeeded)
        self.assertIs(WorkerState.IDLE, self.worker.state)
