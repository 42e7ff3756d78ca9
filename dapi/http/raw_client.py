"""One HTTP request whose target and body go out byte for byte as they are given.

Agents of Twisted and treq take a URL apart and put it together again, and hold a body whole. A relay must do neither.
The protocol itself is h11's.

A connection (``_Connection``) is in one of these states, and LOST after any of them::

       request            whole answer, and another request may follow
    NEW ─────▶ BUSY ────────────────────────────────────────────────────▶ IDLE
     │         │  ▲                    next request                        │
     │         │  └────────────────────────────────────────────────────────┤
     │         │ answered without that, cancelled, failed                  │ quiet, something comes, client closed
     │         ▼                                                           │
     └─────▶ CLOSING ◀─────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import contextlib
import enum
import errno
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast
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
from dapi.timing.steps import step
from dapi.timing.timer import Timer
from dapi.timing.waiters import Waiters

PIECE_BYTES = 512 * 1024
MAX_ANSWER_BYTES = 64 * 1024
# One that the network has cut in silence is not used for much longer than it was in order.
_IDLE_SECONDS = 2.0


class BodySource(Interface):
    """Where the body of a request comes from."""

    @property
    def length(self) -> int:
        """How many bytes it has."""

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fire with ``size`` bytes from ``offset`` on, fewer only at the end."""


