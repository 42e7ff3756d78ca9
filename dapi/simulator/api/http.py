# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""The routes of the simulated api container: callbacks and metrics, the public ones, the admin ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from dapi.messages.sizes import MIB
from dapi.simulator.api.answers import Refused, route
from dapi.simulator.api.settings import Faults


class Container(Protocol):
    """What the routes need of the container."""

    faults: Faults

    def take_callback(self, raw_path: bytes, content_type: str | None, body: bytes) -> None:
        """Do what a POST asks for; raises Refused."""

    def record_post(self, raw_path: bytes, body: bytes, status: int, headers: Mapping[bytes, Sequence[bytes]]) -> None:
        """Remember how a POST was answered."""


class CallbackResource(Resource):
    """Port 9100: POSTs of the ML nodes, and ``GET /metrics``."""

    isLeaf = True
    log = Logger()

    def __init__(
        self, clock: IReactorTime, container: Container, started_at: Callable[[], float], *, has_metrics: bool
    ) -> None:
        super().__init__()
        self._has_metrics = has_metrics
        self._clock = clock
        self._container = container
        self._started_at = started_at
        self._answering: set[Deferred[None]] = set()

    def cancel_all(self) -> None:
        """Answer nothing that is not answered yet."""
        for answering in list(self._answering):
            answering.cancel()

    def render(self, request: Request) -> Any:
        """Answer when the delay of the faults is over."""
        if request.uri.partition(b"?")[0] == b"/metrics" and self._has_metrics:
            request.setHeader(b"content-type", b"text/plain; version=0.0.4")
            return f"process_start_time_seconds {self._started_at():.3f}\n".encode()
        answering = Deferred.fromCoroutine(self._answer(request))
        self._answering.add(answering)
        answering.addBoth(self._answered, answering)
        answering.addErrback(lambda failure: None if failure.check(CancelledError) else self._defect(failure))
        return NOT_DONE_YET

    def _answered(self, result: Any, answering: Deferred[None]) -> Any:
        self._answering.discard(answering)
        return result

    def _defect(self, failure: Failure) -> None:
        self.log.failure("the simulated api container has a defect", failure)

    async def _answer(self, request: Request) -> None:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        faults = self._container.faults
        content: Any = request.content
        body = content.read()
        if faults.hangs:
            await Deferred()
        if faults.slow_seconds_per_mb:
            await deferLater(self._clock, faults.slow_seconds_per_mb * len(body) / MIB)
        status, answer = self._outcome(request, body)
        if request.method == b"POST":
            self._container.record_post(request.uri, body, status, dict(request.requestHeaders.getAllRawHeaders()))
        if not gone:
            request.setResponseCode(status)
            if status in (301, 302, 303, 307, 308):
                request.setHeader(b"location", b"http://127.0.0.1:1/elsewhere")
            request.setHeader(b"content-length", b"%d" % len(answer))
            request.write(answer)
            request.finish()

    def _outcome(self, request: Request, body: bytes) -> tuple[int, bytes]:
        faults = self._container.faults
        if faults.junk_bytes is not None:
            return 200, b"\x00" * faults.junk_bytes
        if faults.status is not None:
            return faults.status, json.dumps({"error": faults.text}).encode()
        try:
            if request.method != b"POST":
                # A path that is none goes first.
                route(request.uri)
                return 405, b'{"error":"Method Not Allowed"}'
            self._container.take_callback(request.uri, request.getHeader("content-type"), body)
        except Refused as refused:
            return refused.status, refused.body
        return 200, b""


class JsonResource(Resource):
    """Answers each path with the JSON of a function, which gets the query's arguments and may raise Refused."""

    isLeaf = True

    def __init__(self, faults: Faults, routes: dict[bytes, Callable[[dict[str, str]], Any]]) -> None:
        super().__init__()
        self._faults = faults
        self._routes = routes

    def render(self, request: Request) -> Any:
        """Answer."""
        if self._faults.told_hangs:
            return NOT_DONE_YET
        if self._faults.told_junk_bytes is not None:
            return b"\x00" * self._faults.told_junk_bytes
        found = self._routes.get(request.path)
        args = {name.decode(): values[0].decode("utf-8", "replace") for name, values in (request.args or {}).items()}
        request.setHeader(b"content-type", b"application/json")
        if found is None or request.method != b"GET":
            request.setResponseCode(404 if found is None else 405)
            return b'{"error":"Not Found"}' if found is None else b'{"error":"Method Not Allowed"}'
        try:
            return json.dumps(found(args)).encode()
        except Refused as refused:
            request.setResponseCode(refused.status)
            return refused.body
