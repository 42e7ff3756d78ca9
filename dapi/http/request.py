# mypy: disallow-untyped-calls=False
# ruff: noqa: N802, N815
# twisted.web is mostly without annotations, and has names of its own.
"""A request of the HTTP server in site.py: its faults are answered in JSON."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.python.failure import Failure
from twisted.web.server import Request

from dapi.http.answers import error_answer
from dapi.http.streams import StreamedContent
from dapi.messages.printable import printable


class JsonRequest(Request):
    """A request whose faults are answered in JSON, with its body in memory.

    ``begun_at`` is when its head was received, on the reactor's clock; its body may come much later.
    """

    defaultContentType = b"application/json"
    channel: Any  # a JsonChannel, which makes this
    begun_at: float | None = None

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

    def process(self) -> None:
        """Hand the whole request to its resource."""
        try:
            unquote_to_bytes(self.path).decode()
        except UnicodeDecodeError:
            self.answer_fault(400, "the path is not UTF-8")
            return
        super().process()

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
