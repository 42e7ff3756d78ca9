"""A broker and a list of batches that do what a test tells them, for the admin API."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, succeed

from dapi.broker.node_worker import CommandRecord, WorkerStatus
from dapi.broker.node_worker_commands import CommandResult
from dapi.broker.nodes import Node, NodeConfig
from dapi.errors import ConfigError, UnknownBatchError, UnknownNodeError
from dapi.messages import Kind, State, Via
from dapi.poc.batch_handler import BatchCounts


def node_fields(node_id: str = "node1", **changes: Any) -> dict[str, Any]:
    return {
        "id": node_id,
        "host": "10.0.0.1",
        "inference_port": 5000,
        "poc_port": 8080,
        "models": {"some/model": {"args": ["--flag"]}},
    } | changes


class FakeWorker:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.command: str | None = None
        self.last: CommandRecord | None = None

    def status(self) -> WorkerStatus:
        return WorkerStatus(
            node_id=self.node.id,
            node_num=self.node.num,
            enabled=self.node.enabled,
            command=self.command,
            waiting=0,
            last=self.last,
            websocket={"state": "open"},
            batches=BatchCounts(),
        )


class FakeBroker:
    """Does at once what it is told, but for commands to nodes, which the test ends."""

    def __init__(self) -> None:
        self.by_id: dict[str, FakeWorker] = {}
        self.commands: list[tuple[Any, ...]] = []
        self.commanded: Deferred[dict[str, CommandResult]] = Deferred()
        self.error: Exception | None = None

    def nodes(self) -> list[Node]:
        return [worker.node for worker in self.by_id.values()]

    def worker_by_num(self, num: int) -> Any:
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
        return self._change(node_id, lambda: self.by_id.pop(node_id))

    def enable_node(self, node_id: str) -> Deferred[None]:
        return self._change(node_id, lambda: self._set_enabled(node_id, True))

    def disable_node(self, node_id: str) -> Deferred[None]:
        return self._change(node_id, lambda: self._set_enabled(node_id, False))

    def _set_enabled(self, node_id: str, enabled: bool) -> None:
        worker = self.by_id[node_id]
        worker.node = msgspec.structs.replace(worker.node, enabled=enabled)

    def _change(self, node_id: str, change: Any) -> Deferred[None]:
        if self.error is not None:
            return fail(self.error)
        if node_id not in self.by_id:
            return fail(UnknownNodeError(f"no node has the id {node_id!r}"))
        change()
        return succeed(None)

    def start_poc(self, *about: Any) -> Deferred[dict[str, CommandResult]]:
        return self._command("start_poc", *about)

    def start_validation(self, *about: Any) -> Deferred[dict[str, CommandResult]]:
        return self._command("start_validation", *about)

    def inference_up(self) -> Deferred[dict[str, CommandResult]]:
        return self._command("inference_up")

    def stop_nodes(self) -> Deferred[dict[str, CommandResult]]:
        return self._command("stop_nodes")

    def _command(self, *command: Any) -> Deferred[dict[str, CommandResult]]:
        self.commands.append(command)
        return self.commanded


class Row(msgspec.Struct):
    batch_id: str
    kind: Kind
    state: State
    node_id: str | None
    via: Via
    seen: int
    height: int
    nonces: int
    received_at: float
    last_seen_at: float
    finished_at: float | None


class ListedPage(msgspec.Struct):
    batches: list[Row]
    next: int | None


ROW = Row("ab12", Kind.GENERATED, State.STORED, "node1", Via.HTTP, 2, 1000, 7, 1_000_000_000.25, 1_000_000_001.0, None)


class FakeListing:
    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.page: Deferred[ListedPage] = succeed(ListedPage([ROW], 41))
        self.failed = {"failed"}

    def batches(self, **asked: Any) -> Deferred[ListedPage]:
        self.asked = asked
        return self.page

    def retry(self, batch_id: str) -> Deferred[None]:
        if batch_id not in self.failed:
            return fail(UnknownBatchError(f"no failed batch has the id {batch_id!r}"))
        self.failed.remove(batch_id)
        return succeed(None)


class FakeDriver:
    """Follows a chain that stands still."""

    def __init__(self) -> None:
        self.advice: dict[str, Any] = {"safe": True, "reason": None, "blocks_left": 100}
        self.asked: list[int] = []

    def epochs(self, limit: int) -> Deferred[list[dict[str, Any]]]:
        self.asked.append(limit)
        return succeed([{"height": 1000, "nodes": {"node1": {"generated": 3}}}])

    def restart_advice(self) -> dict[str, Any]:
        return self.advice
