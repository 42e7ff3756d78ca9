# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""Keeps a page of another site from using the admin API through its visitor's browser."""

from __future__ import annotations

from typing import cast

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from dapi.http.answers import error_answer
from dapi.messages.urls import ip_address_of, parse_url


class BrowserGuard(Resource):
    """A resource before another one; it answers 403 to requests that a page of another site has a browser send.

    They have an ``Origin`` that is not this server (a form or a script of another site). Where the server is bound to a
    loopback address (``local_only``), a ``Host`` that is a name other than localhost is refused too: when the owner of
    a site points its name to 127.0.0.1, the browser takes this server for that site.
    """

    isLeaf = True

    def __init__(self, guarded: IResource, local_only: bool) -> None:
        super().__init__()
        self._guarded = guarded
        self._local_only = local_only

    def render(self, request: IRequest) -> bytes | int:
        """Refuse the request, or hand it to the guarded resource."""
        host = _header(request, b"host")
        origin = _header(request, b"origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return error_answer(request, 403, f"requests of pages from {origin} are refused")
        if self._local_only and host is not None and not _is_local(host):
            return error_answer(request, 403, f"ask for localhost or an address, not for {host}")
        return cast("bytes | int", self._guarded.render(request))


def _header(request: IRequest, name: bytes) -> str | None:
    value = request.getHeader(name)
    return None if value is None else value.decode("latin-1")


def _is_local(host: str) -> bool:
    try:
        name = parse_url(f"//{host}").host
    except ValueError:
        return False
    return name == "localhost" or ip_address_of(name) is not None
