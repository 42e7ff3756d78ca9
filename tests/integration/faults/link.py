"""A line between dapi and a node, which does to WebSockets what bad networks do; calls of the node's API pass."""

from __future__ import annotations

import enum
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

_LOCALHOST = "127.0.0.1"


class Fault(enum.Enum):
    """What is wrong with the line."""

    NONE = "none"
    RESETS = "reset in the middle of a frame"
    HALF_OPEN = "half-open: nothing comes any more, in neither direction, and nobody says so"
    DRIPS = "one byte at a time"
    LOSES_ACKS = "what dapi sends is lost"


class Link:
    """Listens on ``port``, and passes everything on to the node's port; ``fault`` may be set at any time.

    ``harmed`` counts what the fault was done to: connections, or pieces of them.
    """

    def __init__(self, reactor: Any, node_port: int) -> None:
        self.fault = Fault.NONE
        self.harmed = 0
        self.reactor = reactor
        self.node = TCP4ClientEndpoint(reactor, _LOCALHOST, node_port)
        self.pairs: set[_FromDapi] = set()
        self._listening = reactor.listenTCP(0, Factory.forProtocol(lambda: _FromDapi(self)), interface=_LOCALHOST)
        self.port: int = self._listening.getHost().port

    def heal(self) -> None:
        """Have it work again; connections that have lost something are cut."""
        self.fault = Fault.NONE
        for pair in list(self.pairs):
            if pair.has_lost:
                pair.cut()

    async def close(self) -> None:
        """Cut all connections, and close the port."""
        for pair in list(self.pairs):
            pair.cut()
        await self._listening.stopListening()


class _FromDapi(Protocol):
    """The connection from dapi, and by ``peer`` the one to the node."""

    transport: Any

    def __init__(self, link: Link) -> None:
        self.has_lost = False
        self._link = link
        self._peer: Any = None
        self._early: list[bytes] = []
        self._dripping: list[bytes] = []
        # A WebSocket counts as one from its upgrade's answer on.
        self._is_upgrade = self._is_open = False

    def connectionMade(self) -> None:
        self._link.pairs.add(self)
        connecting = connectProtocol(self._link.node, _FromNode(self))
        connecting.addCallbacks(self._connected, lambda _: self.cut())

    def _connected(self, peer: Any) -> None:
        self._peer = peer
        if self not in self._link.pairs:
            self.cut()
        for data in self._early:
            peer.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self._is_upgrade = self._is_upgrade or b"upgrade: websocket" in data.lower()
        is_lost = self._link.fault is Fault.HALF_OPEN and self._is_upgrade
        if is_lost or (self._link.fault is Fault.LOSES_ACKS and self._is_open):
            self._lose()
        elif self._peer is None:
            self._early.append(data)
        else:
            self._peer.transport.write(data)

    def from_node(self, data: bytes) -> None:
        """Pass on, or not, what the node sends."""
        fault = self._link.fault
        if self._is_upgrade and fault is Fault.HALF_OPEN:
            self._lose()
        elif self._is_open and fault is Fault.RESETS:
            # The first half of what the node sends, and then a reset.
            self.transport.write(data[: len(data) // 2])
            self._link.reactor.callLater(0.01, self._reset)
        elif self._dripping or (self._is_open and fault is Fault.DRIPS):
            self._drip(data)
        else:
            self.transport.write(data)
        self._is_open = self._is_upgrade

    def _lose(self) -> None:
        self.has_lost = True
        self._link.harmed += 1

    def _reset(self) -> None:
        if self in self._link.pairs:
            self._link.harmed += 1
            self.cut()

    def _drip(self, data: bytes) -> None:
        is_dripping = bool(self._dripping)
        self._dripping += [data[place : place + 1] for place in range(len(data))]
        if not is_dripping:
            self._link.harmed += 1
            self._link.reactor.callLater(0, self._drop)

    def _drop(self) -> None:
        if self in self._link.pairs:
            self.transport.write(self._dripping.pop(0))
            if self._dripping:
                self._link.reactor.callLater(0, self._drop)

    def cut(self) -> None:
        """Reset both connections."""
        self._link.pairs.discard(self)
        self.transport.abortConnection()
        if self._peer is not None:
            self._peer.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self._link.pairs.discard(self)
        if self._peer is not None:
            self._peer.transport.abortConnection()


class _FromNode(Protocol):
    transport: Any

    def __init__(self, pair: _FromDapi) -> None:
        self._pair = pair

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self._pair.from_node(data)

    def connectionLost(self, reason: Any = None) -> None:
        # What is half-open has no end.
        if not self._pair.has_lost:
            self._pair.transport.loseConnection()
