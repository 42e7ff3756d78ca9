"""A WebSocket client in memory: a clock, Autobahn's server at the other end, and transports that can be held up."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect

from dapi.websocket.client import SupervisedWebSocket

ADDRESS = IPv4Address("TCP", "127.0.0.1", 8080)

# Exact in binary, so that sums of it are.
STEP_SECONDS = 0.0625

C = TypeVar("C", bound=SupervisedWebSocket[Any])
P = TypeVar("P", bound="Peer")
S = TypeVar("S", bound=Protocol)


class Peer(WebSocketServerProtocol):
    """The other end: keeps what it receives, and leaves pings and closes unanswered when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[tuple[bytes, bool]] = []
        self.pings = 0
        self.pongs: list[bytes] = []
        self.closes: list[tuple[int | None, bytes | None]] = []
        self.answers_pings = True
        self.answers_closes = True
        self.lost: Failure | None = None

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.received.append((payload, isBinary))

    def onPing(self, payload: bytes) -> None:
        self.pings += 1
        if self.answers_pings:
            super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> Any:
        self.closes.append((code, reasonRaw))
        if self.answers_closes:
            return super().onCloseFrame(code, reasonRaw)
        return None

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason
        super().connectionLost(reason)

    def close(self, code: int, reason: str) -> None:
        """Close with any code, as uvicorn does."""
        self.sendCloseFrame(code, reason.encode())


class ScriptedServer(Protocol):
    """A server that is no WebSocket: keeps the request, answers with given bytes when it has the whole of it."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.request = b""
        self.is_lost = False

    def dataReceived(self, data: bytes) -> None:
        self.request += data
        if self.answer is not None and self.request.endswith(b"\r\n\r\n"):
            assert self.transport is not None
            self.transport.write(self.answer)

    def connectionLost(self, reason: Any = None) -> None:
        self.is_lost = True


class ClientTransport(FakeTransport):
    """The client's transport: honours pausing, and an abort reaches no one but the peer's end."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol, isServer=False, peerAddress=ADDRESS, hostAddress=ADDRESS)
        self.is_paused = False
        self.is_aborted = False
        self.is_without_delay = False
        self.unread: list[bytes] = []
        self.disconnectReason: Any

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.is_without_delay = bool(enabled)

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False
        while self.unread and not self.is_paused:
            self.protocol.dataReceived(self.unread.pop(0))

    def bufferReceived(self, buf: bytes) -> None:
        if self.is_paused:
            self.unread.append(buf)
        elif not self.is_aborted:
            super().bufferReceived(buf)

    def abortConnection(self) -> None:
        self.is_aborted = True
        self.disconnectReason = ConnectionAborted()
        self.disconnecting = True


class Link(Generic[S]):
    """One TCP connection, the client's protocol at one end and any server protocol at the other."""

    def __init__(self, clock: MemoryReactorClock, client: Any, server: S) -> None:
        self.client = client
        self.server = server
        self.client_transport = ClientTransport(client)
        self.server_transport = FakeTransport(server, isServer=True, peerAddress=ADDRESS, hostAddress=ADDRESS)
        self.pump: IOPump = connect(server, self.server_transport, client, self.client_transport, clock=clock)

    def flush(self) -> None:
        self.pump.flush()

    @property
    def producer(self) -> Any:
        """What the client's transport pauses while the server does not read."""
        return self.client_transport.producer

    def drop(self, reason: Exception) -> None:
        """Break the connection off, as seen by the client."""
        self.client_transport.disconnectReason = reason
        self.server_transport.disconnecting = True
        self.flush()


class Tries(Generic[C, P]):
    """A client in memory, and the tries that it makes; ``answered`` counts those that came to an end or to a server."""

    client: C

    def __init__(self) -> None:
        self.clock = MemoryReactorClock()
        self.factory = WebSocketServerFactory(reactor=self.clock)
        self.factory.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, failByDrop=False, echoCloseCodeReason=True
        )
        self.links: list[Link[Any]] = []
        self.answered = 0

    def make_server(self) -> P:
        """The protocol that a try reaches when the test does not say which."""
        # Where the tests always say which, there is no such one.
        raise NotImplementedError

    @property
    def attempts(self) -> int:
        """How many TCP connections were asked for so far."""
        return len(self.clock.tcpClients)

    @property
    def is_trying(self) -> bool:
        """Whether a try waits for its answer."""
        return self.attempts > self.answered

    @overload
    def accept(self) -> Link[P]: ...

    @overload
    def accept(self, server: S) -> Link[S]: ...

    def accept(self, server: Any = None) -> Link[Any]:
        """Let the last try reach a server: one of its own when none is given."""
        self._answer()
        if server is None:
            server = self.make_server()
        if isinstance(server, Peer):
            server.factory = self.factory
        client = self.clock.tcpClients[-1][2].buildProtocol(ADDRESS)
        link = Link(self.clock, client, server)
        self.links.append(link)
        return link

    def refuse(self, reason: Exception | None = None) -> None:
        """Let the last try fail before TCP is connected."""
        self._answer()
        factory = self.clock.tcpClients[-1][2]
        factory.clientConnectionFailed(self.clock.connectors[-1], Failure(reason or error.ConnectionRefusedError()))
        if self.client.connection_status().until is None:
            # A name's endpoint looks for another address before it gives up.
            self.clock.advance(2 * STEP_SECONDS)

    def _answer(self) -> None:
        assert self.attempts == self.answered + 1, "there is no try to answer"
        self.answered += 1

    def open(self) -> Link[P]:
        """Start the client, and let it reach a server."""
        self.client.startService()
        return self.accept()

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps, with all data that is on its way delivered in each."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(STEP_SECONDS, end - self.clock.seconds()))
            for link in self.links[-2:]:
                link.flush()

    def until_next_attempt(self, limit_seconds: float = 60.0) -> float:
        """Let time pass until the client tries again; return how long that took."""
        before, began = self.attempts, self.clock.seconds()
        while self.attempts == before:
            assert self.clock.seconds() - began < limit_seconds, "no further try"
            self.advance(STEP_SECONDS)
        return self.clock.seconds() - began
