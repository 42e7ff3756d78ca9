"""The WebSocket to one node: open whenever the node accepts it, and replaced when it is useless."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from dapi.poc.batch_handler import BatchHandler
from dapi.poc.large_batches import LargeBatches
from dapi.poc.message_intake import MessageCounter, MessageCounts
from dapi.poc.websocket_protocol import WebSocketNodeProtocol
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.poc.websocket_url import websocket_address
from dapi.timing.fair_share import Account
from dapi.websocket.address import WebSocketAddress
from dapi.websocket.client import ConnectionStatus, SupervisedWebSocket
from dapi.websocket.factory import WatchedConnectionFactory
from dapi.websocket.reasons import Cause


class WebSocketStatus(ConnectionStatus, frozen=True, kw_only=True):
    """What a WebSocketClient is doing, and what became of the messages since it was made.

    The counts and ``last_problem`` are those of MessageCounts; ``pending`` messages of the connection are on their way
    to the disk, and ``paused`` says whether nothing more is read for now.
    """

    messages: int
    acks: int
    bad_messages: int
    not_stored: int
    over_quota: int
    errors: int
    pending: int
    paused: bool
    last_problem: str | None


class WebSocketClient(SupervisedWebSocket[WebSocketNodeProtocol]):
    """Keeps one WebSocket to one node open, for as long as the service runs, and hands messages to its BatchHandler.

    A batch is acknowledged when the handler's Deferred has fired with a receipt, on the connection that brought it,
    and only there; messages that are pending at its end are stored without an acknowledgement. Retries and delays are
    those of SupervisedWebSocket. ``restart`` has to be called after each successful init: a connection from before may
    be dead for good. The new one comes ``settle_seconds`` after the end of the old one, since a node that notices that
    end late forgets the new connection. Facts: docs/protocol/node.md, 'One connection after the other'.

    ``url``: the node's PoC URL or its full WebSocket URL, see ``websocket_address``. ``random`` gives the delays.
    ``account`` tells the node's share of the reactor's thread; without it the node has all of it. ``large_batches``
    takes large messages, those of other nodes, too; without it they are decoded on the reactor's thread.
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
        account: Callable[[], Account] | None = None,
        large_batches: LargeBatches | None = None,
        factory: WatchedConnectionFactory | None = None,
    ) -> None:
        self._settings = settings = settings or WebSocketSettings()
        addresses = [websocket_address(url)]
        super().__init__(reactor, addresses, name=node_id, random=random, settings=settings, factory=factory)
        self._handler = handler
        self._account = account
        self._large_batches = large_batches
        self._counter = MessageCounter(reactor, node_id)
        self._replaced_at = float("-inf")
        handler.observe_bypass(self._replace_if_bypassed)

    def status(self) -> WebSocketStatus:
        """Return what it is doing, and what became of the messages."""
        connection = self._connection
        return WebSocketStatus(
            **msgspec.structs.asdict(self.connection_status()),
            **msgspec.structs.asdict(self._counter.counts),
            pending=connection.pending if connection is not None else 0,
            paused=connection is not None and connection.is_paused,
        )

    def message_counts(self) -> MessageCounts:
        """Return what became of the messages, as it is now."""
        return msgspec.structs.replace(self._counter.counts)

    def make_connection(self, address: WebSocketAddress) -> WebSocketNodeProtocol:
        """Make the protocol of the next connection."""
        account = self._account() if self._account is not None else None
        return WebSocketNodeProtocol(
            self._clock,
            address,
            self._settings,
            self._handler,
            self._counter,
            observer=self,
            account=account,
            large_batches=self._large_batches,
        )

    def record_failure(self, reason: str) -> None:
        """Record the reason as the last problem."""
        self._counter.counts.last_problem = reason

    def _replace_if_bypassed(self, begun_at: float | None) -> None:
        """Replace a connection that the node would have used for the batch that came by HTTP.

        A connection that was not there yet when a long upload began is a good one: the node tries it with its next
        batch.
        """
        connection = self._connection
        if connection is None or not connection.is_waiting_for_batches():
            return
        now = self._clock.seconds()
        reading_seconds = (now if begun_at is None else begun_at) - connection.reading_since
        is_due = now - self._replaced_at >= self._settings.bypass_interval_seconds
        if is_due and reading_seconds > self._settings.bypass_grace_seconds:
            self._replaced_at = now
            reason = "replaced: the node delivers by HTTP what it did not offer here"
            connection.end(reason, cause=Cause.REPLACED)
