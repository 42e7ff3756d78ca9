"""What the simulated ML node is tested with: a client of each kind, made of treq and Autobahn alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from treq.client import HTTPClient
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings

reactor: Any = global_reactor
PATIENCE_SECONDS = 10


def soon(deferred: Deferred[Any]) -> Deferred[Any]:
    """Bound the wait for what has to happen."""
    return deferred.addTimeout(PATIENCE_SECONDS, reactor)


def finished(seconds: float) -> Deferred[None]:
    """Let the node have the time in which it must not do something."""
    return deferLater(reactor, seconds)


class Callbacks(Resource):
    """Takes batches by HTTP; ``answer`` is the status, None for no answer at all."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answer: int | None = 200
        self.calls: list[tuple[str, bytes]] = []
        self.waiting: list[tuple[int, Deferred[None]]] = []

    def render_POST(self, request: Request) -> Any:
        self.calls.append((request.path.decode(), request.content.read()))
        for count, deferred in list(self.waiting):
            if len(self.calls) >= count and not deferred.called:
                deferred.callback(None)
        if self.answer is None:
            request.notifyFinish().addErrback(lambda _: None)
            return NOT_DONE_YET
        request.setResponseCode(self.answer)
        return b""

    def when_called(self, count: int) -> Deferred[Any]:
        deferred: Deferred[None] = Deferred()
        self.waiting.append((count, deferred))
        if len(self.calls) >= count:
            deferred.callback(None)
        return soon(deferred)


class Client(WebSocketClientProtocol):
    """Keeps each message; acks them when its factory says so."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[bytes, bool]] = []
        self.pongs: list[bytes] = []
        self.opened: Deferred[None] = Deferred()
        self.closed: Deferred[tuple[Any, Any]] = Deferred()
        self.waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def onOpen(self) -> None:
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.messages.append((payload, isBinary))
        if self.factory.acks and payload.startswith(b"{"):
            self.ack(len(self.messages) - 1)
        self._happened()

    def onPong(self, payload: bytes) -> None:
        self.pongs.append(payload)
        self._happened()

    def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:
        # What the node sent; Autobahn makes its own 1006 of a cut.
        self.closed.callback((self.remoteCloseCode, self.remoteCloseReason))

    def ack(self, index: int) -> None:
        self.sendMessage(json.dumps({"type": "ack", "id": self.message(index)["id"], "extra": 1}).encode())

    def message(self, index: int) -> Any:
        return json.loads(self.messages[index][0])

    def when(self, predicate: Callable[[], bool]) -> Deferred[Any]:
        deferred: Deferred[None] = Deferred()
        self.waiting.append((predicate, deferred))
        self._happened()
        return soon(deferred)

    def when_messages(self, count: int) -> Deferred[Any]:
        return self.when(lambda: len(self.messages) >= count)

    def _happened(self) -> None:
        for predicate, deferred in self.waiting:
            if predicate() and not deferred.called:
                deferred.callback(None)


class World:
    """A simulated node, the callback server that it posts to, and its clients."""

    def __init__(self, prefix: str = "") -> None:
        self.settings = quick_settings()
        self.node = SimulatedMLNode(reactor, random.Random(1), settings=self.settings, prefix=prefix)
        self.node.startService()
        self.ledger = self.node.ledger
        self.callbacks = Callbacks()
        self.listening = reactor.listenTCP(0, Site(self.callbacks, reactor=reactor), interface="127.0.0.1")
        self.callback_port = self.listening.getHost().port
        self.http = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))
        self.connectors: list[Any] = []

    def listen_again(self) -> None:
        """Open the callback port again."""
        self.listening = reactor.listenTCP(
            self.callback_port, Site(self.callbacks, reactor=reactor), interface="127.0.0.1"
        )

    async def end(self) -> None:
        await soon(self.node.stopService())
        for connector in self.connectors:
            connector.disconnect()
        await self.listening.stopListening()

    def init_body(self, **changes: Any) -> dict[str, Any]:
        return {
            "block_hash": "ABCDEF",
            "block_height": 1000,
            "public_key": "02aa",
            "batch_size": 100,
            "r_target": 1.4013564660458173,
            "fraud_threshold": 1e-7,
            "params": {"dim": 1024},
            "node_id": 1,
            "node_count": 3,
            "url": f"http://127.0.0.1:{self.callback_port}/v1/poc-batches",
        } | changes

    async def call(self, method: str, path: str, body: Any = None, content: bytes | None = None) -> tuple[int, Any]:
        """Call the node; return the status and the decoded answer."""
        data = content if content is not None else (b"" if body is None else json.dumps(body).encode())
        response = await soon(self.http.request(method, self.node.base_url + path, data=data))
        answer = await soon(response.content())
        return response.code, json.loads(answer)

    async def init(self, phase: str = "generate", **changes: Any) -> tuple[int, Any]:
        return await self.call("POST", f"/api/v1/pow/init/{phase}", self.init_body(**changes))

    def connect(self, *, acks: bool = True, **options: Any) -> Client:
        """Begin to connect a client."""
        factory = WebSocketClientFactory(self.node.websocket_url, reactor=reactor)
        # Autobahn's own time-outs would stay on the reactor after a test.
        factory.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0, **options
        )
        factory.acks = acks
        client = Client()
        client.factory = factory
        factory.buildProtocol = lambda _: client
        self.connectors.append(reactor.connectTCP("127.0.0.1", self.node.port, factory))
        return client

    async def open(self, *, acks: bool = True) -> Client:
        """Connect a client and wait until it is open at both ends."""
        count = len(self.ledger.connections)
        client = self.connect(acks=acks)
        await soon(client.opened)
        await soon(self.ledger.when(lambda: len(self.ledger.connections) > count))
        return client
