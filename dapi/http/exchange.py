"""One HTTP request and its answer, whole and bounded or in pieces, over a connection of its own.

The clients of the ML nodes and of the chain stand on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from hyperlink import URL
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from dapi.errors import ConfigError
from dapi.http.endpoints import trust_root_of
from dapi.http.headers_file import HeadersFile
from dapi.http.watched import OpenConnections, WatchedEndpoints

MAX_ANSWER_BYTES = 65536
_MAX_REASON = 300


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
        self._open = OpenConnections()

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

        def pass_on(result: Answer | Failure) -> None:
            # What is cancelled while it waits for the disk ends later.
            if not outcome.called:
                outcome.callback(result)
            elif isinstance(result, Answer):
                result.abort()

        opening = Deferred.fromCoroutine(self._request(method, url, body))
        opening.addBoth(pass_on)
        try:
            return await outcome
        except _NO_ANSWER as error:
            if is_cancelled:
                raise CancelledError from error
            raise NoAnswerError(_reason(error)) from error

    async def _request(self, method: str, url: str, body: bytes | None) -> Answer:
        try:
            headers = await self._headers.read_on_thread(self._reactor) if self._headers is not None else {}
        except ConfigError as error:
            raise NoAnswerError(str(error)) from error
        endpoints = WatchedEndpoints(self._reactor, self._connect_timeout_seconds, self._trust_root, self._open)
        if body is not None:
            headers["Content-Type"] = "application/json"
        # Not treq's client: it decompresses what comes, and 64 KiB may become 64 MiB at once.
        agent = self._agent or Agent.usingEndpointFactory(self._reactor, endpoints)
        try:
            response = await agent.request(
                method.encode("ascii"),
                URL.from_text(url).to_uri().to_text().encode("ascii"),
                Headers({name: [value] for name, value in headers.items()}),
                _BytesProducer(body) if body is not None else None,
            )
        except BaseException as error:
            endpoints.abort_connections()
            if endpoints.problem is not None and not isinstance(error, CancelledError):
                raise NoAnswerError(endpoints.problem) from error
            raise
        endpoints.head_has_come()
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
    if isinstance(error, ValueError | AttributeError):
        # Twisted stumbles over a header that is none.
        return "the answer is no HTTP"
    causes = [reason.value for reason in getattr(error, "reasons", ()) if reason.value is not None]
    # It may quote a line of the answer.
    return "; ".join(_reason(cause) for cause in causes) or str(error).rstrip(".")[:_MAX_REASON] or type(error).__name__
