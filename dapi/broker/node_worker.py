"""One node's worker: it owns what talks to the node, and does what it is told, one thing at a time."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dapi.broker.node_worker_commands import Command, CommandResult, InferenceUpCommand, NodeAccess
from dapi.broker.nodes import Node
from dapi.errors import MLNodeError
from dapi.mlnode.client import MLNodeClient
from dapi.poc.batch_handler import BatchCounts, BatchHandler
from dapi.poc.websocket_client import WebSocketClient

QUEUE_LIMIT = 16

_STOPPED = "the worker was stopped"


class CommandRecord(msgspec.Struct, frozen=True):
    """A command that has ended: its name, how it ended, and when (seconds since the epoch)."""

    command: str
    result: CommandResult
    at: float


class WorkerStatus(msgspec.Struct, frozen=True):
    """What a worker does: ``command`` under way, how many are ``waiting``, the ``last`` that ended."""

    node_id: str
    node_num: int
    enabled: bool
    command: str | None
    waiting: int
    last: CommandRecord | None
    websocket: Any
    batches: BatchCounts


class _Waiting(NamedTuple):
    command: Command
    answer: Deferred[CommandResult]


class NodeWorker(Service):
    """Works for one node: owns its MLNodeClient and its WebSocketClient, and executes commands in their order.

    Promises: a command's Deferred always fires with a CommandResult, whatever becomes of node, command or worker;
    one command at a time; commands given before the service starts wait for the start, those given after its stop
    fail at once. An InferenceUpCommand takes minutes, and gives way to whatever command comes after it. Does not
    promise that a command that was cut short did not reach the node.

    ``node`` may be replaced by one whose ``poc_url`` and ``websocket_base`` are the same. ``last_begun`` is the command
    that was begun last, whoever gave it: what an earlier one achieved need not hold any more.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        node: Node,
        ml_client: MLNodeClient,
        batch_handler: BatchHandler,
        websocket_client: WebSocketClient,
    ) -> None:
        self.node = node
        self.ml_client = ml_client
        self.batch_handler = batch_handler
        self.websocket_client = websocket_client
        self.last_begun: Command | None = None
        self._reactor = reactor
        self._queue: deque[_Waiting] = deque()
        self._stopped = False
        self._is_working = False
        self._current: Command | None = None
        self._executing: Deferred[CommandResult] | None = None
        self._cut_short_by = _STOPPED
        self._working: Deferred[None] = succeed(None)
        self._last: CommandRecord | None = None

    def startService(self) -> None:
        """Begin with what waits."""
        super().startService()  # type: ignore[no-untyped-call]
        self._stopped = False
        self._work()

    def stopService(self) -> Deferred[None]:
        """Cut the running command short, answer all that wait, close the connections; fires when nothing is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopped = True
        while self._queue:
            self._queue.popleft().answer.callback(self._refused(_STOPPED))
        if self._executing is not None:
            self._executing.cancel()
        return Deferred.fromCoroutine(self._close())

    def submit(self, command: Command) -> Deferred[CommandResult]:
        """Have a command executed after those that wait; fires with its result, and never fails.

        Cancelling the Deferred does not cancel the command; ``cancel`` does.
        """
        if self._stopped:
            return succeed(self._refused(_STOPPED))
        if len(self._queue) >= QUEUE_LIMIT:
            return succeed(self._refused(f"{len(self._queue)} commands are waiting already"))
        waiting = _Waiting(command, Deferred())
        # Into the queue first: whoever hears of what gives way may give a command, too.
        self._queue.append(waiting)
        for other in [self._current, *(each.command for each in self._queue)]:
            if isinstance(other, InferenceUpCommand) and other is not command:
                self.cancel(other, f"superseded by {_name(command)}")
        self._work()
        return waiting.answer

    def cancel(self, command: Command, reason: str) -> None:
        """Have a command that was submitted not be executed, or no further: it fails with ``reason``, soon.

        Harmless when it has ended.
        """
        if command is self._current:
            self._cut_short_by = reason
            if self._executing is not None:
                self._executing.cancel()
            return
        for waiting in self._queue:
            if waiting.command is command:
                self._queue.remove(waiting)
                waiting.answer.callback(self._refused(reason))
                return

    def pause(self, seconds: float) -> Deferred[None]:
        """Let a command wait."""
        return deferLater(self._reactor, seconds)

    def status(self) -> WorkerStatus:
        """Tell what the worker, its WebSocket and its batches do."""
        return WorkerStatus(
            node_id=self.node.id,
            node_num=self.node.num,
            enabled=self.node.enabled,
            command=_name(self._current) if self._current is not None else None,
            waiting=len(self._queue),
            last=self._last,
            websocket=self.websocket_client.status(),
            batches=self.batch_handler.counts,
        )

    def _refused(self, reason: str) -> CommandResult:
        self.log.warn("{node_id}: command not executed: {reason}", node_id=self.node.id, reason=reason)
        return CommandResult.failed(f"{self.node.id}: not executed: {reason}")

    def _work(self) -> None:
        if self.running and not self._is_working and self._queue:
            self._is_working = True
            self._working = Deferred.fromCoroutine(self._work_off())

    async def _work_off(self) -> None:
        while self.running and self._queue:
            command, answer = self._queue.popleft()
            self._current = self.last_begun = command
            result = await self._result_of(command)
            self._last = CommandRecord(_name(command), result, self._reactor.seconds())
            self._current = None
            answer.callback(result)
        self._is_working = False

    async def _result_of(self, command: Command) -> CommandResult:
        """Execute a command; whatever it raises becomes a result."""
        before = self._last.result if self._last is not None and self._last.command == _name(command) else None
        # A node that is down is told the same every few seconds: one line for each new reason is enough.
        log = self.log.info if before is None or before.succeeded else self.log.debug
        log("{node_id}: {command}", node_id=self.node.id, command=_name(command))
        self._cut_short_by = _STOPPED
        access = NodeAccess(self.node, self.ml_client, self.websocket_client, self.pause)
        self._executing = Deferred.fromCoroutine(command.execute(access))
        try:
            result = await self._executing
        except MLNodeError as error:
            result = CommandResult.failed(str(error))
        except CancelledError:
            result = CommandResult.failed(f"{self.node.id}: cut short: {self._cut_short_by}")
        except Exception as error:  # noqa: BLE001 - a defect in one command must not end the worker
            self.log.failure("{node_id}: {command} broke", node_id=self.node.id, command=_name(command))
            result = CommandResult.failed(f"{self.node.id}: unexpected {type(error).__name__}: {error}")
        finally:
            self._executing = None
        if result.succeeded:
            self.log.info(
                "{node_id}: {command} done: {status}",
                node_id=self.node.id,
                command=_name(command),
                status=result.status,
            )
        else:
            log = self.log.debug if result == before else self.log.warn
            log(
                "{node_id}: {command} failed: {error}",
                node_id=self.node.id,
                command=_name(command),
                error=result.error,
            )
        return result

    async def _close(self) -> None:
        await self._working
        for close in (self.websocket_client.stopService, self.ml_client.close):
            try:
                await close()
            except Exception:  # noqa: BLE001 - the other one has to be closed all the same
                self.log.failure("{node_id}: closing failed", node_id=self.node.id)


def _name(command: Command) -> str:
    return type(command).__name__
