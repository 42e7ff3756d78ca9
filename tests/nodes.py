"""Nodes to test with: their configuration, a stub of one's HTTP API, and what a worker is made of."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError  # noqa: A004 - what the reactor fails with
from twisted.internet.task import Clock
from twisted.web.iweb import IAgent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Node, NodeConfig, decode_node_config
from dapi.database import Database
from dapi.database.file import open_prepared, open_to_read
from dapi.messages import ProofBatch, Receipt, ValidatedBatch, Via
from dapi.mlnode.client import MAIN_NETWORK_PARAMS, InitRequest, MLNodeClient
from dapi.poc.batch_handler import BatchHandler, Recorder
from dapi.poc.message_intake import MessageCounts
from dapi.poc.websocket_client import WebSocketClient, WebSocketStatus
from dapi.websocket.client import ConnectionStatus, WebSocketState

T = TypeVar("T")

INIT = InitRequest(
    block_hash="ABCdef",
    block_height=1000,
    public_key="02aa",
    params=MAIN_NETWORK_PARAMS,
    node_num=1,
    node_count=2,
    url="http://10.0.0.1:9100/v1/poc-batches",
)


def node_fields(node_id: str = "node1", **changes: Any) -> dict[str, Any]:
    """A node as node-config.json describes it, with these changes; a host of its own for each id."""
    return {
        "id": node_id,
        "host": f"{node_id}.example",
        "inference_port": 5000,
        "poc_port": 8080,
        "max_concurrent": 500,
        "models": {"Qwen/Qwen2.5-7B-Instruct": {"args": ["--quantization", "fp8"]}, "other/model": {}},
    } | changes


def node_config(node_id: str = "node1", **changes: Any) -> NodeConfig:
    """The same, decoded."""
    return decode_node_config(node_fields(node_id, **changes))


class StubNode(Resource):
    """A node's HTTP API and WebSocket, as far as a worker sees them; ``events`` is what happened to it, in order.

    A call whose path is in ``refused`` is answered with that status, one in ``held`` only after ``release``; one in
    ``unreachable`` finds nobody at its port.
    ``pow_status`` is what its proof of work says, ``up_status`` what became of inference (None: a node that brings it
    up while the caller waits, and knows no other form).
    """

    isLeaf = True

    def __init__(self, state: str = "STOPPED") -> None:
        super().__init__()
        self.state = state
        self.pow_status = "NOT_LOADED"
        self.is_model_initialized = True
        self.up_status: str | None = None
        self.events: list[str] = []
        self.bodies: list[Any] = []
        self.refused: dict[str, int] = {}
        self.held: set[str] = set()
        self.unreachable: set[str] = set()
        self.agent = StubAgent(self)
        self._waiting: list[tuple[Request, str]] = []

    def render(self, request: Request) -> Any:
        path = request.path.decode().removeprefix("/api/v1/").removeprefix("/")
        assert request.content is not None
        body = request.content.read()
        self.events.append(path)
        self.bodies.append(json.loads(body) if body else None)
        if path in self.held:
            self._waiting.append((request, path))
            return NOT_DONE_YET
        return self._answer(request, path)

    def release(self) -> None:
        """Answer all held calls."""
        self.held.clear()
        waiting, self._waiting = self._waiting, []
        for request, path in waiting:
            request.write(self._answer(request, path))
            request.finish()
        self.agent.flush()

    def _refusal(self, path: str) -> int | None:
        serves = self.state == "INFERENCE"
        if path in ("inference/up/async", "inference/up/status") and self.up_status is None:
            return 404
        if path == "health":
            return None if serves and self.up_status != "in_progress" else 503
        if path in ("inference/up", "inference/up/async") and serves:
            return 409
        return 409 if path == "pow/status" and self.state != "POW" else None

    def _answer(self, request: Request, path: str) -> bytes:
        status = self.refused.get(path, self._refusal(path))
        if status is not None:
            request.setResponseCode(status)
            return b'{"detail": "no"}'
        answer: dict[str, Any] = {"status": "OK"}
        match path:
            case "state":
                answer = {"state": self.state}
            case "stop":
                self.state = "STOPPED"
            case "pow/init/generate" | "pow/init/validate":
                self.state = "POW"
                self.pow_status = "GENERATING" if path.endswith("generate") else "VALIDATING"
                answer["pow_status"] = {"status": self.pow_status, "is_model_initialized": False}
            case "pow/status":
                answer = {"status": self.pow_status, "is_model_initialized": self.is_model_initialized}
            case "inference/up" | "inference/up/async":
                self.state = "INFERENCE"
            case "inference/up/status":
                answer = {"status": self.up_status, "error": "no memory" if self.up_status == "failed" else None}
        return json.dumps(answer).encode()


@implementer(IAgent)
class StubAgent:
    """Brings requests to a StubNode, or not."""

    def __init__(self, node: StubNode) -> None:
        self._node = node
        self._agent = RequestTraversalAgent(node)
        self.flush = self._agent.flush

    def request(self, method: bytes, uri: bytes, headers: Any = None, body: Any = None) -> Deferred[Any]:
        if uri.decode().rpartition("/")[2] in self._node.unreachable:
            return fail(ConnectionRefusedError())
        return self._agent.request(method, uri, headers, body)  # type: ignore[no-any-return]


class FakeWebSocket(WebSocketClient):
    """Opens nothing; test_node_worker holds it and a real WebSocketClient to the same promises."""

    is_waiting = False

    def __init__(self, events: list[str]) -> None:
        self.running = False
        self.closing: Deferred[None] | None = None
        self._events = events

    def restart(self) -> None:
        self._events.append("websocket restart")
        self.running = True

    def connect_now(self) -> bool:
        return self.is_waiting

    def stopService(self) -> Deferred[None]:
        self._events.append("websocket stop")
        self.running = False
        if self.closing is None:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self.closing.addCallbacks(stopped.callback, stopped.errback)
        return stopped

    def status(self) -> WebSocketStatus:
        state = WebSocketState.OPEN if self.running else WebSocketState.STOPPED
        connection = ConnectionStatus(state=state, reason=None, since=0.0, until=None, connections=0)
        counts = MessageCounts()
        return WebSocketStatus(
            **msgspec.structs.asdict(connection), **msgspec.structs.asdict(counts), pending=0, paused=False
        )


class NoRecorder(Recorder):
    """Keeps nothing, and says so never."""

    def submit_poc_batch(
        self, batch: ProofBatch, *, batch_id: str, node_id: str, via: Via, **_details: Any
    ) -> Deferred[Receipt]:
        return succeed(Receipt(batch_id, 1))

    def submit_poc_validation(
        self, batch: ValidatedBatch, *, batch_id: str, node_id: str | None, via: Via
    ) -> Deferred[Receipt]:
        return succeed(Receipt(batch_id, 1))


def make_worker(clock: Clock, node: Node, stub: StubNode) -> NodeWorker:
    """A worker of a stubbed node."""
    return NodeWorker(
        clock,
        node,
        MLNodeClient(clock, node.poc_url, node_id=node.id, agent=stub.agent),
        BatchHandler(node.id, node.num, NoRecorder()),
        FakeWebSocket(stub.events),
    )


def websocket_of(worker: NodeWorker) -> FakeWebSocket:
    """The WebSocket that make_worker gave a worker."""
    assert isinstance(worker.websocket_client, FakeWebSocket)
    return worker.websocket_client


class SynchronousDatabase(Database):
    """Needs no threads: all is done before the Deferred is returned.

    With ``failure``, everything fails with it; with ``refusal``, all that is new. With ``gate``, writes are answered
    when that fires.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()
        self._connection = open_prepared(self._path)
        self.failure: Exception | None = None
        self.refusal: Exception | None = None
        self.gate: Deferred[None] | None = None

    def write(self, function: Callable[[sqlite3.Connection], T], *, intake: bool = False) -> Deferred[T]:
        if intake and self.refusal is not None:
            return fail(self.refusal)
        done = self._run(function, self._connection)
        gate = self.gate
        return done if gate is None else done.addCallback(lambda result: _after(gate, result))

    def read(self, function: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        with contextlib.closing(open_to_read(self._path)) as connection:
            return self._run(function, connection)

    def close(self) -> None:
        self._connection.close()

    def _run(self, function: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> Deferred[T]:
        if self.failure is not None:
            return fail(self.failure)
        try:
            return succeed(function(connection))
        except Exception:  # noqa: BLE001 - whoever has the Deferred gets it
            return fail()


def _after(gate: Deferred[None], result: T) -> Deferred[T]:
    waiting: Deferred[T] = Deferred()
    gate.addCallback(lambda _: waiting.callback(result))
    return waiting
