"""The WebSocket to one node: there whenever the node accepts it, and replaced when it is of no use."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from dapi.poc.batch_handler import BatchHandler
from dapi.poc.message_intake import MessageCounts
from dapi.poc.websocket_protocol import WebSocketNodeProtocol
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.poc.websocket_url import websocket_address
from dapi.websocket.address import WebSocketAddress
from dapi.websocket.client import ConnectionStatus, SupervisedWebSocket


class WebSocketStatus(ConnectionStatus, frozen=True, kw_only=True):
    """What a WebSocketClient is doing, and what became of the messages since it was made.

    The counts are those of MessageCounts. ``last_error`` is the last thing that went wrong, with the connection or with
    a message.
    """

    messages: int
    acks: int
    bad_messages: int
    not_stored: int
    errors: int
    in_flight: int
    paused: bool
    last_error: str | None


class WebSocketClient(SupervisedWebSocket[WebSocketNodeProtocol]):
    """Keeps one WebSocket to one node, for as long as the service runs, and hands what comes to its BatchHandler.

    A batch is acknowledged when the handler's Deferred has fired with a receipt, on the connection that brought it,
    and only there. Every interruption is followed by a delay, uniform in 3 to 5 s by default, for ever. Only the first
    try after ``startService`` or ``restart`` comes at once (``settle_seconds`` after the end of an older connection, if
    there was one: closing the old one late makes a node forget the new one). ``restart`` is called after each
    successful init: an open connection of before may be dead for good.

    ``url``: the node's PoC URL or its full WebSocket URL, see ``websocket_url``. ``random`` gives the delays.
    ConfigError when the URL or ``settings.ca_file`` cannot be used. Not promised: that a node with an open connection
    sends on it. One that does not is replaced, see WebSocketSettings; its batches come by HTTP meanwhile.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        handler: BatchHandler,
        *,
        node_id: str,
        random: Random,
        settings: WebSocketSettings | None = None,
    ) -> None:
        self._settings = settings or WebSocketSettings()
        super().__init__(reactor, [websocket_address(url)], name=node_id, random=random, settings=self._settings)
        self._handler = handler
        self._counts = MessageCounts()
        self._replaced_at = float("-inf")
        handler.observe_bypass(self._on_bypass)

    def stopService(self) -> Deferred[None]:
        """Close and stay closed, as SupervisedWebSocket does.

        Messages that are with the handler by then are stored all the same, without an acknowledgement.
        """
        return super().stopService()

    def status(self) -> WebSocketStatus:
        """Tell what it is doing, and what became of the messages since it was made."""
        connection = self._connection
        status = self.connection_status()
        return WebSocketStatus(
            state=status.state,
            reason=status.reason,
            since=status.since,
            until=status.until,
            connections=status.connections,
            messages=self._counts.messages,
            acks=self._counts.acks,
            bad_messages=self._counts.bad_messages,
            not_stored=self._counts.not_stored,
            errors=self._counts.errors,
            in_flight=connection.in_flight if connection is not None else 0,
            paused=connection.is_paused if connection is not None else False,
            last_error=self._counts.last_error,
        )

    def make_connection(self, address: WebSocketAddress) -> WebSocketNodeProtocol:
        """Make the protocol of the next connection."""
        return WebSocketNodeProtocol(self._clock, address, self._settings, self._handler, self._counts, observer=self)

    def record_failure(self, reason: str) -> None:
        """Keep it as the last error."""
        self._counts.last_error = reason

    def _on_bypass(self, begun_at: float | None) -> None:
        """Replace a connection that would have taken what the node has delivered by HTTP.

        One that was not there yet when a long upload began is a good one: the node will try it with its next batch.
        """
        connection = self._connection
        if connection is None or not connection.is_waiting_for_batches():
            return
        now = self._clock.seconds()
        if (
            (now if begun_at is None else begun_at) - connection.reading_since > self._settings.bypass_grace_seconds
            and now - self._replaced_at >= self._settings.bypass_interval_seconds
        ):
            self._replaced_at = now
            connection.end("replaced: the node delivers by HTTP what it did not offer here")
