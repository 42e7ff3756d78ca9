# mypy: disallow-untyped-calls=False
# ruff: noqa: N802, N815
# twisted.web is mostly without annotations, and has names of its own.
"""A request of the HTTP server in site.py: its faults are answered in JSON."""

from __future__ import annotations

from typing import Any, AnyStr
from urllib.parse import unquote_to_bytes

from twisted.python.failure import Failure
from twisted.web.http import parse_qs
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from dapi.http.answers import error_answer
from dapi.http.plain_head import PlainHead
from dapi.http.streams import StreamedContent
from dapi.messages.printable import printable


class JsonRequest(Request):
    """A request whose faults are answered in JSON, with its body in memory.

    ``begun_at`` is when its head was received, on the reactor's clock; its body may come much later. ``plain`` is its
    head, where that came at once.
    """

    defaultContentType = b"application/json"
    channel: Any  # a JsonChannel, which makes this
    begun_at: float | None = None
    plain: PlainHead | None = None
    _headers: Headers | None = None

    @property
    def requestHeaders(self) -> Headers:
        """All its headers; those of a plain head are put together for who wants them."""
        if self._headers is None:
            self._headers = Headers()
            for name, value in self.plain.headers.items() if self.plain is not None else ():
                self._headers.addRawHeader(name, value)
        return self._headers

    @requestHeaders.setter
    def requestHeaders(self, headers: Headers) -> None:
        # twisted.web makes an empty one for each request.
        pass

    def getHeader(self, key: AnyStr) -> AnyStr | None:
        """Return the last header with this name."""
        if self.plain is None or isinstance(key, str):
            return super().getHeader(key)
        return self.plain.headers.get(key.lower())

    def gotLength(self, length: int | None) -> None:
        """Note when the head has come."""
        self.begun_at = self.channel.site.reactor.seconds()
        self.content = self.channel.open_stream(length or 0)
        if self.content is None:
            super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a part of the body, as long as all bodies in memory together have room."""
        content = self.content
        stays = not isinstance(content, StreamedContent) or content.body.in_memory
        if not stays or self.channel.make_room(len(data)):
            super().handleContentChunk(data)

    def drop_body(self) -> None:
        """Free what has come of a body that nobody wants any more."""
        if self.content is not None:
            self.content.close()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer a whole request. What twisted.web does besides, for forms, is for nobody here."""
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, True) if query else {}
        content: Any = self.content
        content.seek(0)
        self.channel.turns.when_free(self.process)

    def process(self) -> None:
        """Hand the whole request to its resource. Of twisted.web's headers, an answer has the date alone."""
        if self.path == b"*":
            super().process()
            return
        site = self.site = self.channel.site
        self.prepath, self.postpath = [], self.path[1:].split(b"/")
        if b"%" in self.path:
            self.postpath = [unquote_to_bytes(segment) for segment in self.postpath]
        try:
            b"/".join(self.postpath).decode()
        except UnicodeDecodeError:
            self.answer_fault(400, "the path is not UTF-8")
            return
        self.setHeader(b"Date", site.date())
        try:
            self.render(site.getResourceFor(self))
        except Exception:  # noqa: BLE001 - whatever a resource does wrong, the client gets an answer
            self.processingFailed(Failure())

    def getRequestHostname(self) -> bytes:
        """Return a constant: Klein binds its routes to this, and fails on a Host header that is no host name."""
        return b"localhost"

    def processingFailed(self, reason: Failure) -> Failure:
        """Log a defect of dapi; the client learns only that there was one."""
        self._log.failure(
            "{method} {path} failed",
            reason,
            method=printable(self.method),
            path=printable(self.path),
        )
        self.answer_fault(500, "internal error: see the log of dapi")
        return reason

    def answer_too_late(self) -> None:
        """Answer in place of a handler that is too slow; for the handler it is as if the client had gone away."""
        waiting, self.notifications = self.notifications, []
        for notified in waiting:
            notified.errback(Failure(TimeoutError("the request's deadline has passed")))
        self.setHeader(b"Connection", b"close")
        self.channel.persistent = False
        self.answer_fault(503, "not done in time, try again")

    def answer_fault(self, code: int, message: str) -> None:
        """Finish with ``{"error": message}``."""
        self.write(error_answer(self, code, message))
        self.finish()
