"""One HTTP request and its whole, bounded answer, over a connection of its own.

The clients of the ML nodes and of the chain stand on it.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, cast

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.internet.interfaces import IConsumer, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from dapi.timing.waiters import Waiters

MAX_ANSWER_BYTES = 65536


class AnswerTooLongError(Exception):
    """An answer is longer than ``max_bytes``; ``status`` is its HTTP status, ``begin`` its first bytes."""

    def __init__(self, status: int, begin: bytes, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        super().__init__(f"the answer is longer than {max_bytes} bytes")
        self.status = status
        self.begin = begin


class NoAnswerError(Exception):
    """No answer came: the other side, or the way to it, is at fault. The text says what happened."""


class Exchanges:
    """Makes requests, and knows which of their connections are still open.

    Twisted's own agent forgets a connection that it asked to close; over TLS a silent peer can then keep the socket
    open for ever. So each request's connection is watched here, and aborted when the request failed. The connections
    of an ``agent`` from outside are not watched.
    """

    def __init__(self, reactor: Any, agent: IAgent | None, connect_timeout_seconds: float) -> None:
        self._reactor = reactor
        self._agent = agent
        self._connect_timeout_seconds = connect_timeout_seconds
        self._open = _Connections()

    async def exchange(
        self, method: str, url: str, body: bytes | None, *, max_bytes: int = MAX_ANSWER_BYTES
    ) -> tuple[int, bytes]:
        """Return the status and the body of the answer, which has at most ``max_bytes``.

        Raises AnswerTooLongError or NoAnswerError, and CancelledError when it was cancelled; Twisted's agent fails in
        several ways then. Redirects are not followed.
        """
        is_cancelled = False

        def cancel(_outcome: Deferred[tuple[int, bytes]]) -> None:
            nonlocal is_cancelled
            is_cancelled = True
            exchange.cancel()

        outcome: Deferred[tuple[int, bytes]] = Deferred(cancel)
        exchange = Deferred.fromCoroutine(self._exchange(method, url, body, max_bytes))
        exchange.addCallbacks(outcome.callback, outcome.errback)
        try:
            return await outcome
        except _NO_ANSWER as error:
            if is_cancelled:
                raise CancelledError from error
            raise NoAnswerError(_reason(error)) from error

    async def _exchange(self, method: str, url: str, body: bytes | None, max_bytes: int) -> tuple[int, bytes]:
        endpoints = _Endpoints(self._reactor, self._connect_timeout_seconds, self._open)
        agent = self._agent or Agent.usingEndpointFactory(self._reactor, endpoints)
        # A client of its own for each request: treq's would keep cookies.
        client = HTTPClient(agent, data_to_body_producer=_BytesProducer)
        try:
            response = await client.request(
                method,
                url,
                headers=Headers({"Content-Type": ["application/json"]} if body is not None else {}),
                data=body,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            return response.code, await _read(cast(IResponse, response), max_bytes)
        except BaseException:
            endpoints.abort_connections()
            raise

    def close(self) -> Deferred[None]:
        """Abort the connections that are left; fires when they are gone."""
        if not self._open:
            return succeed(None)
        none_left = self._open.when_empty.wait()
        for connection in self._open.copy():
            connection.abortConnection()
        return none_left


class _Connections(set[ProtocolWrapper]):
    """Connections that are open; ``when_empty`` is fired when the last one is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.when_empty: Waiters[None] = Waiters()

    def lose(self, connection: ProtocolWrapper) -> None:
        self.discard(connection)
        if not self:
            self.when_empty.fire(None)


def _read(response: IResponse, max_bytes: int) -> Deferred[bytes]:
    body = _BoundedBody(response.code, max_bytes)
    response.deliverBody(body)
    return body.finished


class _BoundedBody(Protocol):
    """Collects an answer's body."""

    def __init__(self, status: int, max_bytes: int) -> None:
        self.finished: Deferred[bytes] = Deferred(lambda _: self._fail(CancelledError()))
        self._status = status
        self._max_bytes = max_bytes
        self._received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        if self.finished.called:
            return
        self._received += data
        if len(self._received) > self._max_bytes:
            begin = bytes(self._received[:MAX_ANSWER_BYTES])
            self._fail(AnswerTooLongError(self._status, begin, self._max_bytes))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.finished.called:
            return
        # An answer without a length ends with its connection. Whether it is whole is seen when it is decoded.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.finished.callback(bytes(self._received))
        else:
            self.finished.errback(reason)

    def _fail(self, error: Exception) -> None:
        self.finished.errback(Failure(error))
        if self.transport is not None:
            self.transport.loseConnection()


@implementer(IBodyProducer)
class _BytesProducer:
    """A request's body that is written at once: treq's own producer runs on the global reactor."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:  # noqa: N802
        consumer.write(self._body)
        return succeed(None)

    def _ignore(self) -> None:
        """Do nothing: all is written already."""

    pauseProducing = resumeProducing = stopProducing = _ignore


class _WatchedFactory(WrappingFactory[ProtocolWrapper]):
    """Counts the connections of one request among those that are open."""

    noisy = False

    def __init__(self, wrapped: IProtocolFactory, open_connections: _Connections) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self._open = open_connections

    def registerProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802
        super().registerProtocol(p)  # type: ignore[no-untyped-call]
        self._open.add(p)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        self._open.lose(p)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Makes the endpoint of one request; the certificate and the host name of https are checked."""

    def __init__(self, reactor: Any, connect_timeout_seconds: float, open_connections: _Connections) -> None:
        self._reactor = reactor
        self._connect_timeout_seconds = connect_timeout_seconds
        self._open = open_connections
        self._factories: list[_WatchedFactory] = []

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        host = uri.host.decode("ascii")
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, host, uri.port, timeout=self._connect_timeout_seconds
        )
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(BrowserLikePolicyForHTTPS().creatorForNetloc(uri.host, uri.port), endpoint)
        return _WatchedEndpoint(endpoint, self._watch)

    def abort_connections(self) -> None:
        for factory in self._factories:
            for connection in list(factory.protocols):
                connection.abortConnection()

    def _watch(self, wrapped: IProtocolFactory) -> _WatchedFactory:
        # Twisted's own would say of each request that it starts and stops: nine lines of ten in the log.
        cast(Any, wrapped).noisy = False
        factory = _WatchedFactory(wrapped, self._open)
        self._factories.append(factory)
        return factory


@implementer(IStreamClientEndpoint)
class _WatchedEndpoint:
    """Connects as another endpoint does, with a factory that watches the connection."""

    def __init__(self, endpoint: IStreamClientEndpoint, watch: Callable[[IProtocolFactory], _WatchedFactory]) -> None:
        self._endpoint = endpoint
        self._watch = watch

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        return self._endpoint.connect(self._watch(protocolFactory)).addCallback(attrgetter("wrappedProtocol"))


# What Twisted's agent fails with when the other side, or the way to it, is at fault.
_NO_ANSWER = (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    OSError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)


def _reason(error: BaseException) -> str:
    """Say what went wrong below HTTP; Twisted wraps the cause into a list of failures."""
    causes = [reason.value for reason in getattr(error, "reasons", ()) if reason.value is not None]
    return "; ".join(_reason(cause) for cause in causes) or str(error).rstrip(".") or type(error).__name__
