"""One node's worker: owns what talks to the node, and executes the node's commands, one at a time.

The states of a worker::

    NEW ───start──▶ IDLE ───submit──▶ WORKING ───last command has ended───▶ IDLE
     │              │  ▲               │   ▲
    stop         stop  start        stop   start
     │              ▼  │               ▼   │
     └───────────▶ STOPPED ◀───────── STOPPING
                       command has ended

Commands that are submitted in NEW wait for the start; those submitted in STOPPING or STOPPED are refused. Any other
event changes no state.
"""

from __future__ import annotations

import enum
from functools import partial
from typing import Any

import attrs
import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dapi.broker.node_worker_commands import (
    Command,
    CommandResult,
    InferenceUpCommand,
    NodeAccess,
    NodeFailure,
    StopNodeCommand,
)
from dapi.broker.nodes import Node
from dapi.broker.rehearsal import RehearseCommand
from dapi.errors import MLNodeError
from dapi.messages.urls import without_user
from dapi.mlnode.client import MLNodeClient
from dapi.poc.batch_handler import BatchCounts, BatchHandler
from dapi.poc.deliveries import DeliveryStatus
from dapi.poc.websocket_client import WebSocketClient, WebSocketStatus
from dapi.timing.clock import unix_seconds

QUEUE_LIMIT = 16

_STOPPED = "the worker was stopped"


class WorkerState(enum.Enum):
    """The states that are drawn above."""

    NEW, IDLE, WORKING, STOPPING, STOPPED = range(5)


class CommandRecord(msgspec.Struct, frozen=True):
    """A command that has ended: its name, how it ended, and when (unix seconds)."""

    command: str
    result: CommandResult
    at: float


class WorkerStatus(msgspec.Struct, frozen=True):
    """What a worker does: the ``command`` under way, how many are ``waiting``, and the ``last`` that ended.

    ``version`` is the network's prefix of the node's paths, ``version_problem`` why it has none where others have it.
    ``other_num`` is the number that its last batch said, if it is another node's.
    """

    node_id: str
    node_num: int
    enabled: bool
    command: str | None
    waiting: int
    last: CommandRecord | None
    websocket: WebSocketStatus
    batches: BatchCounts
    deliveries: DeliveryStatus | None
    poc_url: str
    version: str = ""
    version_problem: str | None = None
    other_num: int | None = None


@attrs.define(eq=False)
class _Order:
    """A command that was submitted: who waits for its result, and what is cancelled to cut it short."""

    command: Command
    waiter: Deferred[CommandResult]
    executing: Deferred[Any] = attrs.field(factory=lambda: succeed(None))
    cut_short_by: str = _STOPPED


