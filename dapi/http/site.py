# mypy: disallow-untyped-calls=False
# ruff: noqa: N802
# twisted.web is mostly without annotations, and has names of its own.
"""An HTTP server that bounds what clients use: bytes, connections, and time.

``twisted.web`` reads a whole body (spooling it into a file) before a handler runs, restarts its idle timeout with every
byte, and counts no connections. Here a body is refused by its declared length, a request has one deadline from its
first byte to its answer, and every answer to a fault is JSON ``{"error": …}``.

Each connection is a ``JsonChannel`` (channel.py), each request a ``JsonRequest`` (request.py).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from io import BytesIO
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.http import datetimeToString
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from dapi.http.answers import HttpError
from dapi.http.channel import ChannelState, JsonChannel
from dapi.http.request import JsonRequest
from dapi.http.settings import HttpCounts, HttpSettings
from dapi.http.shares import Shares
from dapi.http.streams import Streams
from dapi.timing.fair_share import FairShare
from dapi.timing.timer import Timer
from dapi.timing.waiters import Waiters

# As a part of the memory for all bodies.
_LITTLE = 8


def _admit_all(path: bytes, address: str) -> Hashable:
    """Refuse no request for its path, and know nobody."""
    return None


class JsonSite(Site):
    """A site of bounded requests; see HttpSettings for the bounds and HttpCounts for what is counted.

    ``admit`` looks at the path of each request, and the address that it came from, when its head has come: what it
    raises (HttpError, or an error of ours) is answered, and the body is not read. It returns who the caller is, None
    where nobody is known. Connections are shared among addresses, the memory for bodies among the known callers.
    ``streams`` takes the bodies of its own requests while they come. With ``share``, the reactor's thread is shared
    among addresses, and the known callers.
    """

    protocol = JsonChannel  # type: ignore[assignment]  # without HTTP/2, which only TLS can negotiate
    noisy = False
    log_ = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        resource: IResource,
        settings: HttpSettings | None = None,
        *,
        admit: Callable[[bytes, str], Hashable] = _admit_all,
        streams: Streams | None = None,
        share: FairShare | None = None,
    ) -> None:
        self.streams = streams
        self.settings = settings or HttpSettings()
        self._admit = admit
        super().__init__(
            resource,
            JsonRequest,
            reactor=reactor,
            timeout=self.settings.idle_seconds,
            parsePOSTFormSubmission=False,
        )
        self.share = share
        self.counts = HttpCounts()
        self._bodies = Shares(self.settings.max_buffered_bytes)
        self._requests: Counter[Hashable] = Counter()
        self.is_stopping = False
        self._channels: set[JsonChannel] = set()
        self._peers = Shares(self.settings.max_connections)
        self._is_full = False
        self._when_empty: Waiters[None] = Waiters()
        self._date = (0, b"")

    def date(self) -> bytes:
        """Return the time as the header of an answer has it; it is made once a second."""
        second = int(time.time())
        if second != self._date[0]:
            self._date = second, datetimeToString(second)
        return self._date[1]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._channels)

    def max_body_bytes(self, target: bytes) -> int:
        """Return how large the body of a request may be."""
        streams = self.streams
        is_streamed = streams is not None and streams.takes(target)
        return streams.max_body_bytes if streams is not None and is_streamed else self.settings.max_body_bytes

    @property
    def buffered_bytes(self) -> int:
        """How many bytes of bodies are in memory."""
        return self._bodies.total

    def begin_request(self, path: bytes, address: str) -> Hashable:
        """Let a request begin, and return who makes it; raises HttpError, or an error of ours, when it must not."""
        caller = self._admit(path, address)
        if caller is not None and self._requests[caller] >= self.settings.max_requests_per_caller:
            raise HttpError(503, f"more than {self.settings.max_requests_per_caller} requests at once, try again")
        self._requests[caller] += 1
        return caller

    def end_request(self, caller: Hashable, holder: Hashable, buffered_bytes: int) -> None:
        """End a request that was begun, and give back what its body took."""
        self._requests[caller] -= 1
        if not self._requests[caller]:
            del self._requests[caller]
        self._bodies.give_back(holder, buffered_bytes)

    def make_room(self, holder: Hashable, size: int, own_bytes: int | None) -> bool:
        """Take room for so many bytes of a body; return whether there was any.

        ``holder`` is the caller, or an address. A body of ``own_bytes`` so far may go on where its holder has little
        besides, as long as there is room for all together; None: it may not.
        """
        bodies, limit = self._bodies, self.settings.max_buffered_bytes
        is_alone = own_bytes is not None and bodies.held_by(holder) - own_bytes <= limit // _LITTLE
        if bodies.total + size > limit or not (is_alone or bodies.may_take(holder, size)):
            return False
        bodies.take(holder, size)
        return True

    def acceptableProtocols(self) -> list[bytes]:
        """Return what a TLS client may negotiate: without HTTP/2, which JsonChannel does not speak."""
        return [b"http/1.1"]

    def getContentFile(self, length: int) -> BytesIO:
        """Return where a body is kept: never on a disk that may be full, or hang."""
        return BytesIO()

    def startFactory(self) -> None:
        """Start nothing: there is no access log."""

    def stopFactory(self) -> None:
        """Stop nothing."""

    def log(self, request: Request) -> None:  # type: ignore[override]
        """Count an answer; twisted.web calls this where others write an access log."""
        self.answered(request.code)

    def answered(self, code: int) -> None:
        """Count an answer of this status."""
        self.counts.answers[code] = self.counts.answers.get(code, 0) + 1

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Accept a connection, or close it at once (None) when there are too many, in all or from its peer."""
        peer = cast(IPv4Address | IPv6Address, addr).host
        total, of_peer = len(self._channels), self._peers.held_by(peer)
        if self._peers.may_take(peer):
            return super().buildProtocol(addr)
        self.counts.connections_refused += 1
        if not self._is_full:
            self._is_full = True
            self.log_.warn(
                "{total} connections, {of_peer} of them from {peer}, are too many: its new ones are closed",
                total=total,
                of_peer=of_peer,
                peer=peer,
            )
        return None

    def opened(self, channel: JsonChannel) -> None:
        """Count a connection in."""
        self._channels.add(channel)
        self._peers.take(channel.peer_host)

    def closed(self, channel: JsonChannel) -> None:
        """Count a connection out."""
        self._channels.discard(channel)
        self._peers.give_back(channel.peer_host)
        # Not at the first that goes, or a crowd that comes and goes would fill the log.
        if self._is_full and len(self._channels) <= self.settings.max_connections // 4:
            self._is_full = False
            self.log_.info("no longer too many connections")
        if not self._channels:
            self._when_empty.fire(None)

    def close_connections(self) -> Deferred[None]:
        """Close idle connections at once, the others when their request is answered, all after ``drain_seconds``.

        The Deferred fires when none is left.
        """
        self.is_stopping = True
        if not self._channels:
            return succeed(None)
        abort = Timer(self.reactor, self.settings.drain_seconds, self._abort_all)
        abort.start()
        all_closed = self._when_empty.wait().addCallback(lambda _: abort.cancel())
        for channel in list(self._channels):
            if channel.state in (ChannelState.IDLE, ChannelState.ENDLESS):
                channel.loseConnection()
        return all_closed

    def _abort_all(self) -> None:
        for channel in list(self._channels):
            channel.abort()
