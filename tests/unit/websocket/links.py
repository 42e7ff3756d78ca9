"""A WebSocket client in memory: a clock, Autobahn's server at the other end, and transports that can be held up."""

from __future__ import annotations

from typing import Any

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


class Peer(WebSocketServerProtocol):
    """The other end: notes what comes, and can be told to leave pings and closes unanswered."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[tuple[bytes, bool]] = []
        self.pings = 0
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

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> Any:
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
            self.transport.write(self.answer)  # type: ignore[union-attr]

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


class Link:
    """One TCP connection, the client's protocol at one end and any server protocol at the other."""

    def __init__(self, clock: MemoryReactorClock, client: Any, server: Any) -> None:
        self.client = client
        self.server = server
        self.client_transport = ClientTransport(client)
        self.server_transport = FakeTransport(server, isServer=True, peerAddress=ADDRESS, hostAddress=ADDRESS)
        self.pump: IOPump = connect(server, self.server_transport, client, self.client_transport, clock=clock)

    def flush(self) -> None:
        self.pump.flush()

    def drop(self, reason: Exception) -> None:
        """Break the connection off, as seen by the client."""
        self.client_transport.disconnectReason = reason  # type: ignore[assignment]
        self.server_transport.disconnecting = True
        self.flush()


class Tries:
    """A client in memory, and the tries that it makes."""

    client: SupervisedWebSocket

    def __init__(self) -> None:
        self.clock = MemoryReactorClock()
        self.factory = WebSocketServerFactory(reactor=self.clock)
        self.factory.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, failByDrop=False, echoCloseCodeReason=True
        )
        self.links: list[Link] = []

    def make_server(self) -> Peer:
        """The protocol that a try reaches when the test does not say which."""
        return Peer()

    @property
    def attempts(self) -> int:
        """How many TCP connections were asked for so far."""
        return len(self.clock.tcpClients)

    def accept(self, server: Any = None) -> Link:
        """Let the last try reach a server: Autobahn's when none is given."""
        assert self.attempts == len(self.links) + 1, "there is no try to answer"
        if server is None:
            server = self.make_server()
            server.factory = self.factory
        client = self.clock.tcpClients[-1][2].buildProtocol(ADDRESS)
        link = Link(self.clock, client, server)
        self.links.append(link)
        return link

    def refuse(self, reason: Exception | None = None) -> None:
        """Let the last try fail before TCP is connected."""
        assert self.attempts == len(self.links) + 1, "there is no try to answer"
        self.links.append(None)  # type: ignore[arg-type]
        factory = self.clock.tcpClients[-1][2]
        factory.clientConnectionFailed(self.clock.connectors[-1], Failure(reason or error.ConnectionRefusedError()))
        # The endpoint looks for another address before it gives up.
        self.clock.advance(2 * STEP_SECONDS)

    def open(self) -> Link:
        """Start the client, and let it reach a server."""
        self.client.startService()
        return self.accept()

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps, with all data that is on its way delivered in each."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(STEP_SECONDS, end - self.clock.seconds()))
            for link in self.links[-2:]:
                if link is not None:
                    link.flush()

    def until_next_attempt(self, limit_seconds: float = 60.0) -> float:
        """Let time pass until the client tries again; return how long that took."""
        before, began = self.attempts, self.clock.seconds()
        while self.attempts == before:
            assert self.clock.seconds() - began < limit_seconds, "no further try"
            self.advance(STEP_SECONDS)
        return self.clock.seconds() - began
