"""The WebSocket of a simulated ML node, ``/api/v1/pow/ws``: what the node does with each connection.

::

    NEW ──▶ SERVED ──▶ LEFT ──▶ CLOSED
     │         └───────────────────▲
     ├──▶ REFUSED ─────────────────┤
     └─────────────────────────────┘

``SERVED``: the flag of the PoW is set, and messages are sent. After the end of that PoW the connection stays served,
and no message comes. ``LEFT``: the client sent something that is no ack, or a frame could not be sent in time; the
connection stays open and is pinged, and the node neither reads its messages nor sends any. ``REFUSED``: the node has
sent its close (1008).

Facts: docs/protocol/node.md, 'WebSocket' and 'One connection after the other'.
"""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from dapi.simulator.ml_node.ledger import Connection, Ledger
from dapi.simulator.ml_node.pow_service import PowService
from dapi.simulator.ml_node.settings import MLNodeSettings
from dapi.timing.steps import step
from dapi.timing.timer import Timer

POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012


class ConnectionState(enum.Enum):
    """What the node does with a connection."""

    NEW = "new"
    SERVED = "served"
    LEFT = "left"
    REFUSED = "refused"
    CLOSED = "closed"


MOVES = {
    ConnectionState.NEW: {ConnectionState.SERVED, ConnectionState.REFUSED, ConnectionState.CLOSED},
    ConnectionState.SERVED: {ConnectionState.LEFT, ConnectionState.CLOSED},
    ConnectionState.LEFT: {ConnectionState.CLOSED},
    ConnectionState.REFUSED: {ConnectionState.CLOSED},
    ConnectionState.CLOSED: set[ConnectionState](),
}


@implementer(IPushProducer)
class _SendBuffer:
    """Knows whether the buffer of a connection is full: Twisted pauses and resumes it like a producer."""

    def __init__(self, on_change: Callable[[], object]) -> None:
        self.is_full = False
        self._on_change = on_change

    def pauseProducing(self) -> None:
        """Record that the buffer is full."""
        self.is_full = True
        self._on_change()

    def resumeProducing(self) -> None:
        """Record that the buffer is empty."""
        self.is_full = False
        self._on_change()

    def stopProducing(self) -> None:
        """Do nothing: ``onClose`` handles the end of the connection."""


