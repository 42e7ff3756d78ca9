# mypy: disallow-untyped-calls=False
# ruff: noqa: N802, N815
# twisted.web is mostly without annotations, and has names of its own.
"""One connection to the HTTP server in site.py, and how long each phase of a request may take.

A connection (``JsonChannel``) is in one of these states, and lost in any of them::

            first byte              whole request            has no end
    IDLE ───────────────▶ RECEIVING ─────────────▶ ANSWERING ────────────▶ ENDLESS
     │ ▲                   │     │                     │                      │
     │ └───────────────────┼─────┼──── answered ───────┴──────────────────────┘
     │ quiet for too long, │     │ too large, too late, malformed,
     │ last answer, stop   │     │ or no room for its body
     ▼                     │     ▼
    CLOSING ◀──── quiet ───┘  REFUSED

The deadline runs while a request is received and answered. An answer without an end has no deadline: its handler calls
``answer_without_end``. What comes on a REFUSED connection is dropped, so that the client reads the refusal; one that is
REFUSED or CLOSING is aborted after ``linger_seconds``.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReactorTime, ISSLTransport, ITCPTransport
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel
from twisted.web.server import Request

from dapi.errors import DapiError
from dapi.http.answers import RETRY_AFTER_SECONDS, HttpError, error_body, status_of
from dapi.http.plain_head import PlainHead, plain_head
from dapi.http.settings import HttpSettings
from dapi.http.streams import StreamedContent, Streams
from dapi.http.turns import Turns
from dapi.timing.fair_share import FairShare
from dapi.timing.steps import step
from dapi.timing.timer import Timer

_REQUEST_TIMEOUT = 408
# Of those that come at once. Whoever sends more does so again over another connection: all others wait meanwhile.
_MAX_PIPELINED = 16
# Twisted reads 64 KiB at a time, and each turn of that costs as much as hashing them.
_STREAM_READ_BYTES = 256 * 1024


class ChannelState(enum.Enum):
    """What a connection is at; see the drawing at the top of this file."""

    IDLE = "idle"
    RECEIVING = "receiving"
    ANSWERING = "answering"
    ENDLESS = "endless"
    REFUSED = "refused"
    CLOSING = "closing"
    LOST = "lost"


_IDLE, _RECEIVING, _ANSWERING, _ENDLESS, _REFUSED, _CLOSING, _LOST = ChannelState
TRANSITIONS: Final[dict[ChannelState, set[ChannelState]]] = {
    _IDLE: {_RECEIVING, _CLOSING, _LOST},
    _RECEIVING: {_ANSWERING, _REFUSED, _CLOSING, _LOST},
    _ANSWERING: {_IDLE, _ENDLESS, _LOST},
    _ENDLESS: {_IDLE, _LOST},
    _REFUSED: {_LOST},
    _CLOSING: {_LOST},
    _LOST: set(),
}
"""The states that may follow each state."""


class ChannelServer(Protocol):
    """What a connection needs of its server, a JsonSite."""

    settings: HttpSettings
    reactor: IReactorTime
    is_stopping: bool
    streams: Streams | None
    share: FairShare | None

    def opened(self, channel: JsonChannel) -> None:
        """Count a connection in."""

    def closed(self, channel: JsonChannel) -> None:
        """Count a connection out."""

    def answered(self, code: int) -> None:
        """Count an answer of this status."""

    def max_body_bytes(self, target: bytes) -> int:
        """Return how large the body of a request may be."""

    def begin_request(self, path: bytes, address: str) -> Hashable:
        """Let a request begin, and return who makes it; raises HttpError, or an error of ours, when it must not."""

    def end_request(self, caller: Hashable, holder: Hashable, buffered_bytes: int) -> None:
        """End a request that was begun, and give back what its body took."""

    def make_room(self, holder: Hashable, size: int, own_bytes: int | None) -> bool:
        """Take room for so many bytes of a body, which had ``own_bytes`` before; return whether there was any."""


class JsonChannel(HTTPChannel):
    """One connection: HTTP/1.1 with a time for the head of each request, and a deadline for all of it."""

    site: ChannelServer
    transport: Any  # besides ITransport: abortConnection, unregisterProducer, and a writing side to close
    persistent: bool
    timeOut: float | None  # type: ignore[assignment]  # seconds, whole ones to TimeoutMixin
    _path: bytes  # of HTTPChannel, from the request line on

    def connectionMade(self) -> None:
        """Begin, and be counted."""
        settings, clock = self.site.settings, self.site.reactor
        self._quiet = Timer(clock, settings.idle_seconds, self.timeoutConnection)
        super().connectionMade()
        self.state = ChannelState.IDLE
        self._host, self._peer = self.transport.getHost(), self.transport.getPeer()
        self.peer_host: str = self._peer.host
        self._head = Timer(clock, settings.head_seconds, self._too_late)
        self._deadline = Timer(clock, settings.deadline_seconds, self._too_late)
        self._linger = Timer(clock, settings.linger_seconds, self.abort)
        self._caller: Hashable = None
        self._holder: Hashable = None
        self._has_begun = False
        self._buffered_bytes = 0
        self._answered_at_once = 0
        self.turns = Turns(self.site.share, self.transport, self.peer_host)
        # Whoever connects has something to say.
        self.setTimeout(settings.head_seconds)
        self.site.opened(self)

    def getHost(self) -> Any:
        """Return the address of this side; the system is asked once."""
        return self._host

    def getPeer(self) -> Any:
        """Return the address of the client."""
        return self._peer

    def turn(self, state: ChannelState) -> None:
        """Go to another state; raises RuntimeError when the drawing has no such way."""
        self.state = step(TRANSITIONS, self.state, state, "a connection")
        if state is ChannelState.RECEIVING:
            self._head.start()
            self._deadline.start()
        elif state is not ChannelState.ANSWERING:
            self._head.rest()
            self._deadline.rest()
            if self._has_begun:
                self.site.end_request(self._caller, self._holder, self._buffered_bytes)
            self._has_begun, self._buffered_bytes = False, 0
            self.turns.forget()
        if self._is_over:
            # What still comes is read, and dropped.
            self.turns.end()

    @property
    def _is_over(self) -> bool:
        """Whether everything that still comes is dropped."""
        return self.state in (ChannelState.REFUSED, ChannelState.CLOSING, ChannelState.LOST)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Stop every timer; the handler of the request under way is cancelled."""
        self.turn(ChannelState.LOST)
        super().connectionLost(reason)
        for timer in (self._quiet, self._head, self._deadline, self._linger):
            timer.cancel()
        self.site.closed(self)

    def dataReceived(self, data: bytes) -> None:
        """Start the deadline with the first byte of a request."""
        if self._is_over:
            return
        self.turns.take(self._receive, data)

    def _receive(self, data: bytes) -> None:
        self._answered_at_once = 0
        is_first = self.state is ChannelState.IDLE and not self._busyReceiving and not self._buffer
        self._begin_request()
        # Where another request comes behind it, twisted.web takes them apart.
        if is_first and (head := plain_head(data)) is not None and len(data) <= head.size + head.length:
            self._plain_received(head, data[head.size :])
        else:
            super().dataReceived(data)

    def _plain_received(self, head: PlainHead, body: bytes) -> None:
        """Begin a request whose head came at once, with what came of its body; all is then as after its last line."""
        self.resetTimeout()
        request: Any = self.requestFactory(self)
        request.plain = head
        self.requests.append(request)
        self._command, self._path, self._version = b"POST", head.target, b"HTTP/1.1"
        self.length = head.length
        if not self._admit():
            return
        request.gotLength(head.length)
        if len(body) < head.length:
            self._maybeChooseTransferDecoder(b"Content-Length", b"%d" % head.length)
            self.setRawMode()
            super().dataReceived(body)
            return
        if body:
            request.handleContentChunk(body)
        self.allContentReceived()

    def lineReceived(self, line: bytes) -> None:
        """Handle a header line; it may be of a pipelined request, which came together with the one before."""
        if not self._is_over:
            self._begin_request()
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        """Handle a part of the body, unless the request is refused already."""
        if not self._is_over:
            super().rawDataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a header line without an end."""
        self.refuse(400, "a header line is too long")

    def headerReceived(self, line: bytes) -> bool:
        """Handle one header; return False when it is no valid one."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # int() refuses a Content-Length of thousands of digits.
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        """Refuse by the path or the declared length, before any of the body is read."""
        if self._admit():
            super().allHeadersReceived()

    def _admit(self) -> bool:
        """Tell whether the body of a request may come, whose head has come; refuse it when it may not."""
        self._head.rest()
        try:
            self._caller = self.site.begin_request(self._path, self.peer_host)
        except (DapiError, HttpError) as error:
            self.refuse(status_of(error), str(error))
            return False
        self._has_begun = True
        self._holder = self.peer_host if self._caller is None else self._caller
        self.turns.belongs_to(self._caller)
        limit = self.site.max_body_bytes(self._path)
        if self.length is None:
            self.refuse(411, "send the body with a Content-Length")
        elif self.length > limit:
            self.refuse(413, f"the body has {self.length} bytes, at most {limit} are taken")
        elif (streams := self._streams()) is not None:
            try:
                streams.check_room(self.length, self.peer_host)
            except HttpError as error:
                self.refuse(error.code, str(error))
        return not self._is_over

    def open_stream(self, length: int) -> StreamedContent | None:
        """Return where the body goes that is about to come, None where it is held in memory as usual."""
        streams, transport = self._streams(), self.transport
        if streams is None:
            return None
        # What is streamed takes little of the thread at a time, and has bounds of its own.
        self.turns.end()
        transport.bufferSize = _STREAM_READ_BYTES

        def resume() -> None:
            if self.state is ChannelState.RECEIVING:
                transport.resumeProducing()

        body = streams.open_body(self._path, length, self.peer_host, pause=transport.pauseProducing, resume=resume)
        return StreamedContent(streams, body)

    def _streams(self) -> Streams | None:
        """Return who takes the body of this request while it comes, None: nobody."""
        streams = self.site.streams
        return streams if streams is not None and streams.takes(self._path) else None

    def allContentReceived(self) -> None:
        """Hand over a whole request, unless the last part of its body found no room."""
        if not self._is_over:
            self.turn(ChannelState.ANSWERING)
            super().allContentReceived()

    def answer_without_end(self) -> None:
        """Let the answer go on for as long as the client stays; when the server stops, it ends at once."""
        self.turn(ChannelState.ENDLESS)

    def requestDone(self, request: Request) -> None:
        """End an answered request; go on with the next one unless the server is stopping, or too many came at once."""
        self.turn(ChannelState.IDLE)
        self._answered_at_once += 1
        if self.site.is_stopping or self._answered_at_once >= _MAX_PIPELINED:
            self.persistent = False
        super().requestDone(request)

    def loseConnection(self) -> None:
        """Close, once the client has read what is written already, or ``linger_seconds`` later."""
        if self.state is ChannelState.ENDLESS:
            self.abort()
        elif self.state in (ChannelState.IDLE, ChannelState.RECEIVING):
            self.turn(ChannelState.CLOSING)
            self._linger.start()
        super().loseConnection()

    def setTimeout(self, period: float | None) -> float | None:
        """Close the connection when it is quiet for so many seconds, None: never; return what was so before."""
        before, self.timeOut = self.timeOut, period
        if period is None:
            self._quiet.rest()
        else:
            self._quiet.start(period)
        return before

    def resetTimeout(self) -> None:
        """Hear that the connection was not quiet."""
        if self.timeOut is not None:
            self._quiet.start(self.timeOut)

    def timeoutConnection(self) -> None:
        """Close a connection that was quiet for too long; Twisted would log each of them."""
        self.loseConnection()

    def abort(self) -> None:
        """Close at once, and drop what the client has not read."""
        self.transport.abortConnection()

    def make_room(self, size: int) -> bool:
        """Tell whether ``size`` more bytes of a body may be kept; refuse the request when they may not."""
        if self._is_over:
            return False
        # An address may be that of many senders.
        own_bytes = self._buffered_bytes if self._caller is None else None
        if not self.site.make_room(self._holder, size, own_bytes):
            self.refuse(503, "too many bodies at once, try again")
            return False
        self._buffered_bytes += size
        return True

    def refuse(self, code: int, message: str) -> None:
        """Answer a request that is not read any further, and close."""
        if self._is_over:
            return
        self.turn(ChannelState.REFUSED)
        self.setTimeout(None)
        for request in self.requests:
            # Its room was given back, and the client may stay for a while.
            request.drop_body()
        body = error_body(message)
        head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n"
        retry = b"Retry-After: %d\r\n" % RETRY_AFTER_SECONDS if code == 503 else b""
        transport = self.transport
        transport.write(head % (code, RESPONSES[code], len(body)) + retry + b"\r\n" + body)
        self.site.answered(code)
        self._linger.start()
        transport.unregisterProducer()
        if ISSLTransport.providedBy(transport):
            # Says that nothing more comes, and goes on reading until the client says so, too.
            transport.loseConnection()
        elif ITCPTransport.providedBy(transport):
            # A full close while the client still sends makes the kernel reset the connection, and the answer is lost
            # with it. So only the writing side ends here; the rest is read, dropped, and bounded in time.
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(400, "malformed HTTP")

    def _begin_request(self) -> None:
        if self.state is ChannelState.IDLE:
            self.turn(ChannelState.RECEIVING)
            self.setTimeout(self.site.settings.idle_seconds)

    def _too_late(self) -> None:
        if self.state is ChannelState.RECEIVING:
            self.refuse(_REQUEST_TIMEOUT, "the request did not arrive in time")
        elif self.requests[0].startedWriting:
            self.abort()
        else:
            self.requests[0].answer_too_late()
