# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""The files of the page, and its stream."""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePath
from typing import Any, Final

from twisted.web.server import Request

from dapi.http.answers import HttpError
from dapi.http.request import JsonRequest
from dapi.http.routes import Route
from dapi.server.page.live import LivePage

_TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
}
_PAGE: Final = "index.html"
# Nothing from elsewhere, nothing in line, and no other page may show this one in a frame.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class PageRoutes:
    """``GET /``, what it asks for below ``/page``, and ``GET /events``."""

    def __init__(self, live: LivePage) -> None:
        self._live = live
        folder = files(__package__) / "static"
        self._bodies = {
            each.name: each.read_bytes() for each in folder.iterdir() if PurePath(each.name).suffix in _TYPES
        }

    def routes(self) -> tuple[Route, ...]:
        """Return the routes, from the root of the admin port."""
        return (
            Route("GET", "/", self._get_page),
            Route("GET", "/page/<name>", self._get_file),
            Route("GET", "/events", self._get_events),
        )

    def _get_page(self, request: Request) -> bytes:
        return self._get_file(request, _PAGE)

    def _get_file(self, request: Request, name: str) -> bytes:
        if name not in self._bodies:
            raise HttpError(404, "the page has no such file")
        request.setHeader(b"Content-Type", _TYPES[PurePath(name).suffix])
        request.setHeader(b"Cache-Control", b"no-cache")
        request.setHeader(b"Content-Security-Policy", _POLICY)
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        request.setHeader(b"Referrer-Policy", b"no-referrer")
        return self._bodies[name]

    def _get_events(self, request: JsonRequest) -> Any:
        return self._live.read(request)
