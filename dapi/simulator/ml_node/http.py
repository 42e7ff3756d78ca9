"""The HTTP side of a simulated ML node: routes, bodies, status codes, and the upgrade to its WebSocket."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from dapi.simulator.ml_node.ledger import Call, Ledger
from dapi.simulator.ml_node.settings import MLNodeSettings
from dapi.simulator.ml_node.websocket import NodeWebSocketFactory
from dapi.simulator.ml_node.work import BodyError

WEBSOCKET_PATH = "/api/v1/pow/ws"

Handler = Callable[[Any], Awaitable[Any]]


class RefusedError(Exception):
    """The node refuses a call with this status and detail."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


class NodeResource(Resource):
    """Answers the calls of ``routes`` (by method and path) below ``prefix``, and upgrades to the WebSocket.

    The network's own software leaves the prefix out of the WebSocket's path, so that is taken without it, too.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        *,
        name: str,
        prefix: str,
        routes: dict[tuple[str, str], Handler],
        websocket: NodeWebSocketFactory,
        settings: MLNodeSettings,
        ledger: Ledger,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._name = name
        self._prefix = prefix
        self._routes = routes
        self._websocket = WebSocketResource(websocket)
        self._settings = settings
        self._ledger = ledger
        self._answering: set[Deferred[None]] = set()

    def cancel_all(self) -> None:
        """Cancel all calls that are not answered yet."""
        for answering in list(self._answering):
            answering.cancel()

    def render(self, request: Request) -> Any:
        """Answer when the call has had its effect, and its delay (see the settings) is over."""
        path = request.path.decode("latin-1")
        is_upgrade = (request.getHeader("upgrade") or "").lower() == "websocket"
        if is_upgrade and path in (WEBSOCKET_PATH, self._prefix + WEBSOCKET_PATH):
            return self._upgrade(request)
        path = path.removeprefix(self._prefix) if path.startswith(self._prefix) else ""
        answering = Deferred.fromCoroutine(self._answer(request, path))
        self._answering.add(answering)
        answering.addBoth(self._answered, answering)
        answering.addErrback(self._answer_failed, path)
        return NOT_DONE_YET

    def _answered(self, result: Any, answering: Deferred[None]) -> Any:
        self._answering.discard(answering)
        return result

    def _answer_failed(self, failure: Failure, path: str) -> None:
        if not failure.check(CancelledError):
            self.log.failure("{node_id}: the simulated {path} has a defect", failure, node_id=self._name, path=path)

    async def _answer(self, request: Request, path: str) -> None:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        content = request.content.read()  # type: ignore[union-attr]
        call = Call(request.method.decode("latin-1"), path, _json_or_none(content), self._clock.seconds())
        self._ledger.calls.append(call)
        status, answer = await self._outcome(call, content)
        delay = self._settings.http_delays.get(path, self._settings.http_delays.get("*", 0.0))
        if delay:
            await deferLater(self._clock, delay)
        call.status = status
        if not gone:
            request.setResponseCode(status)
            request.setHeader(b"content-type", b"application/json")
            request.write(json.dumps(answer, separators=(",", ":")).encode())
            request.finish()
        self._ledger.record_event()

    async def _outcome(self, call: Call, content: bytes) -> tuple[int, Any]:
        told_to_fail = self._settings.http_failures.get(call.path, self._settings.http_failures.get("*"))
        if told_to_fail is not None:
            return told_to_fail, {"detail": "told to fail"}
        handler = self._routes.get((call.method, call.path))
        if handler is None:
            if any(path == call.path for _, path in self._routes):
                return 405, {"detail": "Method Not Allowed"}
            return 404, {"detail": "Not Found"}
        try:
            return 200, await handler(_json(content))
        except BodyError as error:
            where = ["body", error.field] if error.field else ["body"]
            return 422, {"detail": [{"loc": where, "msg": error.reason, "type": "value_error"}]}
        except RefusedError as error:
            return error.status, {"detail": error.detail}

    def _upgrade(self, request: Request) -> Any:
        self._ledger.upgrades.append(self._clock.seconds())
        self._ledger.record_event()
        refusal = self._settings.refuse_upgrade
        if not self._settings.websocket:
            refusal = 404
        if refusal is None:
            return self._websocket.render(request)
        if refusal == "junk":
            transport: Any = request.channel.transport
            transport.write(b"220 this is no web server\r\n\r\n")
            transport.loseConnection()
        if isinstance(refusal, int):
            request.setResponseCode(refusal)
            return b'{"detail":"no upgrade"}'
        return NOT_DONE_YET


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError as error:
        raise BodyError("", "JSON decode error") from error


def _json_or_none(content: bytes) -> Any:
    try:
        return _json(content)
    except BodyError:
        return None
