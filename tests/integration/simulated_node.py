"""A simulated ML node with what a test needs around it: a callback server, and clients made of treq and Autobahn."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, cast

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
from tests.integration.ports import free_port
from tests.integration.waiting import soon, until

reactor: Any = global_reactor


def passed(seconds: float) -> Deferred[None]:
    """Fire after the time in which the node must not do something."""
    return deferLater(reactor, seconds)


class Callbacks(Resource):
    """Accepts batches by HTTP; ``answer`` is the status, None for no answer at all."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answer: int | None = 200
        self.calls: list[tuple[str, bytes]] = []

    def render_POST(self, request: Request) -> Any:
        assert request.content is not None
        self.calls.append((request.path.decode(), request.content.read()))
        if self.answer is None:
            request.notifyFinish().addErrback(lambda _: None)
            return NOT_DONE_YET
        request.setResponseCode(self.answer)
        return b""

    async def when_called(self, count: int) -> None:
        await until(lambda: len(self.calls) >= count)


class Client(WebSocketClientProtocol):
    """Keeps each message; sends acks when its factory says so."""

    factory: ClientFactory

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[bytes, bool]] = []
        self.pongs: list[bytes] = []
        self.pings = 0
        self.answers_close = True
        self.answers_pings = True
        self.opened: Deferred[None] = Deferred()
        self.closed: Deferred[tuple[Any, Any]] = Deferred()

    def onOpen(self) -> None:
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.messages.append((payload, isBinary))
        if self.factory.acks and payload.startswith(b"{"):
            self.ack(len(self.messages) - 1)

    def onPing(self, payload: bytes) -> None:
        self.pings += 1
        if self.answers_pings:
            super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> None:
        if self.answers_close:
            super().onCloseFrame(code, reasonRaw)

    def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:
        # What the node sent: Autobahn itself makes a 1006 of a connection that was cut.
        self.closed.callback((self.remoteCloseCode, self.remoteCloseReason))

    def ack(self, index: int) -> None:
        self.sendMessage(json.dumps({"type": "ack", "id": self.message(index)["id"], "extra": 1}).encode())

    def message(self, index: int) -> Any:
        return json.loads(self.messages[index][0])

    def set_reading(self, wanted: bool) -> None:
        """Read from the connection, or leave everything in its buffers."""
        transport = cast(Any, self.transport)
        (transport.resumeProducing if wanted else transport.pauseProducing)()

    async def when_messages(self, count: int) -> None:
        await until(lambda: len(self.messages) >= count)

    async def when_pong(self, payload: bytes) -> None:
        await until(lambda: payload in self.pongs)


class ClientFactory(WebSocketClientFactory):
    """Makes one client."""

    def __init__(self, url: str, *, acks: bool, **options: Any) -> None:
        super().__init__(url, reactor=reactor)
        # Autobahn's own time-outs would stay on the reactor after a test.
        self.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0, **options
        )
        self.acks = acks
        self.client = Client()

    def buildProtocol(self, addr: object) -> Any:
        self.client.factory = self
        return self.client


class NodeTestBed:
    """A simulated node, the callback server that it posts to, and its clients."""

    def __init__(self, prefix: str = "") -> None:
        # What is slow is not to be taken for lost; whoever wants acks to be missed waits less for them.
        self.settings = quick_settings(ack_wait_seconds=2, silence_seconds=10)
        rng, port = random.Random(1), free_port()
        self.node = SimulatedMLNode(reactor, rng, settings=self.settings, prefix=prefix, port=port)
        self.node.startService()
        self.ledger = self.node.ledger
        self.callbacks = Callbacks()
        self.callback_port = free_port()
        self.listen()
        self.http = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))
        self.connectors: list[Any] = []

    def listen(self) -> None:
        """Open the callback port, the same one each time."""
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
        factory = ClientFactory(self.node.websocket_url, acks=acks, **options)
        self.connectors.append(reactor.connectTCP("127.0.0.1", self.node.port, factory))
        return factory.client

    async def open(self, *, acks: bool = True) -> Client:
        """Connect a client and wait until it is open at both ends."""
        count = len(self.ledger.connections)
        client = self.connect(acks=acks)
        await soon(client.opened)
        await self.when(lambda: len(self.ledger.connections) > count)
        return client

    async def when(self, predicate: Callable[[], bool]) -> None:
        """Wait until the predicate is true; it is looked at after each event of the ledger."""
        await soon(self.ledger.when(predicate))