class BytesSource:
    """A body in memory, which must not change any more."""

    def __init__(self, body: bytes | bytearray) -> None:
        self.length = len(body)
        self._body = body

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fire with a part of it."""
        return succeed(bytes(self._body[offset : offset + size]))


class RawAnswer(NamedTuple):
    """The answer to a request; of its body no more than the first 64 KiB are kept."""

    status: int
    content_type: bytes | None
    body: bytes


class ConnectionState(enum.Enum):
    """What a connection is at; see the drawing at the top of this file."""

    NEW = "new"
    BUSY = "busy"
    IDLE = "idle"
    CLOSING = "closing"
    LOST = "lost"


_S = ConnectionState
TRANSITIONS: Final[Mapping[ConnectionState, frozenset[ConnectionState]]] = {
    _S.NEW: frozenset({_S.BUSY, _S.CLOSING, _S.LOST}),
    _S.BUSY: frozenset({_S.IDLE, _S.CLOSING, _S.LOST}),
    _S.IDLE: frozenset({_S.BUSY, _S.CLOSING, _S.LOST}),
    _S.CLOSING: frozenset({_S.LOST}),
    _S.LOST: frozenset(),
}


class _StaleError(NoAnswerError):
    """A connection that was used before ended without a byte of the answer: the other side had closed it by then."""


class RawClient:
    """Makes requests to one server; ``base_url`` may be http or https.

    A path in ``base_url`` goes before each target. Redirects are not followed. Of the connections that are answered,
    ``max_idle`` at most are kept for the next requests, each for 2 s. A request that finds such a one closed by the
    other side goes again at once, over a new one: so whoever wants one that is never made twice lets ``max_idle`` be 0.
    """

    def __init__(
        self,
        reactor: Any,
        base_url: str,
        *,
        connect_timeout_seconds: float,
        ca_file: str | None,
        max_idle: int = 0,
    ) -> None:
        url = parse_url(base_url)
        self._reactor = reactor
        self._max_idle = max_idle
        self._prefix = "".join(f"/{part}" for part in url.path if part).encode()
        self._host = url.host
        port = url.port or (443 if url.scheme == "https" else 80)
        self._host_header = f"{f'[{url.host}]' if ':' in url.host else url.host}:{port}".encode()
        self._endpoint: IStreamClientEndpoint = tcp_endpoint(
            reactor, url.host, port, timeout_seconds=connect_timeout_seconds
        )
        if url.scheme == "https":
            self._endpoint = tls_endpoint(reactor, self._endpoint, url.host, trust_root_of(ca_file))
        self._open: set[_Connection] = set()
        # The one that was used last is at the end, and used first: the others may go.
        self._idle: list[_Connection] = []
        self._when_empty: Waiters[None] = Waiters()

    async def request(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: BodySource
    ) -> RawAnswer:
        """Return the answer; raises NoAnswerError when there is none, and what reading the body raises.

        A body that ends before its length is an OSError, too. A cancel ends the request and its connection.
        """
        close = [] if self._max_idle else [(b"Connection", b"close")]
        head = h11.Request(
            method=method,
            target=self._prefix + target,
            headers=[
                (b"Host", self._host_header),
                *headers,
                (b"Content-Length", b"%d" % body.length),
                *close,
            ],
        )
        while self._idle:
            connection = self._idle.pop()
            if connection.state is ConnectionState.IDLE:
                with contextlib.suppress(_StaleError):
                    return await self._run(connection, head, body)
        return await self._run(await self._connect(), head, body)

    def close(self) -> Deferred[None]:
        """Abort what is left; fires when no connection is open."""
        for connection in list(self._open):
            connection.abort()
        return self._when_empty.wait() if self._open else succeed(None)

    async def _connect(self) -> _Connection:
        try:
            connection = await self._endpoint.connect(_Connections(self._reactor, self._lost))
        except ConnectingCancelledError as error:
            # Twisted's own error for it, which nobody who cancels expects.
            raise CancelledError from error
        except (ConnectError, OSError) as error:
            raise NoAnswerError(str(error) or type(error).__name__) from error
        self._open.add(cast(_Connection, connection))
        return cast(_Connection, connection)

    async def _run(self, connection: _Connection, head: h11.Request, body: BodySource) -> RawAnswer:
        try:
            answer = await connection.run(head, body)
        except BaseException:
            connection.abort()
            raise
        if len(self._idle) < self._max_idle and connection.rest():
            self._idle.append(connection)
        else:
            connection.abort()
        return answer

    def _lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._open:
            self._when_empty.fire(None)


class _Connections(Factory):
    noisy = False

    def __init__(self, reactor: Any, lost: Callable[[_Connection], None]) -> None:
        self._reactor = reactor
        self._lost = lost

    def buildProtocol(self, addr: Any) -> _Connection:
        return _Connection(self._reactor, self._lost)


@implementer(IPushProducer)
class _Connection(Protocol):
    """One connection: a request and its answer, and then, it may be, the next request."""

    def __init__(self, reactor: Any, lost: Callable[[_Connection], None]) -> None:
        self.state = ConnectionState.NEW
        self._lost = lost
        self._http = h11.Connection(h11.CLIENT)
        self._may_write: Waiters[None] = Waiters()
        self._is_paused = False
        self._is_first = True
        self._quiet = Timer(reactor, _IDLE_SECONDS, self.abort)
        self._begin()

    def _begin(self) -> None:
        self._outcome: Deferred[RawAnswer] = Deferred()
        self._status: h11.Response | None = None
        self._has_received = False
        self._received = bytearray()

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        cast(IConsumer, transport).registerProducer(self, True)

    def run(self, head: h11.Request, body: BodySource) -> Deferred[RawAnswer]:
        """Make a request; fires with its answer."""
        self._turn(ConnectionState.BUSY)
        return Deferred.fromCoroutine(self._run(head, body))

    def rest(self) -> bool:
        """Wait for the next request, after an answer; return False where none can follow on this connection."""
        http = self._http
        is_whole = http.our_state is h11.DONE and http.their_state is h11.DONE and not http.trailing_data[0]
        if self.state is not ConnectionState.BUSY or not is_whole:
            return False
        self._turn(ConnectionState.IDLE)
        http.start_next_cycle()
        self._is_first = False
        self._begin()
        return True

    def _turn(self, state: ConnectionState) -> None:
        self.state = step(TRANSITIONS, self.state, state, "a connection")
        if state is ConnectionState.IDLE:
            self._quiet.start()
        else:
            self._quiet.rest()

    async def _run(self, head: h11.Request, body: BodySource) -> RawAnswer:
        transport = cast(Any, self.transport)
        transport.write(self._http.send(head))
        offset = 0
        while offset < body.length and not self._is_over():
            piece = await body.read(offset, PIECE_BYTES)
            if not piece:
                raise OSError(errno.ENODATA, "the body to be sent is shorter than it was")
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
        """Close at once; a request under way is cancelled."""
        if self.state not in (ConnectionState.CLOSING, ConnectionState.LOST):
            self._turn(ConnectionState.CLOSING)
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
        if self.state is ConnectionState.IDLE:
            # Nobody has asked for it.
            self.abort()
        if self.state is not ConnectionState.BUSY or self._outcome.called:
            return
        self._has_received = True
        try:
            self._http.receive_data(data)
            self._read_events()
        except h11.RemoteProtocolError as error:
            self._end(Failure(NoAnswerError(f"the answer is no HTTP: {error}")))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        was_busy = self.state is ConnectionState.BUSY
        self._turn(ConnectionState.LOST)
        self._quiet.cancel()
        if was_busy and not self._outcome.called:
            # An answer without a length ends with its connection.
            with contextlib.suppress(h11.RemoteProtocolError):
                self._http.receive_data(b"")
                self._read_events()
        if was_busy and not self._outcome.called:
            is_stale = not self._is_first and not self._has_received
            kind = _StaleError if is_stale else NoAnswerError
            self._end(Failure(kind("the other side closed the connection without a complete answer")))
        self.resumeProducing()
        self._lost(self)

    def _read_events(self) -> None:
        # Whoever gets the outcome may have begun the next request when it returns.
        outcome = self._outcome
        while not outcome.called:
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
            self._end(RawAnswer(self._status.status_code, headers.get(b"content-type"), body))

    def _end(self, outcome: RawAnswer | Failure) -> None:
        self._outcome.callback(outcome)
        # Whoever has answered may read nothing more of the request.
        self._may_write.fire(None)
