"""Requests whose bodies a part of dapi takes while they come, and answers byte for byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from dapi.http.answers import HttpError, error_answer, status_of
from dapi.http.raw_client import RawAnswer

# What of a request's head goes on with it.
_HEADERS = (b"content-type", b"content-encoding", b"accept", b"user-agent")
# No client can send them on.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class StreamBody(Protocol):
    """A body that comes."""

    @property
    def in_memory(self) -> bool:
        """Whether what is written stays in memory, so that there has to be room."""

    def write(self, data: bytes) -> None:
        """Take the next part."""


class Streams(Protocol):
    """Who takes such requests; ``max_body_bytes`` is the most that a body may have."""

    max_body_bytes: int

    def takes(self, target: bytes) -> bool:
        """Tell whether a request target is one of its own."""

    def admit(self, target: bytes) -> None:
        """Refuse a request before its body is read; raises HttpError."""

    def check_room(self, length: int, address: str) -> None:
        """Refuse a request whose body of this length finds no room, before it is read; raises HttpError."""

    def open_body(
        self, target: bytes, length: int, address: str, *, pause: Callable[[], object], resume: Callable[[], object]
    ) -> Any:
        """Return where the body goes; ``pause`` and ``resume`` stop the connection."""

    def lose(self, body: Any) -> None:
        """Hear that the request was not finished."""

    async def take(
        self, method: bytes, headers: tuple[tuple[bytes, bytes], ...], body: Any, peer: str
    ) -> RawAnswer | None:
        """Take the whole request; return its answer, None for an empty 200."""


class StreamedContent:
    """What twisted.web takes for the file of a body; whoever closes it before it was taken has lost it."""

    def __init__(self, streams: Streams, body: StreamBody) -> None:
        self.body = body
        self._streams = streams
        self._is_taken = False

    def write(self, data: bytes) -> None:
        """Take the next part."""
        self.body.write(data)

    def seek(self, _offset: int, _whence: int = 0) -> None:
        """Do nothing: nobody reads here."""

    def tell(self) -> int:
        """Return 0: twisted.web asks whether there is a form to be read."""
        return 0

    def take(self) -> StreamBody:
        """Return the body, which belongs to the caller from now on."""
        self._is_taken = True
        return self.body

    def close(self) -> None:
        """Lose the body, unless it was taken."""
        if not self._is_taken:
            self._is_taken = True
            self._streams.lose(self.body)


def _check(headers: Iterable[tuple[bytes, bytes]]) -> None:
    for name, value in headers:
        if _CONTROL.search(value) is not None:
            raise HttpError(400, f"the header {name.decode()} has control characters")


class StreamDoor(Resource):
    """A resource before another one, which gets all requests that are not of ``streams``."""

    isLeaf = True
    log = Logger()

    def __init__(self, streams: Streams, others: IResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._streams = streams
        self._others = others

    def render(self, request: Request) -> Any:
        """Take the request, or hand it to the other resource."""
        content: Any = request.content
        if not isinstance(content, StreamedContent):
            return self._others.render(request)
        answering = Deferred.fromCoroutine(self._answer(request, content))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(lambda failure: failure.trap(CancelledError) and None)
        answering.addErrback(self._defect, request)
        return NOT_DONE_YET

    async def _answer(self, request: Request, content: StreamedContent) -> None:
        headers = tuple((name, value) for name in _HEADERS if (value := request.getHeader(name)) is not None)
        peer = getattr(request.getClientAddress(), "host", "")
        try:
            _check(headers)
            answer = await self._streams.take(request.method, headers, content.take(), peer)
        except HttpError as error:
            body = error_answer(IRequest(request), status_of(error), str(error))
            request.write(body)
            request.finish()
            return
        request.setHeader(b"Content-Type", (answer and answer.content_type) or b"text/plain")
        request.setResponseCode(answer.status if answer is not None else 200)
        body = answer.body if answer is not None else b""
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()

    def _defect(self, failure: Failure, request: Request) -> None:
        self.log.failure("a request that is handed on broke", failure)
        if not request.startedWriting and not request.finished:
            request.write(error_answer(IRequest(request), 500, "internal error: see the log of dapi"))
            request.finish()
