# ruff: noqa: N802, N815
# The names are Autobahn's.
"""Autobahn's options as WatchedConnection needs them, on its class, and what a connection need not keep in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from autobahn.twisted.websocket import WebSocketClientProtocol
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)
from autobahn.websocket.protocol import TrafficStats

from dapi.websocket.settings import ConnectionSettings

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
# Autobahn counts into it, and nobody looks.
_UNUSED_STATS: Final = TrafficStats()


class ConnectionOptions(WebSocketClientProtocol):
    """Autobahn's protocol with the options of a connection; those that depend on the settings are read from there.

    Autobahn has each connection copy its options from its factory, unless the connection has them itself. Copies of two
    dozen options are a third of what an open connection takes in memory, and telling of them in a log line that nobody
    reads is a good part of what opening it costs.
    """

    CONFIG_ATTRS: ClassVar[list[str]] = []  # type: ignore[misc]  # Autobahn sets it on the class, too
    """What Autobahn copies."""

    _settings: ConnectionSettings

    failByDrop = False
    """Whether what is refused gets no close frame that says why."""
    utf8validateIncoming = False
    """Whether Autobahn checks texts: that is 40 % of the time that receiving takes."""
    tcpNoDelay = True
    """Without it a small message waits, up to 40 ms, until the peer's TCP confirms the message before."""

    # Autobahn's own timers round down to whole seconds, and run on the process's reactor.
    openHandshakeTimeout = closeHandshakeTimeout = serverConnectionDropTimeout = 0
    autoPingInterval = autoPingTimeout = 0
    autoPingSize = 12
    autoPingRestartOnAnyTraffic = True

    logOctets = logFrames = trackTimings = False
    version = 18
    maskClientFrames = applyMask = True
    acceptMaskedServerFrames = echoCloseCodeReason = False
    autoFragmentSize = 0

    @property
    def maxFramePayloadSize(self) -> int:
        """How many bytes a frame may have."""
        return self._settings.max_message_bytes

    @property
    def maxMessagePayloadSize(self) -> int:
        """How many bytes a message may have."""
        return self._settings.max_message_bytes

    @property
    def perMessageCompressionOffers(self) -> list[PerMessageDeflateOffer]:
        """The ways to compress that the peer may choose from."""
        return [PerMessageDeflateOffer()] if self._settings.compression else []

    @property
    def perMessageCompressionAccept(self) -> Callable[[object], PerMessageDeflateResponseAccept | None]:
        """What decides on the peer's choice."""
        return self._accept_compression

    def _accept_compression(self, response: object) -> PerMessageDeflateResponseAccept | None:
        if not self._settings.compression or not isinstance(response, PerMessageDeflateResponse):
            return None
        return PerMessageDeflateResponseAccept(response, max_message_size=self._settings.max_message_bytes)

    def forget_handshake(self) -> None:
        """Let go of what Autobahn has for the handshake, and for what is not used here: 2 kB of each connection."""
        autobahn: Any = self
        autobahn.http_request_data = autobahn.http_response_data = autobahn.websocket_key = b""
        autobahn.http_headers = _NOTHING
        autobahn.utf8validator = None
        # Autobahn would append to it what is sent in pieces; here nothing is.
        autobahn.send_queue = ()
        autobahn.trafficStats = _UNUSED_STATS
