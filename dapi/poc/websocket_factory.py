"""How Autobahn is set for the connections to a node."""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)

from dapi.poc.websocket_protocol import WebSocketNodeProtocol
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.poc.websocket_url import WebSocketAddress


class WebSocketNodeFactory(WebSocketClientFactory):
    """Makes the connections to one node, one after the other."""

    noisy = False

    def __init__(
        self,
        reactor: Any,
        address: WebSocketAddress,
        settings: WebSocketSettings,
        make_protocol: Callable[[], WebSocketNodeProtocol],
    ) -> None:
        super().__init__(address.url, useragent="dapi", reactor=reactor)
        self._make_protocol = make_protocol
        self.setProtocolOptions(
            utf8validateIncoming=False,
            failByDrop=False,
            maxFramePayloadSize=settings.max_message_bytes,
            maxMessagePayloadSize=settings.max_message_bytes,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
            autoPingInterval=0,
            autoPingTimeout=0,
        )
        if settings.compression:

            def accept(response: object) -> PerMessageDeflateResponseAccept | None:
                if not isinstance(response, PerMessageDeflateResponse):
                    return None
                return PerMessageDeflateResponseAccept(response, max_message_size=settings.max_message_bytes)

            self.setProtocolOptions(
                perMessageCompressionOffers=[PerMessageDeflateOffer()], perMessageCompressionAccept=accept
            )

    def buildProtocol(self, _address: object) -> WebSocketNodeProtocol:
        """Make the next connection's protocol."""
        protocol = self._make_protocol()
        protocol.factory = self
        return protocol
