"""A network between two machines that can be cut: what was sent stays away, and no connection ends."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure


class CutProxy(Factory):
    """Hands on what comes to ``port`` of 127.0.0.1, and back, until ``cut``; after ``mend`` all of it goes on.

    A connection that begins meanwhile is accepted, as a kernel does, and waits.
    """

    noisy = False

    def __init__(self, reactor: Any, target_port: int) -> None:
        self.is_cut = False
        self.sides: set[_Side] = set()
        self._reactor = reactor
        self._target = TCP4ClientEndpoint(reactor, "127.0.0.1", target_port)
        self._listening: IListeningPort = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port

    def buildProtocol(self, _: Any) -> Protocol:
        """Return what a new connection speaks to."""
        return _Side(self)

    def connect(self, side: _Side) -> None:
        """Connect a side that has come with the target."""
        connecting = connectProtocol(self._target, _Side(self, side))
        connecting.addErrback(lambda _: side.abort())

    def cut(self) -> None:
        """Let nothing through."""
        self.is_cut = True
        for side in self.sides:
            side.pause()

    def mend(self) -> None:
        """Let all through again."""
        self.is_cut = False
        for side in list(self.sides):
            side.resume()

    def close(self) -> Deferred[Any]:
        """Listen no more, and end all connections."""
        for side in list(self.sides):
            side.abort()
        return maybeDeferred(self._listening.stopListening)


class _Side(Protocol):
    """One end; ``peer`` is the other one."""

    def __init__(self, proxy: CutProxy, peer: _Side | None = None) -> None:
        self.peer = peer
        self._proxy = proxy
        self._is_waiting = False

    def connectionMade(self) -> None:
        self._proxy.sides.add(self)
        if self.peer is not None:
            self.peer.peer = self
            self.resume()
            self.peer.resume()
            return
        self.pause()
        self._is_waiting = self._proxy.is_cut
        if not self._is_waiting:
            self._proxy.connect(self)

    def dataReceived(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._proxy.sides.discard(self)
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.loseConnection()

    def pause(self) -> None:
        """Read nothing."""
        self.transport.pauseProducing()  # type: ignore[union-attr]

    def resume(self) -> None:
        """Read on, or be connected at last, unless the network is cut."""
        if self._is_waiting and not self._proxy.is_cut:
            self._is_waiting = False
            self._proxy.connect(self)
        elif self._proxy.is_cut or self.peer is None:
            self.pause()
        else:
            self.transport.resumeProducing()  # type: ignore[union-attr]

    def abort(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]
