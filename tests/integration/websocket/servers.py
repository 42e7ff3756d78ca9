"""Small servers on real sockets, each good for one kind of trouble, and the client that is tested with them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from random import Random
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOfferAccept
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Factory, Protocol

from dapi.messages import ProofBatch, Receipt, ValidatedBatch
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.large_batches import LargeBatches
from dapi.poc.websocket_client import WebSocketClient
from dapi.poc.websocket_settings import WebSocketSettings

reactor: Any = global_reactor
# A tenth of the promised delays; an answer may take its time on a busy machine.
QUICK = {"retry_min_seconds": 0.3, "retry_max_seconds": 0.5, "settle_seconds": 0.1, "close_timeout_seconds": 10}


class Server:
    """Listens on a free port of 127.0.0.1; records when connections come and go."""

    def __init__(self, factory: Any, tls: Any = None) -> None:
        self.made_at: list[float] = []
        self.lost_at: list[float] = []
        self.connections: list[Any] = []
        factory.server = self
        factory.noisy = False
        if tls is None:
            self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            self._port = reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        self.port: int = self._port.getHost().port

    def shrink_receive_buffer(self) -> None:
        """Have the kernel take little from a client before somebody reads it."""
        self._port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def close(self) -> Deferred[Any]:
        """Stop listening and cut every connection."""
        for connection in list(self.connections):
            connection.transport.abortConnection()
        done: Deferred[Any] = self._port.stopListening()
        return done


class _RawProtocol(Protocol):
    def __init__(self, server: RawServer) -> None:
        self.server = server
        self.received = b""

    def connectionMade(self) -> None:
        self.server.made_at.append(reactor.seconds())
        self.server.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.server.answer is not None and b"\r\n\r\n" in self.received:
            assert self.transport is not None
            self.transport.write(self.server.answer)

    def connectionLost(self, reason: Any = None) -> None:
        self.server.lost_at.append(reactor.seconds())
        self.server.connections.remove(self)


class _RawFactory(Factory):
    server: RawServer

    def buildProtocol(self, addr: object) -> _RawProtocol:
        return _RawProtocol(self.server)


class RawServer(Server):
    """Answers each request with the same bytes, or not at all."""

    def __init__(self, answer: bytes | None, tls: Any = None) -> None:
        self.answer = answer
        super().__init__(_RawFactory(), tls)


class NodeProtocol(WebSocketServerProtocol):
    """A node's end of a WebSocket; ``on_open`` of its server says what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[bytes] = []
        self.closes: list[int | None] = []
        self.is_deaf = False
        self.pings = 0

    def connectionMade(self) -> None:
        self.factory.server.made_at.append(reactor.seconds())
        self.factory.server.connections.append(self)
        super().connectionMade()

    def onOpen(self) -> None:
        self.factory.server.opened += 1
        self.factory.server.on_open(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.received.append(payload)

    def onPing(self, payload: bytes) -> None:
        self.pings += 1
        super().onPing(payload)

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> Any:
        self.closes.append(code)
        self.factory.server.closes.append(code)
        return super().onCloseFrame(code, reasonRaw)

    def dataReceived(self, data: bytes) -> None:
        if not self.is_deaf:
            super().dataReceived(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.server.lost_at.append(reactor.seconds())
        self.factory.server.connections.remove(self)
        super().connectionLost(reason)


class NodeServer(Server):
    """Accepts each upgrade."""

    def __init__(self, on_open: Callable[[Any], object] = id, *, tls: Any = None, compression: bool = False) -> None:
        self.on_open = on_open
        self.opened = 0
        self.closes: list[int | None] = []
        factory = WebSocketServerFactory()
        factory.protocol = NodeProtocol
        # Autobahn's own timers would outlive a test.
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0, failByDrop=False)
        if compression:
            factory.setProtocolOptions(
                perMessageCompressionAccept=lambda offers: PerMessageDeflateOfferAccept(offers[0])
            )
        super().__init__(factory, tls)


def flood_with_pings(node: Any) -> None:
    """Send pings and read nothing."""
    node.transport.pauseProducing()
    for _ in range(60_000):
        node.sendPing(b"x" * 125)


class MemoryRecorder:
    """A Recorder that answers at once, or in ``store_all`` when it is slow."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.pending: list[Deferred[Receipt]] = []
        self.is_slow = False

    def submit_poc_batch(self, batch: ProofBatch, *, batch_id: str, **_details: Any) -> Deferred[Receipt]:
        return self._keep(batch, batch_id)

    def submit_poc_validation(self, batch: ValidatedBatch, *, batch_id: str, **_details: Any) -> Deferred[Receipt]:
        return self._keep(batch, batch_id)

    def _keep(self, batch: ProofBatch | ValidatedBatch, batch_id: str) -> Deferred[Receipt]:
        stored: Deferred[Receipt] = Deferred()
        stored.addCallback(lambda _result: Receipt(batch_id, 1))
        self.taken.append(batch.block_hash)
        self.pending.append(stored)
        if not self.is_slow:
            self.store_all()
        return stored

    def store_all(self) -> None:
        pending, self.pending = self.pending, []
        for stored in pending:
            stored.callback(Receipt("", 1))


class Running:
    """What one test has running; ``stop`` ends all of it."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self.clients: list[WebSocketClient] = []
        self.recorder = MemoryRecorder()
        self.handler = BatchHandler("node-a", 1, self.recorder)
        self.large_batches = LargeBatches(reactor)
        self.large_batches.startService()

    def serve(self, server: Any) -> Any:
        """Have a server closed with the rest."""
        self.servers.append(server)
        return server

    def connect(self, url: str, **settings: Any) -> WebSocketClient:
        """Start a client, quick to try again unless told otherwise."""
        client = WebSocketClient(
            reactor,
            url,
            self.handler,
            node_id="node-a",
            random=Random(1),
            settings=WebSocketSettings(**(QUICK | settings)),
            large_batches=self.large_batches,
        )
        self.clients.append(client)
        client.startService()
        return client

    def stop(self) -> Deferred[Any]:
        """Stop the clients, then the servers."""
        stopped: Deferred[Any] = DeferredList([client.stopService() for client in self.clients], fireOnOneErrback=True)
        stopped.addCallback(lambda _: DeferredList([server.close() for server in self.servers]))
        return stopped.addCallback(lambda _: self.large_batches.stopService())
