"""The broker: registers the nodes, and has them work."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import msgspec
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.broker.command_round import CommandRound, CommandRounds
from dapi.broker.configuration_file import missing_nodes
from dapi.broker.duties import MEANINGS, Intention
from dapi.broker.node_counts import NodeCounts
from dapi.broker.node_work_group import NodeWorkGroup
from dapi.broker.node_worker import NodeWorker, WorkerStatus
from dapi.broker.node_worker_commands import Command, StopNodeCommand
from dapi.broker.nodes import Node, NodeConfig, NodeStore, StoredNodes, check_apart
from dapi.errors import ConfigError, NotReadyError, StoreBusyError, UnknownNodeError
from dapi.mlnode.client import InitRequest, PowParams
from dapi.phases.duty import Duty
from dapi.timing.observers import Observers
from dapi.timing.retry import retry

_LOAD_RETRY_SECONDS = 2.0
# Making a worker takes half a millisecond.
_NODES_A_TURN = 20
_NOT_LOADED = "the nodes are not loaded from the database yet"

T = TypeVar("T")


class BrokerStatus(msgspec.Struct, frozen=True):
    """What the broker knows; ``problem`` says why the nodes, or some of them, are not loaded."""

    is_loaded: bool
    problem: str | None
    highest_num: int
    nodes: list[WorkerStatus]


class Broker(MultiService):
    """Registers, changes and removes nodes while they run, and gives all enabled ones a command.

    Starting loads the nodes from the store, in the background. Until they are loaded, everything that needs to know
    them fails with NotReadyError, so that no node is taken for unknown.

    A change is stored first, then takes effect at once; its Deferred fires after both, and waits for no node. One
    change follows the other, and one that has begun is finished even when its Deferred is cancelled. A change that
    cannot be stored has no effect.

    Every init carries ``params`` and ``callback_url(num, token_num)``, the base with this token of the node (0: without
    one), to which the node appends ``/generated`` and ``/validated``.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        store: NodeStore,
        make_worker: Callable[[Node], NodeWorker],
        *,
        params: PowParams,
        callback_url: Callable[[int, int], str],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._store = store
        self._make_worker = make_worker
        self._params = params
        self._callback_url = callback_url
        self._group = NodeWorkGroup()
        self._group.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._one_at_a_time = DeferredLock()
        self._is_loaded = False
        self._problem: str | None = None
        self._highest_num = 0
        # The latest stage that has begun since the start, None before that.
        self._stage: int | None = None
        self._node_counts = NodeCounts()
        self._removed: frozenset[str] = frozenset()
        self._on_change: Observers[[]] = Observers()
        self._loading: Deferred[None] = succeed(None)
        self.rounds = CommandRounds(reactor)
        self.why_no_command: Callable[[], str | None] = lambda: None

    def startService(self) -> None:
        """Begin to load the nodes, and start their workers."""
        super().startService()  # type: ignore[no-untyped-call]
        if not self._is_loaded:
            self._loading = Deferred.fromCoroutine(self._load())
            self._loading.addErrback(self._record_failure)

    def stopService(self) -> Deferred[None]:
        """Stop all workers, and finish the changes that have begun; fires when nothing is left."""
        self._loading.cancel()
        self.rounds.end("dapi is stopping")
        self.running = False
        return Deferred.fromCoroutine(self._stop())

    @property
    def is_loaded(self) -> bool:
        """Whether the nodes are known."""
        return self._is_loaded

    def nodes(self) -> list[Node]:
        """Return the registered nodes, by number; raises NotReadyError while they are not loaded."""
        return [worker.node for worker in self.workers()]

    def workers(self) -> list[NodeWorker]:
        """Return the workers of all registered nodes, by number; raises NotReadyError while they are not loaded."""
        self._check_loaded()
        return self._group.workers()

    @property
    def node_count(self) -> int:
        """The ``node_count`` of a stage that begins now; raises NotReadyError while the nodes are not loaded.

        It counts the numbers ever given, not the nodes of today: nonces of two nodes must not overlap.
        """
        self._check_loaded()
        return self._highest_num + 1

    def node_counts(self, height: int) -> frozenset[int]:
        """Return the node counts of the stage that began at this height, none when it is not known."""
        return self._node_counts.of(height)

    def observe_changes(self, observer: Callable[[], object]) -> None:
        """Call ``observer`` each time the nodes were loaded, or one was added, changed or removed."""
        self._on_change.add(observer)

    def refuse_commands_while(self, reason: Callable[[], str | None]) -> None:
        """Give no node a command while ``reason`` returns why."""
        self.why_no_command = reason

    def worker_by_num(self, num: int) -> NodeWorker:
        """Return the worker of a node, enabled or not; raises UnknownNodeError, or NotReadyError as ``workers``."""
        self._check_loaded()
        worker = self._group.get_by_num(num)
        if worker is None:
            raise UnknownNodeError(f"no node has the number {num}")
        return worker

    def worker(self, node_id: str) -> NodeWorker:
        """Return a node's worker; raises UnknownNodeError, or NotReadyError as ``workers``."""
        self._check_loaded()
        worker = self._group.get(node_id)
        if worker is None:
            raise UnknownNodeError(f"no node has the id {node_id!r}")
        return worker

    def status(self) -> BrokerStatus:
        """Return what the broker and its workers do."""
        return BrokerStatus(
            is_loaded=self._is_loaded,
            problem=self._problem,
            highest_num=self._highest_num,
            nodes=[worker.status() for worker in self._group.workers()],
        )

    def add_node(self, config: NodeConfig) -> Deferred[Node]:
        """Register a node, or change the one that has this id; fires with the node as it is now.

        A changed node keeps its number, and stays enabled or disabled. Its connections are replaced only when its
        addresses change; its WebSocket then waits for the next init. Fails with ConfigError when another node has the
        same address, or with StoreError.
        """
        return self._change(lambda: self._add(config))

    def remove_node(self, node_id: str) -> Deferred[None]:
        """Remove a node, whose batches are refused from now on. Fails with UnknownNodeError or StoreError."""
        return self._change(lambda: self._remove(node_id))

    def enable_node(self, node_id: str) -> Deferred[Node]:
        """Let the node work from now on. Fails with UnknownNodeError or StoreError."""
        return self._change(lambda: self._set_enabled(node_id, True))

    def disable_node(self, node_id: str) -> Deferred[Node]:
        """Stop the node, unless no command may be given, and let it rest; its batches are still stored.

        Fails with UnknownNodeError or StoreError.
        """
        return self._change(lambda: self._set_enabled(node_id, False))

    def rotate_token(self, node_id: str) -> Deferred[Node]:
        """Give the node its next callback token; fires with the node as it is now.

        The old one is right, too, and the one that the node is told, until the next stage begins. Fails with
        UnknownNodeError or StoreError.
        """
        return self._change(lambda: self._rotate_token(node_id))

    def begin_stage(self, height: int, node_count: int) -> Deferred[None]:
        """Tell the nodes their newest tokens from now on; fires when the old ones are wrong. Fails with StoreError."""
        self._stage = height
        self._node_counts.record(height, node_count)
        if not any(worker.node.keeps_old_token_until(height) for worker in self._group.workers()):
            return succeed(None)
        return self._change(lambda: self._end_old_tokens(height))

    def register_missing(self, configs: Iterable[NodeConfig]) -> Deferred[list[Node]]:
        """Register the nodes of a configuration file that the database does not know; fires with those.

        The database wins over the file: a node that differs, was removed, or has another one's address is logged, with
        what to do about it. Fails with StoreError.
        """
        return self._change(lambda: self._register_missing(list(configs)))

    def command_all(
        self, duty: Duty, block_height: int = 0, block_hash: str = "", public_key: str = ""
    ) -> Deferred[CommandRound]:
        """Give all enabled nodes the command for a duty; fires when the first ones have it.

        GENERATE and VALIDATE need the stage: ``block_hash`` is passed on as it is, ``public_key`` is hex. INFERENCE may
        take minutes. Fails with NotReadyError while the nodes are not loaded, while no command may be given, and when
        dapi stops.
        """

        async def command_all() -> CommandRound:
            self._check_working()
            if (reason := self.why_no_command()) is not None:
                raise NotReadyError(reason)
            intention = Intention(duty, block_height, block_hash, public_key, self.node_count)
            if intention.block_hash:
                await self.begin_stage(block_height, self.node_count)
            self.log.info("by hand: all nodes that are enabled are commanded to {duty}", duty=duty)
            enabled = [worker for worker in self._group.workers() if worker.node.enabled]
            return self.rounds.begin(duty, enabled, lambda node: self._command_by_hand(node, intention))

        return Deferred.fromCoroutine(command_all())

    def _command_by_hand(self, node: Node, intention: Intention) -> Command:
        # Much may happen before a node's turn comes.
        reason = self.why_no_command() if node.enabled else "it was disabled meanwhile"
        if reason is not None:
            raise NotReadyError(reason)
        return self.command_for(node, intention)

    def command_for(self, node: Node, intention: Intention) -> Command:
        """Make the command that brings a node to what is intended."""
        request = InitRequest(
            block_hash=intention.block_hash,
            block_height=intention.block_height,
            public_key=intention.public_key,
            params=self._params,
            node_num=node.num,
            node_count=intention.node_count,
            url=self._callback_url(node.num, node.told_token_num),
        )
        return MEANINGS[intention.duty].make_command(request)

    def _check_loaded(self) -> None:
        if not self._is_loaded:
            raise NotReadyError(self._problem or _NOT_LOADED)

    def _check_working(self) -> None:
        self._check_loaded()
        if not self.running:
            raise NotReadyError("dapi is stopping")

    async def _load(self) -> None:
        async def load() -> None:
            async with self._one_at_a_time:
                await self._add_workers(await self._store.load())
                self._on_change()

        await retry(
            self._reactor, load, errors=StoreBusyError, delay=lambda: _LOAD_RETRY_SECONDS, on_error=self._record_busy
        )

    def _record_busy(self, error: Exception) -> None:
        problem = f"{_NOT_LOADED}: {error}"
        if problem != self._problem:
            self.log.warn("{problem}", problem=problem)
        self._problem = problem

    def _record_failure(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._problem = f"the nodes cannot be loaded: {failure.getErrorMessage()}"
            self.log.failure("the nodes cannot be loaded", failure)

    async def _add_workers(self, stored: StoredNodes) -> None:
        problems = dict(stored.unreadable)

        def own(node: Node) -> None:
            try:
                self._group.put(self._make_worker(node))
            except ConfigError as error:
                problems[node.id] = str(error)

        await self._in_slices(own, stored.nodes)
        for node_id, problem in problems.items():
            self.log.critical(
                "{node_id}: left out: {problem}; POST it to /admin/v1/nodes again", node_id=node_id, problem=problem
            )
        self._problem = "; ".join(f"{node_id}: left out: {problem}" for node_id, problem in problems.items()) or None
        self._highest_num = stored.highest_num
        self._node_counts.record_all(stored.node_counts)
        self._removed = stored.removed
        self._is_loaded = True
        self.log.info("{count} nodes loaded, highest number {num}", count=len(stored.nodes), num=stored.highest_num)

    async def _stop(self) -> None:
        await self._loading
        async with self._one_at_a_time:
            await self._group.stopService()

    def _change(self, change: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        async def in_turn() -> T:
            async with self._one_at_a_time:
                self._check_working()
                try:
                    return await change()
                finally:
                    self._on_change()

        # The one who waits may go away, as an HTTP client does: the change is finished all the same.
        done: Deferred[T] = Deferred()
        Deferred.fromCoroutine(in_turn()).addCallbacks(done.callback, done.errback)
        return done

    async def _add(self, config: NodeConfig) -> Node:
        self._check_address(config)
        node = await self._store.save(config)
        self._own(node)
        return node

    def _check_address(self, config: NodeConfig) -> None:
        other = self._group.get_by_address(config.address)
        if other is not None:
            check_apart(config, other.node.config)

    async def _in_slices(self, own: Callable[[Node], None], nodes: Iterable[Node]) -> None:
        """Own one node after the other, and let the reactor turn in between: thousands of them take seconds."""
        for index, node in enumerate(nodes):
            if index and index % _NODES_A_TURN == 0:
                await deferLater(self._reactor, 0)
            own(node)

    def _own(self, node: Node) -> None:
        self._highest_num = max(self._highest_num, node.num)
        self._removed -= {node.id}
        worker = self._group.get(node.id)
        if worker is not None and worker.node.is_reached_like(node):
            worker.node = node
        else:
            self._group.put(self._make_worker(node))
        text = "{node_id}: registered, number {node_num}, at {poc_url}"
        self.log.info(text, node_id=node.id, node_num=node.num, poc_url=node.poc_url)

    async def _remove(self, node_id: str) -> None:
        self.worker(node_id)
        await self._store.remove(node_id)
        self._removed |= {node_id}
        self._group.remove(node_id)
        self.log.info("{node_id}: removed", node_id=node_id)

    async def _set_enabled(self, node_id: str, enabled: bool) -> Node:
        worker = self.worker(node_id)
        await self._store.set_enabled(node_id, enabled)
        worker.node = msgspec.structs.replace(worker.node, enabled=enabled)
        self.log.info("{node_id}: {what}", node_id=node_id, what="enabled" if enabled else "disabled")
        if not enabled and self.why_no_command() is None:
            worker.submit(StopNodeCommand())
        return worker.node

    async def _rotate_token(self, node_id: str) -> Node:
        worker = self.worker(node_id)
        tokens = await self._store.rotate_token(node_id, self._stage)
        worker.node = msgspec.structs.replace(worker.node, **tokens._asdict())
        self.log.info("{node_id}: has a new callback token, and is told it when the next stage begins", node_id=node_id)
        return worker.node

    async def _end_old_tokens(self, stage: int) -> None:
        await self._store.end_old_tokens(stage)
        for worker in self._group.workers():
            if worker.node.keeps_old_token_until(stage):
                worker.node = msgspec.structs.replace(worker.node, old_token_num=None)

    async def _register_missing(self, configs: list[NodeConfig]) -> list[Node]:
        missing = missing_nodes(self.log, configs, self._group.get, self._removed, self._check_address)
        if not missing:  # as usual: then no other program that holds the database is waited for
            return []
        # With one commit: thousands of them would take a minute.
        registered = await self._store.save_all(missing)
        await self._in_slices(self._own, registered)
        return registered
