"""Who knows the nodes: registers them, and has them work."""

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

from dapi.broker.duties import MEANINGS, Intention
from dapi.broker.node_work_group import NodeWorkGroup
from dapi.broker.node_worker import NodeWorker, WorkerStatus
from dapi.broker.node_worker_commands import Command, CommandResult, StopNodeCommand
from dapi.broker.nodes import Node, NodeConfig, NodeStore, StoredNodes, check_apart
from dapi.errors import ConfigError, NotReadyError, StoreBusyError, UnknownNodeError
from dapi.mlnode.client import InitRequest, PowParams
from dapi.phases.duty import Duty

_LOAD_RETRY_SECONDS = 2.0
# A token in the URL, keys among a model's arguments.
_MAY_HOLD_SECRETS = ("websocket_url", "models")
_NOT_LOADED = "the nodes are not loaded from the database yet"

T = TypeVar("T")


class PocSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every init carries: ``callback_url`` is the base that nodes append ``/generated``, ``/validated`` to."""

    callback_url: str
    params: PowParams


class BrokerStatus(msgspec.Struct, frozen=True):
    """What the broker knows; ``problem`` says why the nodes, or some of them, could not be loaded."""

    is_loaded: bool
    problem: str | None
    highest_num: int
    nodes: list[WorkerStatus]


class Broker(MultiService):
    """Registers nodes while they run, and has all enabled ones work.

    Starting loads the nodes from the store, in the background; until that is done, everything that needs to know them
    fails with NotReadyError, so that nobody takes a node for unknown.

    A change is on disk first and then effective at once, and its Deferred fires when it is both; it never waits for a
    node. Changes are done one after the other, and one that has begun is finished though its Deferred is cancelled.
    When a change cannot be stored, nothing has changed.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        store: NodeStore,
        make_worker: Callable[[Node], NodeWorker],
        poc_settings: PocSettings,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._store = store
        self._make_worker = make_worker
        self._poc_settings = poc_settings
        self._group = NodeWorkGroup()
        self._group.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._one_at_a_time = DeferredLock()
        self._is_loaded = False
        self._problem: str | None = None
        self._highest_num = 0
        self._removed: frozenset[str] = frozenset()
        self._on_change: Callable[[], object] = lambda: None
        self._loading: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Begin to load the nodes, and start their workers."""
        super().startService()  # type: ignore[no-untyped-call]
        if not self._is_loaded:
            self._loading = Deferred.fromCoroutine(self._load())
            self._loading.addErrback(self._not_loaded)

    def stopService(self) -> Deferred[None]:
        """Stop all workers, and finish the changes that have begun; fires when nothing is left."""
        self._loading.cancel()
        self.running = False
        return Deferred.fromCoroutine(self._stop())

    def nodes(self) -> list[Node]:
        """Return the registered nodes, by number; raises NotReadyError while they are not loaded."""
        self._check_loaded()
        return [worker.node for worker in self._group.workers()]

    def workers(self) -> list[NodeWorker]:
        """Return the workers of all registered nodes, by number; raises NotReadyError while they are not loaded."""
        self._check_loaded()
        return self._group.workers()

    @property
    def node_count(self) -> int:
        """What the nodes of a stage that begins now are to be told; raises NotReadyError while they are not loaded.

        Of the numbers ever given, not of the nodes: nonces of two nodes must not overlap.
        """
        self._check_loaded()
        return self._highest_num + 1

    def observe_changes(self, observer: Callable[[], object]) -> None:
        """Have ``observer`` called whenever the nodes were loaded, or one was added, changed or removed."""
        self._on_change = observer

    def worker_by_num(self, num: int) -> NodeWorker:
        """Return the worker of the node with this number, an enabled one or not.

        Raises UnknownNodeError, or NotReadyError while the nodes are not loaded.
        """
        self._check_loaded()
        worker = self._group.get_by_num(num)
        if worker is None:
            raise UnknownNodeError(f"no node has the number {num}")
        return worker

    def status(self) -> BrokerStatus:
        """Tell what the broker and its workers do."""
        return BrokerStatus(
            is_loaded=self._is_loaded,
            problem=self._problem,
            highest_num=self._highest_num,
            nodes=[worker.status() for worker in self._group.workers()],
        )

    def add_node(self, config: NodeConfig) -> Deferred[Node]:
        """Register a node, or change the one that has this id; fires with the node as it is now.

        A changed node keeps its number and whether it is enabled; its connections are made anew only where the change
        concerns them, and its WebSocket then waits for the next init. Fails with ConfigError when another node is at
        the same address, or with StoreError.
        """
        return self._change(lambda: self._add(config))

    def remove_node(self, node_id: str) -> Deferred[None]:
        """Forget a node but for its number; its batches are unknown from now on.

        Fails with UnknownNodeError or StoreError.
        """
        return self._change(lambda: self._remove(node_id))

    def enable_node(self, node_id: str) -> Deferred[Node]:
        """Have the node take part in what all are told from now on. Fails with UnknownNodeError or StoreError."""
        return self._change(lambda: self._set_enabled(node_id, True))

    def disable_node(self, node_id: str) -> Deferred[Node]:
        """Tell the node to stop, and leave it out of what all are told; what it still delivers is taken.

        Fails with UnknownNodeError or StoreError.
        """
        return self._change(lambda: self._set_enabled(node_id, False))

    def register_missing(self, configs: Iterable[NodeConfig]) -> Deferred[list[Node]]:
        """Register the nodes of a configuration file that the database does not know; fires with those.

        What the database knows wins: differences, and nodes that were removed, are logged with what to do about it;
        so is a node that cannot be registered because of another one's address. Fails with StoreError.
        """
        return self._change(lambda: self._register_missing(list(configs)))

    def start_poc(self, block_height: int, block_hash: str, public_key: str) -> Deferred[dict[str, CommandResult]]:
        """Have all enabled nodes generate; fires with their results, by node id.

        ``block_hash`` is passed on as it is, ``public_key`` is hex. This and the other three fail with NotReadyError
        while the nodes are not loaded, and when dapi stops.
        """
        return self._command_all(Duty.GENERATE, block_height, block_hash, public_key)

    def start_validation(
        self, block_height: int, block_hash: str, public_key: str
    ) -> Deferred[dict[str, CommandResult]]:
        """Have all enabled nodes validate; as ``start_poc``."""
        return self._command_all(Duty.VALIDATE, block_height, block_hash, public_key)

    def inference_up(self) -> Deferred[dict[str, CommandResult]]:
        """Have all enabled nodes serve inference; fires with their results, by node id, which may take minutes."""
        return self._command_all(Duty.INFERENCE)

    def stop_nodes(self) -> Deferred[dict[str, CommandResult]]:
        """Have all enabled nodes do nothing; fires with their results, by node id."""
        return self._command_all(Duty.STOPPED)

    def command_for(self, node: Node, intention: Intention) -> Command:
        """Make the command that brings a node to what is intended."""
        request = InitRequest(
            block_hash=intention.block_hash,
            block_height=intention.block_height,
            public_key=intention.public_key,
            params=self._poc_settings.params,
            node_id=node.num,
            node_count=intention.node_count,
            url=self._poc_settings.callback_url,
        )
        return MEANINGS[intention.duty].make_command(request)

    def _command_all(
        self, duty: Duty, block_height: int = 0, block_hash: str = "", public_key: str = ""
    ) -> Deferred[dict[str, CommandResult]]:
        async def command_all() -> dict[str, CommandResult]:
            self._check_working()
            intention = Intention(duty, block_height, block_hash, public_key, self.node_count)
            return await self._group.submit_all(lambda node: self.command_for(node, intention))

        return Deferred.fromCoroutine(command_all())

    def _check_loaded(self) -> None:
        if not self._is_loaded:
            raise NotReadyError(self._problem or _NOT_LOADED)

    def _check_working(self) -> None:
        self._check_loaded()
        if not self.running:
            raise NotReadyError("dapi is stopping")

    async def _load(self) -> None:
        while True:
            try:
                async with self._one_at_a_time:
                    self._take(await self._store.load())
                    self._on_change()
            except StoreBusyError as error:
                problem = f"{_NOT_LOADED}: {error}"
                if problem != self._problem:
                    self.log.warn("{problem}", problem=problem)
                self._problem = problem
                await deferLater(self._reactor, _LOAD_RETRY_SECONDS)
            else:
                return

    def _take(self, stored: StoredNodes) -> None:
        problems = dict(stored.unreadable)
        for node in stored.nodes:
            try:
                self._group.put(self._make_worker(node))
            except ConfigError as error:
                problems[node.id] = str(error)
        for node_id, problem in problems.items():
            self.log.critical(
                "{node_id}: left out: {problem}; POST it to /admin/v1/nodes again", node_id=node_id, problem=problem
            )
        self._problem = "; ".join(f"{node_id}: left out: {problem}" for node_id, problem in problems.items()) or None
        self._highest_num = stored.highest_num
        self._removed = stored.removed
        self._is_loaded = True
        self.log.info("{count} nodes loaded, highest number {num}", count=len(stored.nodes), num=stored.highest_num)

    def _not_loaded(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._problem = f"the nodes cannot be loaded: {failure.getErrorMessage()}"
            self.log.failure("the nodes cannot be loaded", failure)

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

        # Whoever waits may go away (an HTTP client does); the change is then finished all the same.
        done: Deferred[T] = Deferred()
        Deferred.fromCoroutine(in_turn()).addCallbacks(done.callback, done.errback)
        return done

    async def _add(self, config: NodeConfig) -> Node:
        for worker in self._group.workers():
            check_apart(config, worker.node.config)
        node = await self._store.save(config)
        self._highest_num = max(self._highest_num, node.num)
        self._removed -= {node.id}
        worker_now = self._group.get(node.id)
        if worker_now is None or not _is_reached_alike(worker_now.node, node):
            self._group.put(self._make_worker(node))
        else:
            worker_now.node = node
        self.log.info(
            "{node_id}: registered, number {node_num}, at {poc_url}",
            node_id=node.id,
            node_num=node.num,
            poc_url=node.poc_url,
        )
        return node

    async def _remove(self, node_id: str) -> None:
        self._worker(node_id)
        await self._store.remove(node_id)
        self._removed |= {node_id}
        self._group.remove(node_id)
        self.log.info("{node_id}: removed", node_id=node_id)

    async def _set_enabled(self, node_id: str, enabled: bool) -> Node:
        worker = self._worker(node_id)
        await self._store.set_enabled(node_id, enabled)
        worker.node = msgspec.structs.replace(worker.node, enabled=enabled)
        self.log.info("{node_id}: {what}", node_id=node_id, what="enabled" if enabled else "disabled")
        if not enabled:
            worker.submit(StopNodeCommand())
        return worker.node

    async def _register_missing(self, configs: list[NodeConfig]) -> list[Node]:
        registered = []
        for config in configs:
            worker = self._group.get(config.id)
            if worker is not None:
                self._tell_differences(config, worker.node.config)
            elif config.id in self._removed:
                self.log.warn(
                    "{node_id}: in the configuration file, but it was removed and stays so; to have it back, "
                    "POST it to /admin/v1/nodes",
                    node_id=config.id,
                )
            else:
                try:
                    registered.append(await self._add(config))
                except ConfigError as error:
                    self.log.warn("{node_id}: not registered: {error}", node_id=config.id, error=str(error))
        return registered

    def _tell_differences(self, said: NodeConfig, kept: NodeConfig) -> None:
        differences = [
            field
            if field in _MAY_HOLD_SECRETS
            else f"{field}: {getattr(kept, field)!r} in the database, {getattr(said, field)!r} in the file"
            for field in NodeConfig.__struct_fields__
            if getattr(kept, field) != getattr(said, field)
        ]
        if differences:
            self.log.warn(
                "{node_id}: the configuration file differs, and the database wins; to apply the file, POST the node "
                "to /admin/v1/nodes ({differences})",
                node_id=said.id,
                differences="; ".join(differences),
            )

    def _worker(self, node_id: str) -> NodeWorker:
        worker = self._group.get(node_id)
        if worker is None:
            raise UnknownNodeError(f"no node has the id {node_id!r}")
        return worker


def _is_reached_alike(one: Node, other: Node) -> bool:
    return (one.poc_url, one.websocket_base) == (other.poc_url, other.websocket_base)
