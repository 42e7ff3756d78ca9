# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""A short way to the handlers of a Klein app, for the routes that nodes call again and again.

Klein makes for each request a mapper, an adapter and half a dozen Deferreds, and looks for the route anew: that is half
of what a request costs. The routes are Klein's all the same: they are declared in its app, found by its map, and their
handlers are called by it. Only where a path leads is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from werkzeug.exceptions import HTTPException

from dapi.http.answers import failure_answer

if TYPE_CHECKING:
    from klein import Klein

_MAX_PATHS: Final = 4096


class KnownRoutes(Resource):
    """A resource that hands the requests for some of an app's ``endpoints`` to their handlers, and the others to Klein.

    These handlers return the body of the answer, or a Deferred of it, as ``answer`` of answers.py makes it.
    """

    isLeaf = True
    log = Logger()

    def __init__(self, app: Klein, endpoints: Collection[str]) -> None:
        super().__init__()
        self._app = app
        self._klein = app.resource()
        self._map = app.url_map.bind("localhost")
        self._endpoints = frozenset(endpoints)
        self._known: dict[tuple[bytes, bytes], tuple[str, dict[str, Any]]] = {}

    def render(self, request: Request) -> Any:
        """Answer a request."""
        asked = request.method, request.path
        route = self._known.get(asked) or self._find(*asked)
        if route is None:
            return self._klein.render(request)
        endpoint, arguments = route
        call: Callable[..., Any] = self._app.execute_endpoint
        _Answering(request, maybeDeferred(call, endpoint, request, **arguments))
        return NOT_DONE_YET

    def _find(self, method: bytes, path: bytes) -> tuple[str, dict[str, Any]] | None:
        """Return where a path leads, None where it is for Klein to say what becomes of the request."""
        if b"%" in path or not path.isascii():
            return None
        try:
            rule, arguments = self._map.match(path.decode(), method.decode(), return_rule=True)
        except HTTPException:
            return None
        if rule.endpoint not in self._endpoints:
            return None
        if len(self._known) >= _MAX_PATHS:
            self._known.clear()
        route = self._known[method, path] = rule.endpoint, dict(arguments)
        return route


class _Answering:
    """A request until it is answered; its handler is cancelled when the client goes away, or waits for too long."""

    def __init__(self, request: Request, body: Deferred[bytes]) -> None:
        self._request = request
        self._body = body
        self._is_gone = False
        request.notifyFinish().addErrback(self._gone)
        body.addErrback(self._failed).addCallback(self._answer)
        body.addErrback(lambda failure: KnownRoutes.log.failure("a request could not be answered", failure))

    def _gone(self, _reason: Failure) -> None:
        self._is_gone = True
        self._body.cancel()

    def _failed(self, failure: Failure) -> bytes:
        if not self._is_gone:
            return failure_answer(self._request, failure)
        if not failure.check(CancelledError):
            KnownRoutes.log.failure("a handler failed after its request was gone", failure)
        return b""

    def _answer(self, body: bytes) -> None:
        if not self._is_gone:
            self._request.write(body)
            self._request.finish()
