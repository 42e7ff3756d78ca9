"""A worker: one command at a time, every command answered, nothing left after the stop."""

from __future__ import annotations

from random import Random

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from dapi.broker.node_worker import QUEUE_LIMIT, CommandRecord
from dapi.broker.node_worker_commands import (
    CommandResult,
    InferenceUpCommand,
    InitValidateCommand,
    NodeAccess,
    NodeFailure,
    StartPocCommand,
    StopNodeCommand,
)
from dapi.broker.nodes import Node
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.websocket_client import WebSocketClient
from tests.batches import generated_batch
from tests.logs import log_of
from tests.nodes import INIT, FakeWebSocket, NoRecorder, StubNode, make_worker, node_config, websocket_of


class WaitCommand:
    """Takes until its Deferred fires."""

    def __init__(self) -> None:
        self.done: Deferred[str] = Deferred()
        self.is_begun = False

    async def execute(self, access: NodeAccess) -> CommandResult:
        self.is_begun = True
        return CommandResult(True, await self.done)


class BrokenCommand:
    """Has a defect."""

    async def execute(self, access: NodeAccess) -> CommandResult:
        raise ZeroDivisionError("defect")


class WorkerTestCase(SynchronousTestCase):
    """Has a running worker of a stubbed node."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.stub = StubNode()
        self.worker = make_worker(self.clock, Node(node_config(), 3), self.stub)
        self.worker.startService()


class QueueTests(WorkerTestCase):
    """One at a time, in order, bounded."""

    def test_one_at_a_time_in_order(self) -> None:
        commands = [WaitCommand() for _ in range(3)]
        answers = [self.worker.submit(command) for command in commands]
        for index, (command, answer) in enumerate(zip(commands, answers, strict=True)):
            self.assertEqual([i <= index for i in range(3)], [each.is_begun for each in commands])
            self.assertNoResult(answer)
            command.done.callback(f"DONE {index}")
            self.assertEqual(CommandResult(True, f"DONE {index}"), self.successResultOf(answer))

    def test_command_given_by_the_one_who_hears_of_the_last(self) -> None:
        first, second, third = WaitCommand(), WaitCommand(), WaitCommand()
        self.worker.submit(first).addCallback(lambda _: self.worker.submit(third))
        self.worker.submit(second)
        first.done.callback("DONE")
        self.assertEqual((True, False), (second.is_begun, third.is_begun))
        second.done.callback("DONE")
        self.assertTrue(third.is_begun)
        third.done.callback("DONE")

    def test_full(self) -> None:
        commands = [WaitCommand() for _ in range(QUEUE_LIMIT + 1)]
        answers = [self.worker.submit(command) for command in commands]
        refused = self.successResultOf(self.worker.submit(WaitCommand()))
        self.assertEqual((False, "UNKNOWN"), (refused.succeeded, refused.status))
        self.assertIn("16 commands are waiting", str(refused.error))
        for command in commands:
            command.done.callback("DONE")
        self.assertTrue(all(self.successResultOf(answer).succeeded for answer in answers))

    def test_side_by_side(self) -> None:
        slow = WaitCommand()
        self.worker.submit(slow)
        other = make_worker(self.clock, Node(node_config("node2"), 4), StubNode())
        other.startService()
        self.assertTrue(self.successResultOf(other.submit(StartPocCommand(INIT))).succeeded)
        slow.done.callback("DONE")

    def test_waits_for_the_start(self) -> None:
        worker = make_worker(self.clock, Node(node_config(), 3), self.stub)
        answer = worker.submit(StopNodeCommand())
        self.assertNoResult(answer)
        worker.startService()
        self.assertTrue(self.successResultOf(answer).succeeded)

    def test_cancelled_answer_leaves_the_command_alone(self) -> None:
        command = WaitCommand()
        answer = self.worker.submit(command)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        command.done.callback("DONE")
        last = self.worker.status().last
        self.assertEqual(CommandRecord("WaitCommand", CommandResult(True, "DONE"), 1000), last)

    def test_defect_in_a_command(self) -> None:
        result = self.successResultOf(self.worker.submit(BrokenCommand()))
        self.assertEqual(
            CommandResult.failed("node1: unexpected ZeroDivisionError: defect", NodeFailure.DEFECT), result
        )
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertTrue(self.successResultOf(self.worker.submit(StopNodeCommand())).succeeded)


class CancelTests(WorkerTestCase):
    """What is not wanted any more is not waited for."""

    def test_running(self) -> None:
        command = WaitCommand()
        answer = self.worker.submit(command)
        self.worker.cancel(command, "superseded")
        result = CommandResult.failed("node1: cut short: superseded", NodeFailure.NOT_EXECUTED)
        self.assertEqual(result, self.successResultOf(answer))

    def test_running_while_it_asks_the_node(self) -> None:
        self.stub.held = {"pow/init/generate"}
        command = StartPocCommand(INIT)
        answer = self.worker.submit(command)
        self.worker.cancel(command, "superseded")
        self.assertIn("cut short: superseded", str(self.successResultOf(answer).error))
        self.assertEqual(["state", "pow/init/generate", "websocket stop"], self.stub.events)

    def test_waiting(self) -> None:
        first, second, third = WaitCommand(), WaitCommand(), WaitCommand()
        answers = [self.worker.submit(command) for command in (first, second, third)]
        self.worker.cancel(second, "superseded")
        self.assertIn("not executed: superseded", str(self.successResultOf(answers[1]).error))
        first.done.callback("DONE")
        self.assertEqual((False, True), (second.is_begun, third.is_begun))
        third.done.callback("DONE")

    def test_the_one_that_is_meant_among_equal_ones(self) -> None:
        slow, commands = WaitCommand(), [StartPocCommand(INIT), StartPocCommand(INIT)]
        self.worker.submit(slow)
        answers = [self.worker.submit(command) for command in commands]
        self.worker.cancel(commands[1], "superseded")
        self.assertNoResult(answers[0])
        self.assertFalse(self.successResultOf(answers[1]).succeeded)
        slow.done.callback("DONE")
        self.assertTrue(self.successResultOf(answers[0]).succeeded)

    def test_ended(self) -> None:
        command = StopNodeCommand()
        self.assertTrue(self.successResultOf(self.worker.submit(command)).succeeded)
        self.worker.cancel(command, "superseded")
        later = WaitCommand()
        answer = self.worker.submit(later)
        self.worker.cancel(command, "superseded")
        later.done.callback("DONE")
        self.assertTrue(self.successResultOf(answer).succeeded)

    def test_reason_is_that_of_the_last_cut(self) -> None:
        first, second = WaitCommand(), WaitCommand()
        self.worker.submit(first)
        answer = self.worker.submit(second)
        self.worker.cancel(first, "superseded")
        self.successResultOf(self.worker.stopService())
        self.assertIn("cut short: the worker was stopped", str(self.successResultOf(answer).error))

    def test_inference_up_gives_way(self) -> None:
        self.stub.up_status = "in_progress"
        for command in (StartPocCommand(INIT), StopNodeCommand(), InferenceUpCommand()):
            up = self.worker.submit(InferenceUpCommand())
            self.assertNoResult(up)
            answer = self.worker.submit(command)
            error = f"node1: cut short: superseded by {type(command).__name__}"
            self.assertEqual(error, self.successResultOf(up).error)
        self.assertNoResult(answer)
        self.successResultOf(self.worker.stopService())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_inference_up_that_waits_gives_way(self) -> None:
        slow, last = WaitCommand(), StopNodeCommand()
        first = self.worker.submit(slow)
        up = self.worker.submit(InferenceUpCommand())
        answer = self.worker.submit(last)
        self.assertIn("superseded by StopNodeCommand", str(self.successResultOf(up).error))
        self.assertNoResult(first)
        slow.done.callback("DONE")
        self.assertTrue(self.successResultOf(answer).succeeded)
        self.assertIs(last, self.worker.last_begun)


class LogTests(WorkerTestCase):
    """A node that is down for a day does not fill the log."""

    def test_same_failure_again(self) -> None:
        log = log_of(self)
        for status in (503, 503, 503, 500):
            self.stub.refused["state"] = status
            self.worker.submit(StartPocCommand(INIT))
        del self.stub.refused["state"]
        self.worker.submit(StartPocCommand(INIT))
        lines = [formatEvent(event) for event in log.events if event["log_level"] > LogLevel.debug]
        self.assertEqual(
            [
                'node1: StartPocCommand failed: node1: state (503): refused: {"detail": "no"}',
                'node1: StartPocCommand failed: node1: state (500): refused: {"detail": "no"}',
                "node1: StartPocCommand done: GENERATING",
            ],
            [line for line in lines if line.startswith("node1")],
        )

    def test_the_same_failure_of_another_command(self) -> None:
        log = log_of(self)
        self.stub.refused["state"] = 503
        for command in (StartPocCommand(INIT), InitValidateCommand(INIT), InferenceUpCommand(), StartPocCommand(INIT)):
            self.worker.submit(command)
        self.assertEqual(len(log.warnings("node1: ")), 1)

    def test_what_was_planned_costs_no_line(self) -> None:
        log = log_of(self)
        self.worker.submit(StartPocCommand(INIT))
        self.stub.held = {"inference/up"}
        self.worker.submit(InferenceUpCommand())
        # It gives way, as planned.
        self.worker.submit(StartPocCommand(INIT))
        self.worker.submit(StartPocCommand(INIT))
        self.successResultOf(self.worker.stopService())
        self.worker.submit(StartPocCommand(INIT))
        self.assertEqual(log.lines(LogLevel.debug), log.lines())
        self.assertTrue(log.lines(containing="superseded by StartPocCommand"))


class StopTests(WorkerTestCase):
    """Stopping loses no result and leaves nothing."""

    def test_answers_all(self) -> None:
        commands = [WaitCommand() for _ in range(3)]
        answers = [self.worker.submit(command) for command in commands]
        self.successResultOf(self.worker.stopService())
        for answer in answers:
            result = self.successResultOf(answer)
            self.assertFalse(result.succeeded)
            self.assertIn("stopped", str(result.error))
        self.assertEqual([True, False, False], [command.is_begun for command in commands])

    def test_result_that_came_before_the_stop_is_kept(self) -> None:
        answer = self.worker.submit(StartPocCommand(INIT))
        self.successResultOf(self.worker.stopService())
        self.assertTrue(self.successResultOf(answer).succeeded)

    def test_cuts_a_call_short(self) -> None:
        for path in ("state", "stop", "pow/init/generate"):
            stub = StubNode("TRAIN")
            stub.held = {path}
            worker = make_worker(self.clock, Node(node_config(), 3), stub)
            worker.startService()
            answer = worker.submit(StartPocCommand(INIT))
            self.assertNoResult(answer)
            self.successResultOf(worker.stopService())
            self.assertIn("cut short", str(self.successResultOf(answer).error))
            self.assertEqual([], self.clock.getDelayedCalls())
            self.assertNotIn("websocket restart", stub.events)

    def test_cuts_inference_up_short(self) -> None:
        self.stub.held = {"inference/up"}
        answer = self.worker.submit(InferenceUpCommand())
        self.successResultOf(self.worker.stopService())
        self.assertIn("cut short", str(self.successResultOf(answer).error))

    def test_waits_for_the_websocket(self) -> None:
        websocket = websocket_of(self.worker)
        websocket.closing = Deferred()
        self.successResultOf(self.worker.submit(StartPocCommand(INIT)))
        stopped = self.worker.stopService()
        self.assertFalse(websocket.running)
        self.assertNoResult(stopped)
        websocket.closing.callback(None)
        self.successResultOf(stopped)

    def test_waits_for_the_websocket_that_a_command_closes(self) -> None:
        websocket = websocket_of(self.worker)
        websocket.closing = Deferred()
        answer = self.worker.submit(StopNodeCommand())
        stopped = self.worker.stopService()
        self.successResultOf(answer)
        self.assertNoResult(stopped)
        websocket.closing.callback(None)
        self.successResultOf(stopped)

    def test_commands_after_the_stop(self) -> None:
        self.successResultOf(self.worker.stopService())
        result = self.successResultOf(self.worker.submit(StopNodeCommand()))
        self.assertIn("not executed: the worker was stopped", str(result.error))

    def test_twice(self) -> None:
        websocket = websocket_of(self.worker)
        websocket.closing = Deferred()
        both = [self.worker.stopService(), self.worker.stopService()]
        for stopped in both:
            self.assertNoResult(stopped)
        websocket.closing.callback(None)
        for stopped in both:
            self.successResultOf(stopped)

    def test_never_started(self) -> None:
        worker = make_worker(self.clock, Node(node_config(), 3), self.stub)
        answer = worker.submit(StopNodeCommand())
        self.successResultOf(worker.stopService())
        self.assertFalse(self.successResultOf(answer).succeeded)

    def test_started_again(self) -> None:
        self.successResultOf(self.worker.stopService())
        self.worker.startService()
        self.assertTrue(self.successResultOf(self.worker.submit(StartPocCommand(INIT))).succeeded)

    def test_websocket_that_does_not_close_properly(self) -> None:
        websocket_of(self.worker).closing = fail(OSError("no"))
        self.successResultOf(self.worker.stopService())
        self.assertEqual(1, len(self.flushLoggedErrors(OSError)))


class StatusTests(WorkerTestCase):
    """What a worker tells of itself."""

    def test_fresh(self) -> None:
        status = self.worker.status()
        self.assertEqual(("node1", 3, True), (status.node_id, status.node_num, status.enabled))
        self.assertEqual((None, 0, None), (status.command, status.waiting, status.last))
        self.assertEqual(self.worker.websocket_client.status(), status.websocket)
        self.assertEqual("stopped", status.websocket.state)
        self.assertEqual(0, status.batches.generated)

    def test_at_work(self) -> None:
        first, second = WaitCommand(), StopNodeCommand()
        self.worker.submit(first)
        self.worker.submit(second)
        self.successResultOf(self.worker.batch_handler.handle_generated_batch(generated_batch(node_id=3)))
        status = self.worker.status()
        self.assertEqual(("WaitCommand", 1, None), (status.command, status.waiting, status.last))
        self.assertEqual(1, status.batches.generated)
        self.clock.advance(5)
        first.done.callback("DONE")
        status = self.worker.status()
        self.assertEqual((None, 0), (status.command, status.waiting))
        self.assertEqual(CommandRecord("StopNodeCommand", CommandResult(True, "STOPPED"), 1005), status.last)


class WebSocketPromisesTests(SynchronousTestCase):
    """FakeWebSocket does for a worker what WebSocketClient does."""

    def test_promises(self) -> None:
        reactor = MemoryReactorClock()
        real = WebSocketClient(
            reactor, "http://10.0.0.1:80", BatchHandler("node1", 1, NoRecorder()), node_id="node1", random=Random(1)
        )
        for websocket in (real, FakeWebSocket([])):
            self.assertFalse(websocket.running)
            self.successResultOf(websocket.stopService())
            for _ in range(2):
                websocket.restart()
                self.assertTrue(websocket.running)
            websocket.status()
            self.successResultOf(websocket.stopService())
            self.assertFalse(websocket.running)
        self.assertEqual([], reactor.getDelayedCalls())
