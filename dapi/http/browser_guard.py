# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""Keeps a page of another site from using the admin API through its visitor's browser."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from dapi.http.answers import error_answer
from dapi.messages.urls import ip_address_of, parse_url

# A page of another port of this machine is of the same site.
_ELSEWHERE = ("cross-site", "same-site")


class BrowserGuard(Resource):
    """A resource before another one; it answers 403 to requests that a page of another site has a browser send.

    They have an ``Origin`` that is not this server (a form or a script of another site), or a ``Host`` that is a name
    other than localhost and ``hosts``: when the owner of a site points its name to this server, the browser takes this
    server for that site. Under an address no site can be. What such a page shows, as a picture for one, has no
    ``Origin``, and a ``Sec-Fetch-Site``: links to this server alone may come from elsewhere.
    """

    isLeaf = True

    def __init__(self, guarded: IResource, hosts: Collection[str] = ()) -> None:
        super().__init__()
        self._guarded = guarded
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    def render(self, request: IRequest) -> bytes | int:
        """Refuse the request, or hand it to the guarded resource."""
        host = _header(request, b"host")
        origin = _header(request, b"origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return error_answer(request, 403, f"requests of pages from {origin} are refused")
        if _header(request, b"sec-fetch-site") in _ELSEWHERE and not _is_link(request):
            return error_answer(request, 403, "requests of pages from elsewhere are refused")
        if host is not None and not self._is_ours(host):
            problem = f"ask for localhost or an address, not for {host}; api.admin_hosts allows other names"
            return error_answer(request, 403, problem)
        return cast("bytes | int", self._guarded.render(request))

    def _is_ours(self, host: str) -> bool:
        try:
            name = parse_url(f"//{host}").host
        except ValueError:
            return False
        return name in self._hosts or ip_address_of(name) is not None


def _is_link(request: IRequest) -> bool:
    return request.method in (b"GET", b"HEAD") and _header(request, b"sec-fetch-mode") == "navigate"


def _header(request: IRequest, name: bytes) -> str | None:
    value = request.getHeader(name)
    return None if value is None else value.decode("latin-1")
