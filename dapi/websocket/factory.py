"""Autobahn's factory, with the options that WatchedConnection needs."""

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

from dapi.websocket.protocol import WatchedConnection
from dapi.websocket.settings import ConnectionSettings


class WatchedConnectionFactory(WebSocketClientFactory):
    """Makes the connections of one client, one after the other.

    Autobahn's factory has a URL of its own, which is not used: each connection says what it asks for.
    """

    noisy = False

    def __init__(
        self, reactor: Any, settings: ConnectionSettings, make_connection: Callable[[], WatchedConnection]
    ) -> None:
        super().__init__(useragent="dapi", reactor=reactor)
        self._make_connection = make_connection
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

    def buildProtocol(self, _address: object) -> WatchedConnection:
        """Make the next connection's protocol."""
        connection = self._make_connection()
        connection.factory = self
        return connection
