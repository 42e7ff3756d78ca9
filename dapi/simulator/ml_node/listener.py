"""The port of a simulated ML node, whose connections can be left unread, or cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTCP
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.resource import IResource
from twisted.web.server import Site

from dapi.timing.waiters import Waiters

_LOCALHOST = "127.0.0.1"


class _Connections(WrappingFactory[ProtocolWrapper]):
    """Wraps a site and knows all its connections, also those that became WebSockets."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self._empty_waiters: Waiters[None] = Waiters()

    def when_empty(self) -> Deferred[None]:
        """Return a Deferred that fires when no connection is left."""
        return self._empty_waiters.wait() if self.protocols else succeed(None)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802
        """Forget a connection."""
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        if not self.protocols:
            # The connection's own protocol is told of its end only after this method.
            self._empty_waiters.fire(None)


class Listener:
    """Serves a resource on a port of 127.0.0.1; ``port`` 0 becomes the one that the system picks, and stays so."""

    def __init__(self, reactor: IReactorTCP, port: int, resource: IResource) -> None:
        self.port = port
        self._reactor = reactor
        self._connections = _Connections(Site(resource, reactor=reactor))
        self._listening: Any = None
        self._deaf = 0

    def listen(self) -> None:
        """Open the port; raise CannotListenError."""
        factory: Any = self._connections
        self._listening = self._reactor.listenTCP(self.port, factory, interface=_LOCALHOST)
        self.port = self._listening.getHost().port

    def close(self) -> Deferred[Any]:
        """Close the port, but not its connections; the Deferred fires when it is closed."""
        listening, self._listening = self._listening, None
        return succeed(None) if listening is None else maybeDeferred(listening.stopListening)

    def abort(self) -> Deferred[None]:
        """Cut all connections; the Deferred fires when they are gone."""
        for connection in list(self._connections.protocols):
            transport: Any = connection.transport
            transport.abortConnection()
        return self._connections.when_empty()

    @contextmanager
    def deafness(self) -> Iterator[None]:
        """Read from no connection and accept none while the context lasts, like a process that is blocked."""
        self._deaf += 1
        self._set_reading(False)
        try:
            yield
        finally:
            self._deaf -= 1
            if not self._deaf:
                self._set_reading(True)

    def _set_reading(self, wanted: bool) -> None:
        for connection in list(self._connections.protocols):
            transport: Any = connection.transport
            if wanted:
                transport.resumeProducing()
            else:
                transport.pauseProducing()
        if self._listening is not None:
            if wanted:
                self._listening.startReading()
            else:
                self._listening.stopReading()
