"""The WebSocket of a simulated ML node, ``/api/v1/pow/ws``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from dapi.simulator.ml_node.ledger import Connection, Ledger
from dapi.simulator.ml_node.pow_service import PowService
from dapi.simulator.ml_node.settings import MLNodeSettings

POLICY_VIOLATION = 1008
SERVICE_RESTART = 1012


class NodeWebSocketProtocol(WebSocketServerProtocol):
    """One connection. It belongs to the PoW run that it came to; after the end of that run it stays open, unused."""

    factory: NodeWebSocketFactory

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.when_gone: Deferred[None] = Deferred()
        self._record: Connection | None = None
        self._drop_call: IDelayedCall | None = None

    def offer(self, payload: bytes) -> None:
        """Send one message, as a text or binary frame (see the settings); a connection that closes loses it."""
        if self.state == self.STATE_OPEN:
            self.sendMessage(payload, isBinary=self.factory.settings.binary_frames)  # type: ignore[no-untyped-call]

    def close_with(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        # sendClose lets only 1000 and the application's own codes through.
        self.sendCloseFrame(code=code, reasonUtf8=reason.encode())

    def onOpen(self) -> None:
        """Accept the client, or close with the reason for the refusal."""
        clock, settings, run = self.factory.clock, self.factory.settings, self.factory.pow.run
        self.number = self.factory.next_number()
        self._record = Connection(self.number, clock.seconds())
        self.factory.ledger.connections.append(self._record)
        self.factory.open_connections.append(self)
        refusal = self._refusal()
        if refusal:
            self._record.refused = refusal
            self.close_with(POLICY_VIOLATION, refusal)
        elif run is not None:
            run.client_connected = True
            run.connection = self
            if settings.drop_every_seconds is not None:
                self._drop_call = clock.callLater(settings.drop_every_seconds, self.dropConnection, abort=True)
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
        """Handle an ack; a message that is no JSON text ends the connection."""
        if self._record is None or self._record.refused:
            return
        try:
            message = None if isBinary else json.loads(payload)
        except ValueError:
            message = None
        if message is None:
            self.dropConnection(abort=True)
            return
        if isinstance(message, dict) and message.get("type") == "ack":
            self._record.acks += 1
            self.factory.pow.acknowledge(str(message.get("id")), self.number)

    def onPing(self, payload: bytes) -> None:
        """Count the ping, and answer it."""
        if self._record is not None:
            self._record.pings += 1
            self.factory.ledger.record_event()
        super().onPing(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N803
        """Reset the flag of the run that runs now: the node does not check which run the connection belonged to."""
        if self._drop_call is not None and self._drop_call.active():
            self._drop_call.cancel()
        if self._record is None:
            return
        run = self.factory.pow.run
        self.factory.open_connections.remove(self)
        self._record.closed_at = self.factory.clock.seconds()
        self._record.close_code, self._record.close_reason = self.remoteCloseCode, self.remoteCloseReason
        if run is not None and not self._record.refused:
            run.client_connected = False
        self.when_gone.callback(None)
        self.factory.ledger.record_event()


class NodeWebSocketFactory(WebSocketServerFactory):
    """Makes the connections of one node, and knows the open ones."""

    protocol = NodeWebSocketProtocol  # type: ignore[assignment]

    def __init__(
        self, reactor: IReactorTime, pow_service: PowService, settings: MLNodeSettings, ledger: Ledger
    ) -> None:
        super().__init__(reactor=reactor)  # type: ignore[no-untyped-call]
        self.clock = reactor
        self.pow = pow_service
        self.settings = settings
        self.ledger = ledger
        self.open_connections: list[NodeWebSocketProtocol] = []
        self._numbers = 0
        # Autobahn's own time-outs run on the global reactor, in whole seconds, so none of them is used.
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            openHandshakeTimeout=0, closeHandshakeTimeout=0, perMessageCompressionAccept=_accept_deflate
        )

    def next_number(self) -> int:
        """Count connections from 1."""
        self._numbers += 1
        return self._numbers


def _accept_deflate(offers: Iterable[Any]) -> Any:
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None
