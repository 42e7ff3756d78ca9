"""One HTTP request and its answer, whole and bounded or in pieces, over a connection of its own.

The clients of the ML nodes and of the chain stand on it.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, cast

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import IConsumer, IProtocol, IProtocolFactory, IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
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

from dapi.errors import ConfigError
from dapi.http.endpoints import tcp_endpoint, tls_endpoint, trust_root_of
from dapi.http.headers_file import HeadersFile
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


class Answer:
    """The answer to one request, of which the status and the headers are there; its body is read in pieces.

    Whoever has it reads the body to its end, or aborts it.
    """

    def __init__(self, status: int, body: _Body, abort_connections: Callable[[], None]) -> None:
        self.status = status
        self._body = body
        self._abort_connections = abort_connections

    async def read(self, size: int) -> bytes:
        """Return at least ``size`` more bytes, or all that are left: none after the last one.

        Hardly more is taken from the connection than what is read. Raises NoAnswerError, and CancelledError when it was
        cancelled; the answer is aborted then.
        """
        try:
            return await self._body.read(size)
        except _NO_ANSWER as error:
            self.abort()
            raise NoAnswerError(_reason(error)) from error
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Have nothing more of the body, and close the connection; nothing happens after the end of the body."""
        self._body.close()
        self._abort_connections()


class Exchanges:
    """Makes requests, and knows which of their connections are still open.

    Twisted's own agent forgets a connection that it asked to close; over TLS a silent peer can then keep the socket
    open for ever. So each request's connection is watched here, and aborted when the request failed. The connections
    of an ``agent`` from outside are not watched. ``ca_file`` is the PEM file of the authorities that https servers are
    checked against, None for the system's; with a ``fingerprint`` a server has to show the certificate with that
    SHA-256. ConfigError when they cannot be used. ``headers`` go along with each request.
    """

    def __init__(
        self,
        reactor: Any,
        agent: IAgent | None,
        connect_timeout_seconds: float,
        *,
        ca_file: str | None = None,
        fingerprint: str | None = None,
        headers: HeadersFile | None = None,
    ) -> None:
        self._reactor = reactor
        self._agent = agent
        self._connect_timeout_seconds = connect_timeout_seconds
        self._trust_root = trust_root_of(ca_file, fingerprint)
        self._headers = headers
        self._open = _Connections()

    async def exchange(
        self, method: str, url: str, body: bytes | None, *, max_bytes: int = MAX_ANSWER_BYTES
    ) -> tuple[int, bytes]:
        """Return the status and the body of the answer, which has at most ``max_bytes``.

        Raises AnswerTooLongError, and what ``open`` raises.
        """
        answer = await self.open(method, url, body)
        received = await answer.read(max_bytes + 1)
        if len(received) > max_bytes:
            answer.abort()
            raise AnswerTooLongError(answer.status, received[:MAX_ANSWER_BYTES], max_bytes)
        return answer.status, received

    async def open(self, method: str, url: str, body: bytes | None) -> Answer:
        """Return the answer as soon as its headers are there.

        Raises NoAnswerError, and CancelledError when it was cancelled; Twisted's agent fails in several ways then.
        Redirects are not followed.
        """
        is_cancelled = False

        def cancel(_outcome: Deferred[Answer]) -> None:
            nonlocal is_cancelled
            is_cancelled = True
            opening.cancel()

        outcome: Deferred[Answer] = Deferred(cancel)
        opening = Deferred.fromCoroutine(self._request(method, url, body))
        opening.addCallbacks(outcome.callback, outcome.errback)
        try:
            return await outcome
        except _NO_ANSWER as error:
            if is_cancelled:
                raise CancelledError from error
            raise NoAnswerError(_reason(error)) from error

    async def _request(self, method: str, url: str, body: bytes | None) -> Answer:
        try:
            headers = self._headers.read() if self._headers is not None else {}
        except ConfigError as error:
            raise NoAnswerError(str(error)) from error
        endpoints = _Endpoints(self._reactor, self._connect_timeout_seconds, self._trust_root, self._open)
        if body is not None:
            headers["Content-Type"] = "application/json"
        agent = self._agent or Agent.usingEndpointFactory(self._reactor, endpoints)
        # A client of its own for each request: treq's would keep cookies.
        client = HTTPClient(agent, data_to_body_producer=_BytesProducer)
        try:
            response = await client.request(
                method,
                url,
                headers=Headers({name: [value] for name, value in headers.items()}),
                data=body,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
        except BaseException:
            endpoints.abort_connections()
            raise
        received = _Body()
        cast(IResponse, response).deliverBody(received)
        return Answer(response.code, received, endpoints.abort_connections)

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

    __slots__ = ("when_empty",)

    def __init__(self) -> None:
        super().__init__()
        self.when_empty: Waiters[None] = Waiters()

    def lose(self, connection: ProtocolWrapper) -> None:
        self.discard(connection)
        if not self:
            self.when_empty.fire(None)


class _Body(Protocol):
    """Holds what has come of an answer's body, and pauses the connection while nobody reads."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._wanted = 0
        self._reading: Deferred[bytes] | None = None
        self._end: Failure | None = None

    def read(self, size: int) -> Deferred[bytes]:
        """Fire with at least ``size`` bytes, or with the rest; one at a time."""
        reading: Deferred[bytes] = Deferred(self._stop_reading)
        self._reading, self._wanted = reading, size
        self._answer_reader()
        if self._reading is not None and self.transport is not None:
            cast(IPushProducer, self.transport).resumeProducing()
        return reading

    def close(self) -> None:
        if self._end is None and self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        self._answer_reader()
        if self._reading is None and self.transport is not None:
            cast(IPushProducer, self.transport).pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end = reason
        self._answer_reader()

    def _answer_reader(self) -> None:
        reading = self._reading
        if reading is None or (self._end is None and len(self._received) < self._wanted):
            return
        self._reading = None
        # An answer without a length ends with its connection. Whether it is whole is seen when it is decoded.
        if self._end is not None and not self._end.check(ResponseDone, PotentialDataLoss):
            reading.errback(self._end)
            return
        received, self._received = self._received, bytearray()
        reading.callback(bytes(received))

    def _stop_reading(self, _reading: Deferred[bytes]) -> None:
        self._reading = None


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

    def __init__(
        self, reactor: Any, connect_timeout_seconds: float, trust_root: Any, open_connections: _Connections
    ) -> None:
        self._reactor = reactor
        self._trust_root = trust_root
        self._connect_timeout_seconds = connect_timeout_seconds
        self._open = open_connections
        self._factories: list[_WatchedFactory] = []

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        host = uri.host.decode("ascii")
        endpoint = tcp_endpoint(self._reactor, host, uri.port, timeout_seconds=self._connect_timeout_seconds)
        if uri.scheme == b"https":
            endpoint = tls_endpoint(self._reactor, endpoint, host, self._trust_root)
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
    if isinstance(error, ConnectionDone):
        # Twisted calls that clean: the kernel closes the sockets of a process that was killed.
        return "the other side closed the connection without a complete answer"
    causes = [reason.value for reason in getattr(error, "reasons", ()) if reason.value is not None]
    return "; ".join(_reason(cause) for cause in causes) or str(error).rstrip(".") or type(error).__name__
