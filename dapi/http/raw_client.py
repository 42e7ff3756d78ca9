"""One HTTP request whose target and body go out byte for byte as they are given.

Agents of Twisted and treq take a URL apart and put it together again, and hold a body whole. A relay must do neither.
The protocol itself is h11's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast
from typing import Protocol as Interface

import h11
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IConsumer, IPushProducer, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from dapi.http.endpoints import tcp_endpoint, tls_endpoint, trust_root_of
from dapi.http.exchange import NoAnswerError
from dapi.messages.urls import parse_url
from dapi.timing.waiters import Waiters

PIECE_BYTES = 256 * 1024
MAX_ANSWER_BYTES = 64 * 1024


class BodySource(Interface):
    """Where the body of a request comes from."""

    length: int

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fire with ``size`` bytes from ``offset`` on, fewer only at the end."""


class BytesSource:
    """A body in memory."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fire with a part of it."""
        return succeed(self._body[offset : offset + size])


class RawAnswer(NamedTuple):
    """The answer to a request; of its body no more than the first 64 KiB are kept."""

    status: int
    content_type: bytes | None
    body: bytes


class RawClient:
    """Makes requests to one server, each over a connection of its own; ``base_url`` may be http or https.

    A path in ``base_url`` goes before each target. Redirects are not followed.
    """

    def __init__(self, reactor: Any, base_url: str, *, connect_timeout_seconds: float, ca_file: str | None) -> None:
        url = parse_url(base_url)
        self._prefix = "".join(f"/{part}" for part in url.path if part).encode()
        self._host = url.host
        port = url.port or (443 if url.scheme == "https" else 80)
        self._host_header = f"{f'[{url.host}]' if ':' in url.host else url.host}:{port}".encode()
        self._endpoint: IStreamClientEndpoint = tcp_endpoint(
            reactor, url.host, port, timeout_seconds=connect_timeout_seconds
        )
        if url.scheme == "https":
            self._endpoint = tls_endpoint(reactor, self._endpoint, url.host, trust_root_of(ca_file))
        self._open: set[_Exchange] = set()
        self._when_empty: Waiters[None] = Waiters()

    async def request(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: BodySource
    ) -> RawAnswer:
        """Return the answer; raises NoAnswerError when there is none, and what reading the body raises.

        A cancel ends the request and its connection.
        """
        head = h11.Request(
            method=method,
            target=self._prefix + target,
            headers=[
                (b"Host", self._host_header),
                *headers,
                (b"Content-Length", b"%d" % body.length),
                (b"Connection", b"close"),
            ],
        )
        try:
            exchange = cast(_Exchange, await self._endpoint.connect(_Exchanges(self._closed)))
        except ConnectingCancelledError as error:
            # Twisted's own error for it, which nobody who cancels expects.
            raise CancelledError from error
        except (ConnectError, OSError) as error:
            raise NoAnswerError(str(error) or type(error).__name__) from error
        self._open.add(exchange)
        try:
            return await exchange.run(head, body)
        finally:
            exchange.abort()

    def close(self) -> Deferred[None]:
        """Abort what is left; fires when no connection is open."""
        for exchange in list(self._open):
            exchange.abort()
        return self._when_empty.wait() if self._open else succeed(None)

    def _closed(self, exchange: _Exchange) -> None:
        self._open.discard(exchange)
        if not self._open:
            self._when_empty.fire(None)


class _Exchanges(Factory):
    noisy = False

    def __init__(self, closed: Callable[[_Exchange], None]) -> None:
        self._closed = closed

    def buildProtocol(self, addr: Any) -> _Exchange:
        return _Exchange(self._closed)


@implementer(IPushProducer)
class _Exchange(Protocol):
    """One request and its answer on one connection."""

    def __init__(self, closed: Callable[[_Exchange], None]) -> None:
        self._closed = closed
        self._http = h11.Connection(h11.CLIENT)
        self._may_write: Waiters[None] = Waiters()
        self._is_paused = False
        self._outcome: Deferred[RawAnswer] = Deferred()
        self._status: h11.Response | None = None
        self._received = bytearray()

    async def run(self, head: h11.Request, body: BodySource) -> RawAnswer:
        transport = cast(Any, self.transport)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        cast(IConsumer, transport).registerProducer(self, True)
        transport.write(self._http.send(head))
        offset = 0
        while offset < body.length and not self._is_over():
            piece = await body.read(offset, PIECE_BYTES)
            if not piece:
                raise NoAnswerError("the body to be sent is shorter than it was")
            offset += len(piece)
            if self._is_over():
                break
            transport.write(self._http.send(h11.Data(data=piece)))
            if self._is_paused:
                await self._may_write.wait()
        if not self._is_over():
            transport.write(self._http.send(h11.EndOfMessage()) or b"")
        return await self._outcome

    def _is_over(self) -> bool:
        return self._outcome.called

    def abort(self) -> None:
        if self.transport is not None:
            cast(Any, self.transport).abortConnection()
        if not self._outcome.called:
            self._outcome.addErrback(lambda failure: failure.trap(CancelledError) and None)
            self._outcome.cancel()

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._may_write.fire(None)

    def stopProducing(self) -> None:
        self.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        if self._outcome.called:
            return
        try:
            self._http.receive_data(data)
            self._read_events()
        except h11.RemoteProtocolError as error:
            self._fail(f"the answer is no HTTP: {error}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._outcome.called:
            try:
                # An answer without a length ends with its connection.
                self._http.receive_data(b"")
                self._read_events()
            except h11.RemoteProtocolError:
                pass
        if not self._outcome.called:
            self._fail("the other side closed the connection without a complete answer")
        self.resumeProducing()
        self._closed(self)

    def _read_events(self) -> None:
        while not self._outcome.called:
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                self._status = event
            elif isinstance(event, h11.Data):
                self._received += event.data
                if len(self._received) >= MAX_ANSWER_BYTES:
                    self._answer()
            elif isinstance(event, h11.EndOfMessage):
                self._answer()
            elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return

    def _answer(self) -> None:
        if self._status is not None:
            headers = dict(self._status.headers)
            body = bytes(self._received[:MAX_ANSWER_BYTES])
            self._outcome.callback(RawAnswer(self._status.status_code, headers.get(b"content-type"), body))

    def _fail(self, reason: str) -> None:
        self._outcome.errback(Failure(NoAnswerError(reason)))
