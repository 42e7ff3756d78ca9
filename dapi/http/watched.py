"""The connections of HTTP requests, watched: which are open, and that the head of an answer has an end.

Twisted's client reads as many headers, and as many interim answers (``100 Continue``), as a server sends, and logs each
of the latter.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from dapi.http.endpoints import tcp_endpoint, tls_endpoint
from dapi.timing.waiters import Waiters

_MAX_HEAD_BYTES = 65536
_MAX_INTERIM_ANSWERS = 8
# Of a head that is being read: what is behind it may come with it.
_PIECE_BYTES = 1024


class OpenConnections(set[ProtocolWrapper]):
    """Connections that are open; ``when_empty`` is fired when the last one is lost."""

    __slots__ = ("when_empty",)

    def __init__(self) -> None:
        super().__init__()
        self.when_empty: Waiters[None] = Waiters()

    def lose(self, connection: ProtocolWrapper) -> None:
        """Hear that a connection is gone."""
        self.discard(connection)
        if not self:
            self.when_empty.fire(None)


@implementer(IAgentEndpointFactory)
class WatchedEndpoints:
    """Makes the endpoint of one request; the certificate and the host name of https are checked.

    ``problem`` says why the connection was aborted here, None: it was not.
    """

    def __init__(
        self, reactor: Any, connect_timeout_seconds: float, trust_root: Any, open_connections: OpenConnections
    ) -> None:
        self._reactor = reactor
        self._trust_root = trust_root
        self._connect_timeout_seconds = connect_timeout_seconds
        self._open = open_connections
        self._factories: list[_WatchedFactory] = []

    @property
    def problem(self) -> str | None:
        """Why a connection was aborted because of what came, None: none was."""
        return next((factory.problem for factory in self._factories if factory.problem is not None), None)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        """Return the endpoint; Twisted's agent calls this."""
        host = uri.host.decode("ascii")
        endpoint = tcp_endpoint(self._reactor, host, uri.port, timeout_seconds=self._connect_timeout_seconds)
        if uri.scheme == b"https":
            endpoint = tls_endpoint(self._reactor, endpoint, host, self._trust_root)
        return _WatchedEndpoint(endpoint, self._watch)

    def head_has_come(self) -> None:
        """Hear that what comes from now on is the body."""
        for factory in self._factories:
            factory.reads_head = False

    def abort_connections(self) -> None:
        """Abort the connections of the request."""
        for factory in self._factories:
            for connection in list(factory.protocols):
                connection.abortConnection()

    def _watch(self, wrapped: IProtocolFactory) -> _WatchedFactory:
        # Twisted's own would say of each request that it starts and stops: nine lines of ten in the log.
        cast(Any, wrapped).noisy = False
        factory = _WatchedFactory(wrapped, self._open)
        self._factories.append(factory)
        return factory


class _WatchedConnection(ProtocolWrapper):
    """Aborts itself when the head of an answer has no end."""

    factory: _WatchedFactory

    def dataReceived(self, data: bytes) -> None:
        begin = 0
        while self.factory.reads_head and begin < len(data):
            piece = data[begin : begin + _PIECE_BYTES]
            begin += len(piece)
            if self.factory.is_too_long(piece):
                self.abortConnection()
                return
            super().dataReceived(piece)  # type: ignore[no-untyped-call]
        if begin < len(data):
            super().dataReceived(data[begin:])  # type: ignore[no-untyped-call]


class _WatchedFactory(WrappingFactory[ProtocolWrapper]):
    """Counts the connection of one request among those that are open, and what comes of the head of its answer."""

    protocol = _WatchedConnection
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, open_connections: OpenConnections) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self._open = open_connections
        self._bytes = self._answers = 0
        self.reads_head = True
        self.problem: str | None = None

    def is_too_long(self, piece: bytes) -> bool:
        """Count a piece of the head; return whether it is to be the last one."""
        self._bytes += len(piece)
        self._answers += piece.count(b"HTTP/1.1 1")
        if self._bytes > _MAX_HEAD_BYTES:
            self.problem = f"the head of the answer has more than {_MAX_HEAD_BYTES} bytes"
        elif self._answers > _MAX_INTERIM_ANSWERS:
            self.problem = f"more than {_MAX_INTERIM_ANSWERS} interim answers came before the answer"
        return self.problem is not None

    def registerProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802
        super().registerProtocol(p)  # type: ignore[no-untyped-call]
        self._open.add(p)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        self._open.lose(p)


@implementer(IStreamClientEndpoint)
class _WatchedEndpoint:
    """Connects as another endpoint does, with a factory that watches the connection."""

    def __init__(self, endpoint: IStreamClientEndpoint, watch: Callable[[IProtocolFactory], _WatchedFactory]) -> None:
        self._endpoint = endpoint
        self._watch = watch

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        return self._endpoint.connect(self._watch(protocolFactory)).addCallback(attrgetter("wrappedProtocol"))
