# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""The stream that keeps the page current."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from zope.interface import implementer

from dapi.http.answers import HttpError
from dapi.http.request import JsonRequest
from dapi.server.page.minutes import ByWay, Minutes
from dapi.server.page.view import View, patch, view
from dapi.timing.loop import LoopService

LOOK_SECONDS = 2.0
MAX_READERS = 16
# A browser that has lost the stream asks again after this time.
_RETRY_MILLISECONDS = 3000


class LivePage(LoopService):
    """Looks at the status while somebody reads, and writes what has changed to all readers.

    ``status`` and ``restart`` give what those routes of the admin API show; ``counts`` gives what each node has
    delivered by way, for the chart. A reader gets a ``snapshot`` event first, and then ``patch`` events (view.py), all
    with the time ``at`` which they are of, in unix seconds. One that reads too slowly gets a snapshot once it has read
    what was written.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        status: Callable[[], Any],
        restart: Callable[[], Mapping[str, Any] | None],
        counts: Callable[[], Mapping[str, ByWay]],
    ) -> None:
        super().__init__(reactor)
        self._status = status
        self._restart = restart
        self._minutes = Minutes(counts)
        self._readers: list[_Reader] = []
        self._view: View | None = None

    def read(self, request: JsonRequest) -> Deferred[None]:
        """Stream to a request for as long as its client stays; the Deferred never fires by itself.

        Raises HttpError when too many read.
        """
        if len(self._readers) >= MAX_READERS:
            raise HttpError(503, f"{MAX_READERS} pages read already: close one")
        reader = _Reader(request)
        self._readers.append(reader)
        request.notifyFinish().addBoth(lambda _: self._readers.remove(reader))
        if self._view is not None:
            reader.snapshot(self._view)
        # Klein waits for it; it cancels it when the client has gone.
        return Deferred()

    async def loop(self) -> None:
        """Look again and again; while nobody reads, only at the minutes."""
        while self.running:
            self._minutes.update(time.time())
            if self._readers:
                await self._tell()
            else:
                self._view = None
            await deferLater(self._reactor, LOOK_SECONDS)

    async def _tell(self) -> None:
        status = await maybeDeferred(self._status)
        after = {**view(status, self._restart()), "minutes": self._minutes.data()}
        before, self._view = self._view, after
        at = round(time.time(), 1)
        event = None if before is None else _event("patch", {"at": at, **patch(before, after)})
        for reader in list(self._readers):
            reader.tell(after, event)


def _event(name: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


@implementer(IPushProducer)
class _Reader:
    """One stream. ``is_behind`` says that the client has missed a patch, or has nothing yet."""

    def __init__(self, request: JsonRequest) -> None:
        self._request = request
        self._is_paused = False
        self._is_behind = True
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.setHeader(b"Cache-Control", b"no-store")
        request.channel.answer_without_end()
        request.registerProducer(self, True)
        request.write(b"retry: %d\n\n" % _RETRY_MILLISECONDS)

    def snapshot(self, whole: View) -> None:
        """Write everything."""
        self._is_behind = False
        self._request.write(_event("snapshot", {"at": round(time.time(), 1), **whole}))

    def tell(self, whole: View, event: bytes | None) -> None:
        """Write what has changed, or everything to a client that is behind."""
        if self._is_paused:
            self._is_behind = True
        elif self._is_behind or event is None:
            self.snapshot(whole)
        else:
            self._request.write(event)

    def pauseProducing(self) -> None:
        """Hear that the client reads too slowly."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Hear that the client has read what was written."""
        self._is_paused = False

    def stopProducing(self) -> None:
        """Hear that the client has gone."""
        self._is_paused = True
