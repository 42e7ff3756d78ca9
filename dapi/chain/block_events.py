"""NewBlock events of one of the chain's nodes, over a WebSocket that is kept open.

Facts: docs/protocol/chain.md, 'Block events'. ``tm.event='NewBlock'`` rather than the lighter ``'NewBlockHeader'``:
only the former has the block's hash, which nodes are given the moment a PoC begins, and asking for it would cost a call
just then. Its price is a frame with the whole block, of which only the head is decoded; one above ``max_message_bytes``
costs the connection, and its block is then found by ``status``.
"""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from dapi.chain.rpc_answers import BlockInfo, Refusal, decode_block_event, encode_request
from dapi.errors import ChainUnavailableError, ConfigError
from dapi.websocket.address import WebSocketAddress, split_url
from dapi.websocket.client import SupervisedWebSocket
from dapi.websocket.protocol import WatchedConnection
from dapi.websocket.reasons import printable
from dapi.websocket.settings import ConnectionSettings

NEW_BLOCK = "tm.event='NewBlock'"

_PATH = "/websocket"
_REQUEST_ID = 1


def events_address(rpc_url: str) -> WebSocketAddress:
    """Return where the node of an RPC URL offers its events: the same host, port and path, ``/websocket`` added.

    ConfigError when it is no http, https or tcp URL (the last is the network's own way to write http).
    """
    scheme, separator, rest = rpc_url.partition("://")
    parts = split_url(f"http://{rest}" if separator and scheme == "tcp" else rpc_url, "chain URL")
    if parts.is_websocket:
        raise ConfigError("a chain URL has the scheme ws or wss: give the RPC's http or https URL")
    resource = parts.path.rstrip("/") + _PATH + (f"?{parts.query}" if parts.query else "")
    return parts.address(resource)


class BlockEvents(SupervisedWebSocket["BlockEventsConnection"]):
    """Tells each block that a node of the chain announces, as soon as it is committed.

    ``rpc_urls`` in order of preference: the first that brings blocks is followed. There is no promise that every block
    is told: the watcher looks by itself. A subscription that the node ends is made anew with the next connection.
    """

    def __init__(
        self, reactor: Any, rpc_urls: Sequence[str], *, random: Random, settings: ConnectionSettings | None = None
    ) -> None:
        self._settings = settings or ConnectionSettings()
        self._observers: list[Callable[[BlockInfo], None]] = []
        addresses = [events_address(url) for url in rpc_urls]
        super().__init__(reactor, addresses, name="chain", random=random, settings=self._settings)

    @property
    def opened_at(self) -> float | None:
        """When the connection was opened that is open now; None while there is none."""
        connection = self._connection
        return connection.opened_at if connection is not None and connection.state == connection.STATE_OPEN else None

    def observe(self, observer: Callable[[BlockInfo], None]) -> None:
        """Have ``observer`` called with every block that is announced."""
        self._observers.append(observer)

    def replace(self, reason: str) -> None:
        """Give the connection up, if there is one, as of no use: the next is tried at the next URL."""
        if self._connection is not None:
            self._is_of_use = False
            self._connection.end(reason)

    def make_connection(self, address: WebSocketAddress) -> BlockEventsConnection:
        """Make the protocol of the next connection."""
        return BlockEventsConnection(self._clock, address, self._settings, self)

    def block_came(self, block: BlockInfo) -> None:
        """Pass a block on; the connection calls it."""
        self.came_of_use()
        for observer in self._observers:
            observer(block)


class BlockEventsConnection(WatchedConnection):
    """One connection to a node of the chain, with one subscription."""

    def __init__(
        self, clock: Any, address: WebSocketAddress, settings: ConnectionSettings, events: BlockEvents
    ) -> None:
        super().__init__(clock, address, settings, events)
        self._events = events

    def onOpen(self) -> None:
        """Subscribe."""
        super().onOpen()
        self.sendMessage(encode_request(_REQUEST_ID, "subscribe", {"query": NEW_BLOCK}))

    def take(self, payload: bytes) -> None:
        """Tell a block; an error, in answer to the subscription or as its end, is the end of the connection."""
        if self.state != self.STATE_OPEN:
            return
        try:
            answer = decode_block_event(payload)
        except ChainUnavailableError as error:
            self.end(f"the node sent {printable(str(error))}")
            return
        if isinstance(answer, Refusal):
            self.end(f"the node ended the subscription: {printable(answer.words)}")
        elif answer is not None:
            self._events.block_came(answer)