class NodeWorker(Service):
    """Works for one node: owns its MLNodeClient and its WebSocketClient, and executes its commands in their order.

    Promises: a command's Deferred always fires with a CommandResult, whatever becomes of node, command or worker;
    one command at a time; commands submitted before the service starts wait for the start, those submitted after its
    stop fail at once. An InferenceUpCommand takes minutes, and gives way to any command that comes after it; so does a
    RehearseCommand, but not to an InferenceUpCommand. A command that was cut short may have reached the node.

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
        self.state = WorkerState.NEW
        self._reactor = reactor
        # Few of thousands of nodes have any, and an empty deque takes ten times what an empty list takes.
        self._queue: list[_Order] = []
        self._current: _Order | None = None
        self._working: Deferred[None] = succeed(None)
        self._last: CommandRecord | None = None
        # Why the last command failed that was told of in the log, until one succeeds.
        self._told: str | None = None
        # Taking a URL apart is dear, and the status is asked for every few seconds.
        self._shown_url = without_user(node.poc_url)

    def startService(self) -> None:
        """Begin with the commands that wait."""
        super().startService()  # type: ignore[no-untyped-call]
        if self.state is WorkerState.STOPPING:
            self.state = WorkerState.WORKING
        elif self.state in (WorkerState.NEW, WorkerState.STOPPED):
            self.state = WorkerState.IDLE
            self._work()

    def stopService(self) -> Deferred[None]:
        """Cut the current command short, refuse all that wait, close the connections; fires when nothing is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self.state is WorkerState.WORKING:
            self.state = WorkerState.STOPPING
            if self._current is not None:
                self._current.executing.cancel()
        elif self.state in (WorkerState.NEW, WorkerState.IDLE):
            self.state = WorkerState.STOPPED
        while self._queue:
            self._queue.pop(0).waiter.callback(self._refuse(_STOPPED))
        return Deferred.fromCoroutine(self._close())

    def submit(self, command: Command) -> Deferred[CommandResult]:
        """Have a command executed after those that wait; fires with its result, and never fails.

        Cancelling the Deferred does not cancel the command; ``cancel`` does.
        """
        if self.state in (WorkerState.STOPPING, WorkerState.STOPPED):
            return succeed(self._refuse(_STOPPED))
        if len(self._queue) >= QUEUE_LIMIT:
            reason = f"{len(self._queue)} commands are waiting already"
            self.log.warn("{node_id}: command not executed: {reason}", node_id=self.node.id, reason=reason)
            return succeed(self._refuse(reason))
        order = _Order(command, Deferred())
        # Into the queue first: an observer of what gives way may submit a command, too.
        self._queue.append(order)
        for other in [self._current, *self._queue]:
            if other not in (None, order) and _gives_way(other.command, command):
                self.cancel(other.command, f"superseded by {_name(command)}")
        self._work()
        return order.waiter

    def cancel(self, command: Command, reason: str) -> None:
        """Have a submitted command not executed, or no further: it soon fails with ``reason``.

        Does nothing when the command has ended.
        """
        current = self._current
        if current is not None and current.command is command:
            current.cut_short_by = reason
            current.executing.cancel()
            return
        for order in self._queue:
            if order.command is command:
                self._queue.remove(order)
                order.waiter.callback(self._refuse(reason))
                return

    @property
    def has_failed(self) -> bool:
        """Whether the last command failed, and no other one is under way."""
        return self._last is not None and not self._last.result.succeeded and self._current is None

    def status(self) -> WorkerStatus:
        """Return what the worker, its WebSocket and its batches do."""
        return WorkerStatus(
            node_id=self.node.id,
            node_num=self.node.num,
            enabled=self.node.enabled,
            command=_name(self._current.command) if self._current is not None else None,
            waiting=len(self._queue),
            last=self._last,
            websocket=self.websocket_client.status(),
            batches=self.batch_handler.counts,
            deliveries=self.batch_handler.deliveries(),
            poc_url=self._shown_url,
            version=self.ml_client.version,
            version_problem=self.ml_client.version_problem,
            other_num=self.batch_handler.other_num,
        )

    def _refuse(self, reason: str) -> CommandResult:
        self.log.debug("{node_id}: not executed: {reason}", node_id=self.node.id, reason=reason)
        return CommandResult.failed(f"{self.node.id}: not executed: {reason}", NodeFailure.NOT_EXECUTED)

    def _work(self) -> None:
        if self.state is WorkerState.IDLE and self._queue:
            self.state = WorkerState.WORKING
            self._working = Deferred.fromCoroutine(self._execute_all())

    async def _execute_all(self) -> None:
        while self.state is WorkerState.WORKING and self._queue:
            order = self._current = self._queue.pop(0)
            self.last_begun = order.command
            result = await self._execute(order)
            self._last = CommandRecord(_name(order.command), result, unix_seconds(self._reactor))
            self._current = None
            order.waiter.callback(result)
        self.state = WorkerState.IDLE if self.state is WorkerState.WORKING else WorkerState.STOPPED

    async def _execute(self, order: _Order) -> CommandResult:
        """Execute a command; whatever it raises becomes a result."""
        name = _name(order.command)
        self.log.debug("{node_id}: {command}", node_id=self.node.id, command=name)
        access = NodeAccess(self.node, self.ml_client, self.websocket_client, partial(deferLater, self._reactor))
        order.executing = Deferred.fromCoroutine(order.command.execute(access))
        is_planned = False
        try:
            result: CommandResult = await order.executing
        except MLNodeError as error:
            result = CommandResult.failed(str(error), NodeFailure.of(error))
        except CancelledError:
            is_planned = True
            result = CommandResult.failed(f"{self.node.id}: cut short: {order.cut_short_by}", NodeFailure.NOT_EXECUTED)
        except Exception as error:  # noqa: BLE001 - a defect in one command must not end the worker
            self.log.failure("{node_id}: {command} broke", node_id=self.node.id, command=name)
            problem = f"{self.node.id}: unexpected {type(error).__name__}: {error}"
            result = CommandResult.failed(problem, NodeFailure.DEFECT)
        if result.succeeded:
            if isinstance(order.command, InferenceUpCommand | StopNodeCommand):
                self.batch_handler.end_stage()
            text = "{node_id}: {command} done: {status}"
            # After a failure that was told, its end is told, too.
            log, self._told = self.log.info if self._told is not None else self.log.debug, None
            log(text, node_id=self.node.id, command=name, status=result.status)
        else:
            # A node that is down is given commands every few seconds: one line for each new reason is enough.
            log = self.log.debug if is_planned or result.error == self._told else self.log.warn
            self._told = self._told if is_planned else result.error
            log("{node_id}: {command} failed: {error}", node_id=self.node.id, command=name, error=result.error)
        return result

    async def _close(self) -> None:
        await self._working
        self.batch_handler.end_stage()
        for close in (self.websocket_client.stopService, self.ml_client.close):
            try:
                await close()
            except Exception:  # noqa: BLE001 - the other one has to be closed all the same
                self.log.failure("{node_id}: closing failed", node_id=self.node.id)


def _gives_way(command: Command, later: Command) -> bool:
    if isinstance(command, RehearseCommand):
        # What brings the node back to inference comes after it.
        return not isinstance(later, InferenceUpCommand)
    return isinstance(command, InferenceUpCommand)


def _name(command: Command) -> str:
    return type(command).__name__
