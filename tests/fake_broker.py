"""A broker, an outbox and a phase status that do what a test tells them, for the admin API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from dapi.broker.broker import Broker
from dapi.broker.command_round import CommandRound, CommandRounds
from dapi.broker.node_worker import CommandRecord, NodeWorker, WorkerStatus
from dapi.broker.node_worker_commands import Command, CommandResult, StopNodeCommand
from dapi.broker.nodes import Node, NodeConfig
from dapi.errors import ConfigError, UnknownBatchError, UnknownNodeError
from dapi.messages import Kind, State, Via
from dapi.orchestration.phase_status import PhaseStatus
from dapi.outbox.outbox import Outbox
from dapi.outbox.pages import BatchPage, BatchRow
from dapi.outbox.retries import Retried
from dapi.outbox.story import BatchStory
from dapi.outbox.whole import WholePage
from dapi.phases.duty import Duty
from dapi.phases.restart import RestartAdvice
from dapi.poc.batch_handler import BatchCounts
from tests.nodes import FakeWebSocket


def node_fields(node_id: str = "node1", **changes: Any) -> dict[str, Any]:
    return {
        "id": node_id,
        "host": "10.0.0.1",
        "inference_port": 5000,
        "poc_port": 8080,
        "models": {"some/model": {"args": ["--flag"]}},
    } | changes


class FakeWorker(NodeWorker):
    """Works for nobody, and says what it is told."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.websocket_client = FakeWebSocket([])
        self.command: str | None = None
        self.last: CommandRecord | None = None
        self.commanded: list[Deferred[CommandResult]] = []
        self.ends_with: CommandResult | None = None

    def submit(self, command: Command) -> Deferred[CommandResult]:
        if self.ends_with is not None:
            return succeed(self.ends_with)
        self.commanded.append(Deferred())
        return self.commanded[-1]

    def status(self) -> WorkerStatus:
        return WorkerStatus(
            node_id=self.node.id,
            node_num=self.node.num,
            enabled=self.node.enabled,
            command=self.command,
            waiting=0,
            last=self.last,
            websocket=self.websocket_client.status(),
            batches=BatchCounts(),
            deliveries=None,
            poc_url=self.node.poc_url,
        )


class FakeBroker(Broker):
    """Does at once what it is told, but for commands to nodes, which the test ends."""

    def __init__(self) -> None:
        self.by_id: dict[str, FakeWorker] = {}
        self.clock = Clock()
        self.rounds = CommandRounds(self.clock)
        self.commands: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def nodes(self) -> list[Node]:
        return [worker.node for worker in self.by_id.values()]

    def worker_by_num(self, num: int) -> FakeWorker:
        (worker,) = [worker for worker in self.by_id.values() if worker.node.num == num]
        return worker

    def add_node(self, config: NodeConfig) -> Deferred[Node]:
        if self.error is not None:
            return fail(self.error)
        if config.host == "taken":
            return fail(ConfigError(f"node {config.id}: host, poc_port: taken"))
        old = self.by_id.get(config.id)
        worker = FakeWorker(Node(config, old.node.num if old else len(self.by_id) + 1))
        self.by_id[config.id] = worker
        return succeed(worker.node)

    def remove_node(self, node_id: str) -> Deferred[None]:
        return self._change_worker(node_id, lambda worker: self.by_id.pop(node_id)).addCallback(lambda _: None)

    def enable_node(self, node_id: str) -> Deferred[Node]:
        return self._change_worker(node_id, lambda worker: _set_enabled(worker, True))

    def worker(self, node_id: str) -> FakeWorker:
        if node_id not in self.by_id:
            raise UnknownNodeError(f"no node has the id {node_id!r}")
        return self.by_id[node_id]

    def disable_node(self, node_id: str) -> Deferred[Node]:
        return self._change_worker(node_id, lambda worker: _set_enabled(worker, False))

    def _change_worker(self, node_id: str, change: Callable[[FakeWorker], object]) -> Deferred[Node]:
        if self.error is not None:
            return fail(self.error)
        if node_id not in self.by_id:
            return fail(UnknownNodeError(f"no node has the id {node_id!r}"))
        worker = self.by_id[node_id]
        change(worker)
        return succeed(worker.node)

    def command_all(
        self, duty: Duty, block_height: int = 0, block_hash: str = "", public_key: str = ""
    ) -> Deferred[CommandRound]:
        stage = (block_height, block_hash, public_key) if block_height else ()
        self.commands.append((duty, *stage))
        enabled = [worker for worker in self.by_id.values() if worker.node.enabled]
        return succeed(self.rounds.begin(duty, enabled, lambda node: StopNodeCommand()))

    def end_command(self, node_id: str, result: CommandResult) -> None:
        """End the command that was given to a node last."""
        self.by_id[node_id].commanded[-1].callback(result)


def _set_enabled(worker: FakeWorker, enabled: bool) -> None:
    worker.node = msgspec.structs.replace(worker.node, enabled=enabled)


ROW = BatchRow(
    42, "ab12", "node1", Kind.GENERATED, State.STORED, Via.HTTP, 2, 1000, 7, 1_000_000_000.25, 1_000_000_001.0
)


class FakeOutbox(Outbox):
    """Lists one page whatever it is asked, and knows which batches failed."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.page: Deferred[BatchPage] = succeed(BatchPage([ROW], 41))
        self.failed = {"failed"}
        self.stories: dict[str, BatchStory] = {}
        self.asked_whole: dict[str, Any] = {}
        self.whole: Deferred[WholePage] = succeed(WholePage(BatchPage([], None), {}))
        self.asked_retry: dict[str, Any] = {}
        self.retried: Deferred[Retried] = succeed(Retried(0, None))

    def batches(
        self,
        *,
        node_id: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Deferred[BatchPage]:
        self.asked = {"node_id": node_id, "kind": kind, "state": state, "limit": limit, "before": before}
        return self.page

    def story(self, batch_id: str) -> Deferred[BatchStory]:
        if batch_id not in self.stories:
            return fail(UnknownBatchError(f"no batch has the id {batch_id!r}"))
        return succeed(self.stories[batch_id])

    def whole_batches(
        self,
        *,
        node_id: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Deferred[WholePage]:
        self.asked_whole = {"node_id": node_id, "kind": kind, "state": state, "limit": limit, "before": before}
        return self.whole

    def retry_some(
        self, *, node_id: str | None = None, kind: Kind | None = None, before: int | None = None
    ) -> Deferred[Retried]:
        self.asked_retry = {"node_id": node_id, "kind": kind, "before": before}
        return self.retried

    def retry(self, batch_id: str) -> Deferred[None]:
        if batch_id not in self.failed:
            return fail(UnknownBatchError(f"no failed batch has the id {batch_id!r}"))
        self.failed.remove(batch_id)
        return succeed(None)


class FakePhaseStatus(PhaseStatus):
    """Tells of a chain that stands still."""

    # PhaseStatus is frozen.
    __setattr__ = object.__setattr__

    def __init__(self) -> None:
        self.advice = RestartAdvice(True, blocks_left=100)
        self.is_v1 = False
        self.asked: list[int] = []

    def latest_stages(self, limit: int) -> Deferred[list[dict[str, Any]]]:
        self.asked.append(limit)
        return succeed([{"height": 1000, "nodes": {"node1": {"generated": 3}}}])

    @property
    def runs_v1(self) -> bool:
        return self.is_v1

    def restart_advice(self) -> RestartAdvice:
        return self.advice