class NodeWebSocketProtocol(WebSocketServerProtocol):
    """One connection."""

    factory: NodeWebSocketFactory

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__()
        self.number = 0
        self.state_of_use = ConnectionState.NEW
        self.when_gone: Deferred[None] = Deferred()
        self._buffer = _SendBuffer(self._buffer_changed)
        self._send_timer = Timer(clock, 0, self._leave)
        self._record: Connection | None = None
        self._drop_timer = Timer(clock, 0, lambda: self.dropConnection(abort=True))
        self._ping_timer = Timer(clock, 0, self._ping)
        self._silence_timer = Timer(clock, 0, self._close_silent)

    @property
    def is_writable(self) -> bool:
        """Tell whether a message would be sent now."""
        is_open = self.state == self.STATE_OPEN and self.state_of_use is ConnectionState.SERVED
        return is_open and not self._buffer.is_full

    def offer(self, payload: bytes) -> None:
        """Send one message, as a text or binary frame (see the settings)."""
        self.sendMessage(payload, isBinary=self.factory.settings.binary_frames)

    def close_with(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        # sendClose lets only 1000 and the application's own codes through.
        self.sendCloseFrame(code=code, reasonUtf8=reason.encode())

    def move_to(self, state: ConnectionState) -> None:
        """Go into another state, as drawn; raise RuntimeError where no such move is drawn."""
        self.state_of_use = step(MOVES, self.state_of_use, state, "a simulated node's connection")

    def onOpen(self) -> None:
        """Serve the client, or refuse it."""
        settings, run = self.factory.settings, self.factory.pow.run
        self.number, self._record = self.factory.record_connection()
        self.factory.open_connections.append(self)
        refusal = self._refusal()
        if refusal or run is None:
            self.move_to(ConnectionState.REFUSED)
            self._record.refused = refusal
            self.close_with(POLICY_VIOLATION, refusal)
        else:
            self.move_to(ConnectionState.SERVED)
            transport: Any = self.transport
            # Until the upgrade, the HTTP channel was the transport's producer.
            transport.unregisterProducer()
            transport.registerProducer(self._buffer, True)
            self._ping_timer.start(settings.ping_seconds)
            if settings.drop_every_seconds is not None:
                self._drop_timer.start(settings.drop_every_seconds)
            run.attach(self)
        self.factory.ledger.record_event()

    def _refusal(self) -> str:
        run = self.factory.pow.run
        if run is None:
            return "PoW is not running"
        if not self.factory.settings.websocket_ready:
            return "WebSocket infrastructure not initialized"
        if run.client_connected:
            return "Another client is already connected"
        return ""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        """Handle an ack; a message that is no JSON object in a text frame ends the use of the connection."""
        if self.state_of_use is not ConnectionState.SERVED or self._record is None:
            return
        try:
            message = None if isBinary else json.loads(payload)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            self._leave()
        elif message.get("type") == "ack":
            self._record.acks += 1
            self.factory.pow.acknowledge(str(message.get("id")), self.number)

    def onPing(self, payload: bytes) -> None:
        """Count the ping, and answer it."""
        if self._record is not None:
            self._record.pings += 1
            self.factory.ledger.record_event()
        super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        """Ping the client again later."""
        self._silence_timer.cancel()
        self._ping_timer.start(self.factory.settings.ping_seconds)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N803
        """Reset the flag of the PoW, whichever PoW runs now, if the connection was still served."""
        for timer in (self._drop_timer, self._ping_timer, self._silence_timer, self._send_timer):
            timer.cancel()
        was_served = self.state_of_use is ConnectionState.SERVED
        self.move_to(ConnectionState.CLOSED)
        if self._record is None:
            return
        self.factory.open_connections.remove(self)
        self._record.closed_at = self.factory.clock.seconds()
        self._record.close_code, self._record.close_reason = self.remoteCloseCode, self.remoteCloseReason
        if was_served:
            self.factory.detach(self)
        self.when_gone.callback(None)
        self.factory.ledger.record_event()

    def _buffer_changed(self) -> None:
        if self.state_of_use is not ConnectionState.SERVED:
            return
        if self._buffer.is_full:
            self._send_timer.start(self.factory.settings.send_seconds)
        else:
            self._send_timer.cancel()
            self.factory.flush()

    def _leave(self) -> None:
        self._send_timer.cancel()
        self.move_to(ConnectionState.LEFT)
        if self._record is not None:
            self._record.left_at = self.factory.clock.seconds()
        self.factory.detach(self)
        self.factory.ledger.record_event()

    def _ping(self) -> None:
        self.sendPing()
        self._silence_timer.start(self.factory.settings.silence_seconds)

    def _close_silent(self) -> None:
        self.close_with(INTERNAL_ERROR, "keepalive ping timeout")
        # A client that answers no ping may not answer a close either.
        self._drop_timer.start(self.factory.settings.close_seconds)


class NodeWebSocketFactory(WebSocketServerFactory):
    """Makes the connections of one node, and knows the open ones."""

    def __init__(
        self, reactor: IReactorTime, pow_service: PowService, settings: MLNodeSettings, ledger: Ledger
    ) -> None:
        super().__init__(reactor=reactor)
        self.clock = reactor
        self.pow = pow_service
        self.settings = settings
        self.ledger = ledger
        self.open_connections: list[NodeWebSocketProtocol] = []
        self._numbers = 0
        # Autobahn's own time-outs run on the global reactor, in whole seconds, so none of them is used.
        self.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, perMessageCompressionAccept=_accept_deflate
        )

    def buildProtocol(self, addr: object) -> Any:
        """Make a connection."""
        protocol = NodeWebSocketProtocol(self.clock)
        protocol.factory = self
        return protocol

    def record_connection(self) -> tuple[int, Connection]:
        """Return the number of a new connection, from 1, and its entry in the ledger."""
        self._numbers += 1
        record = Connection(self._numbers, self.clock.seconds())
        self.ledger.connections.append(record)
        return self._numbers, record

    def detach(self, connection: NodeWebSocketProtocol) -> None:
        """Reset the flag of the PoW that runs now; the node does not check which PoW the connection belonged to."""
        if self.pow.run is not None:
            self.pow.run.detach(connection)

    def flush(self) -> None:
        """Send what waits for a connection that takes more."""
        if self.pow.run is not None:
            self.pow.run.flush()


def _accept_deflate(offers: Iterable[Any]) -> Any:
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None
