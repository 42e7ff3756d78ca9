"""NewBlock events of one of the chain's nodes, over a WebSocket that is kept open.

Facts: docs/protocol/chain.md, 'Block events'. dapi subscribes to ``tm.event='NewBlock'`` and not to the lighter
``'NewBlockHeader'``: only a NewBlock event has the block's hash. ML nodes need it the moment a PoC begins, and a call
for it would take time just then. The price is a frame with the whole block, of which only the header is decoded. A
frame above ``max_message_bytes`` ends the connection; ``status`` then finds its block.
"""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from dapi.chain.nodes import ChainNodes
from dapi.chain.rpc_answers import BlockInfo, RpcError, decode_block_event, encode_request
from dapi.errors import ChainUnavailableError, ConfigError
from dapi.messages.printable import printable
from dapi.timing.observers import Observers
from dapi.websocket.address import WebSocketAddress, split_url
from dapi.websocket.client import SupervisedWebSocket
from dapi.websocket.protocol import WatchedConnection
from dapi.websocket.settings import ConnectionSettings

NEW_BLOCK = "tm.event='NewBlock'"

_PATH = "/websocket"
_REQUEST_ID = 1


def events_address(rpc_url: str) -> WebSocketAddress:
    """Return where the node with this RPC URL offers its events: same host and port, ``/websocket`` after the path.

    Raises ConfigError unless its scheme is http, https or tcp (the network's own configuration writes tcp for http).
    """
    scheme, separator, rest = rpc_url.partition("://")
    url_scheme, address = split_url(f"http://{rest}" if separator and scheme == "tcp" else rpc_url, "chain URL")
    if url_scheme in ("ws", "wss"):
        raise ConfigError("a chain URL has the scheme ws or wss: give the RPC's http or https URL")
    path, mark, query = address.resource.partition("?")
    return address._replace(resource=f"{path.rstrip('/')}{_PATH}{mark}{query}")


class BlockEvents(SupervisedWebSocket["BlockEventsConnection"]):
    """Calls its observers with each block that a node announces, as soon as the block is committed.

    It follows the first of ``rpc_urls`` that brings blocks, of those that are as good as the best of ``nodes`` (the
    nodes of these URLs; None: all count as good). Blocks may be missing: BlockWatcher asks for the status, too. When
    the node ends the subscription, the next connection subscribes again.
    """

    def __init__(
        self,
        reactor: Any,
        rpc_urls: Sequence[str],
        *,
        random: Random,
        settings: ConnectionSettings | None = None,
        nodes: ChainNodes | None = None,
    ) -> None:
        self._settings = settings or ConnectionSettings()
        self._nodes = nodes
        self._observers = Observers[[BlockInfo]]()
        addresses = [events_address(url) for url in rpc_urls]
        super().__init__(reactor, addresses, name="chain", random=random, settings=self._settings)

    @property
    def opened_at(self) -> float | None:
        """When the connection that is open now was opened, on the reactor's clock; None while there is none."""
        connection = self._connection
        return connection.opened_at if connection is not None and connection.state == connection.STATE_OPEN else None

    @property
    def url_index(self) -> int:
        """Which of the URLs is followed, or is tried."""
        return self._index

    def observe(self, observer: Callable[[BlockInfo], None]) -> None:
        """Call ``observer`` with every block that a node announces."""
        self._observers.add(observer)

    def replace(self, reason: str) -> None:
        """End the connection, if there is one, for this reason; the next attempt goes to the next URL."""
        if self._connection is not None:
            self._is_useful = False
            self._connection.end(reason)

    def choose_address(self, index: int, *, was_useful: bool) -> int:
        """Return the index of the best node, or, after a connection that was of no use, of the next one."""
        if self._nodes is None:
            return super().choose_address(index, was_useful=was_useful)
        ordered = self._nodes.in_order()
        return ordered[0].index if was_useful and ordered else self._nodes.next_to_follow(index)

    def make_connection(self, address: WebSocketAddress) -> BlockEventsConnection:
        """Make the protocol of the next connection."""
        return BlockEventsConnection(self._clock, address, self._settings, self)

    def announce(self, block: BlockInfo) -> None:
        """Call the observers with a block that the connection received."""
        self.mark_useful()
        self._observers(block)


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

    def message_received(self, payload: bytes) -> None:
        """Announce the block of an event. An error, which refuses or ends the subscription, ends the connection."""
        if self.state != self.STATE_OPEN:
            return
        try:
            answer = decode_block_event(payload)
        except ChainUnavailableError as error:
            self.end(f"the node sent {printable(str(error))}")
            return
        if isinstance(answer, RpcError):
            self.end(f"the node ended the subscription: {printable(answer.text)}")
        elif answer is not None:
            self._events.announce(answer)
