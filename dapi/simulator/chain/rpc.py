"""A simulated node's one port: JSON-RPC over HTTP, and over a WebSocket at ``/websocket`` with NewBlock events.

Not simulated: JSON-RPC batches, calls as GET, TLS.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from dapi.simulator.chain.blocks import Block
from dapi.simulator.chain.methods import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    SERVER_ERROR,
    Methods,
    RpcError,
    new_block_event,
)
from dapi.simulator.chain.node import ChainNode

MAX_BODY_BYTES = 1_000_000
NEW_BLOCK = "tm.event='NewBlock'"

_PING_SECONDS = 27


class RpcServer:
    """A node's RPC on ``interface`` between ``listen`` and ``close``, which can repeat: ``port`` stays the same."""

    log = Logger()

    def __init__(self, reactor: Any, node: ChainNode, interface: str, port: int) -> None:
        self.port = port
        self._reactor = reactor
        self._node = node
        self._interface = interface
        self._methods = Methods(node)
        self._listening: Any = None
        self._delayed: set[IDelayedCall] = set()
        self._sockets: set[_ChainSocket] = set()
        self._pinging = LoopingCall(self._ping)
        self._pinging.clock = reactor
        root = Resource()
        root.putChild(b"", _RpcResource(self))
        root.putChild(b"websocket", WebSocketResource(_socket_factory(reactor, self)))
        # Without its idle timer, which would end WebSockets, and would be left on the reactor.
        site = Site(root, timeout=None, reactor=reactor)
        site.noisy = False
        self._factory = _ClosingFactory(site)

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are over all WebSockets."""
        return sum(len(socket.subscriptions) for socket in self._sockets)

    def listen(self) -> None:
        """Open the port: any free one at first, the same one later."""
        self._listening = self._reactor.listenTCP(self.port, self._factory, interface=self._interface)
        self.port = self._listening.getHost().port
        self._pinging.start(_PING_SECONDS, now=False).addErrback(self._ping_failed)

    async def close(self) -> None:
        """Close the port and abort every connection; returns when all are gone."""
        listening, self._listening = self._listening, None
        if self._pinging.running:
            self._pinging.stop()
        for call in self._delayed:
            call.cancel()
        self._delayed.clear()
        if listening is not None:
            await listening.stopListening()
        await self._factory.abort_all()

    def publish(self, block: Block) -> None:
        """Tell every subscriber of a new block."""
        if self._node.switches.hides_events or self._factory.is_frozen:
            return
        for socket in list(self._sockets):
            for query, request_id in socket.subscriptions.items():
                result = new_block_event(self._node.blockchain.state.chain_id, block, query)
                socket.send(_answer(request_id, result))

    def freeze(self) -> None:
        """Read nothing any more, as a process that was stopped: connections are accepted, and stay silent."""
        self._factory.freeze()

    def thaw(self) -> None:
        """Read again, first of all what came meanwhile."""
        self._factory.thaw()

    def cut_sockets(self) -> None:
        """Break every WebSocket off, without a word."""
        for socket in list(self._sockets):
            socket.dropConnection(abort=True)

    def cancel_subscriptions(self) -> None:
        """End every subscription with an error, as CometBFT does with a client that reads too slowly."""
        data = "subscription was canceled (reason: client is not pulling messages fast enough)"
        for socket in list(self._sockets):
            for request_id in socket.subscriptions.values():
                socket.send(_failure(request_id, RpcError(SERVER_ERROR, data)))
            socket.subscriptions.clear()

    def answer(self, body: bytes) -> tuple[int, dict[str, Any] | None]:
        """Return HTTP status and JSON of the answer to a call; None: the call wants none."""
        if len(body) > MAX_BODY_BYTES:
            error = RpcError(INVALID_REQUEST, "error reading request body: http: request body too large")
            return 400, _failure(-1, error)
        if self._node.switches.answers_500:
            return 500, _failure(-1, RpcError(INTERNAL_ERROR, "the simulated node is told to fail"))
        try:
            request = json.loads(body)
        except ValueError as error:
            return 500, _failure(-1, RpcError(PARSE_ERROR, f"error unmarshalling request: {error}"))
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return 500, _failure(-1, RpcError(INVALID_REQUEST, "no request object with a method"))
        if request.get("id") is None:
            return 200, None
        try:
            return 200, _answer(request["id"], self._methods.call(request["method"], request.get("params")))
        except RpcError as error:
            return 200, _failure(request["id"], error)

    def after_delay(self, respond: Callable[[], None]) -> Callable[[], None]:
        """Have ``respond`` called as late as the switches say; the answer cancels it."""
        delay_seconds = self._node.switches.answer_delay_seconds
        if delay_seconds <= 0:
            respond()
            return lambda: None

        def run() -> None:
            self._delayed.discard(call)
            respond()

        def cancel() -> None:
            if call in self._delayed:
                self._delayed.discard(call)
                call.cancel()

        call = self._reactor.callLater(delay_seconds, run)
        self._delayed.add(call)
        return cancel

    def socket_opened(self, socket: _ChainSocket) -> None:
        """Note an open WebSocket."""
        self._sockets.add(socket)

    def socket_closed(self, socket: _ChainSocket) -> None:
        """Forget it."""
        self._sockets.discard(socket)

    def _ping(self) -> None:
        for socket in list(self._sockets):
            socket.ping_or_drop()

    def _ping_failed(self, failure: Any) -> None:
        self.log.failure("the simulated chain's pings have ended", failure)


class _RpcResource(Resource):
    isLeaf = True

    def __init__(self, server: RpcServer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._server = server

    def render_POST(self, request: Request) -> int:  # noqa: N802
        """Answer one call."""
        assert request.content is not None  # noqa: S101
        body = request.content.read()

        def respond() -> None:
            status, answer = self._server.answer(body)
            request.setResponseCode(status)
            request.setHeader(b"content-type", b"application/json")
            request.write(b"" if answer is None else json.dumps(answer).encode())
            request.finish()

        cancel = self._server.after_delay(respond)
        # The caller has gone: it gets no answer any more, and its call was not made.
        request.notifyFinish().addErrback(lambda _: cancel())
        return NOT_DONE_YET


class _ChainSocket(WebSocketServerProtocol):
    """One WebSocket: calls, and subscriptions, by their query."""

    def __init__(self, server: RpcServer) -> None:
        super().__init__()
        self.subscriptions: dict[str, int | str] = {}
        self._server = server
        self._was_heard = True

    def onOpen(self) -> None:
        self._server.socket_opened(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        self._was_heard = True
        status, answer = self._subscription(payload) or self._server.answer(payload)
        if status == 200 and answer is not None:
            self.send(answer)

    def onPong(self, payload: bytes) -> None:
        self._was_heard = True

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:  # noqa: N803
        self._server.socket_closed(self)

    def send(self, message: dict[str, Any]) -> None:
        """Send an answer or an event; it is lost on a connection that is closing."""
        if self.state == self.STATE_OPEN:
            self.sendMessage(json.dumps(message).encode(), isBinary=False)  # type: ignore[no-untyped-call]

    def ping_or_drop(self) -> None:
        """Ping, or end a connection from which nothing came since the last ping."""
        if self._was_heard:
            self._was_heard = False
            self.sendPing()
        else:
            self.dropConnection(abort=True)

    def _subscription(self, payload: bytes) -> tuple[int, dict[str, Any]] | None:
        """Answer subscribe and unsubscribe_all; None for every other call."""
        try:
            request = json.loads(payload)
        except ValueError:
            return None
        method = request.get("method") if isinstance(request, dict) else None
        if method not in {"subscribe", "unsubscribe_all"}:
            return None
        request_id, params = request.get("id"), request.get("params")
        if method == "unsubscribe_all":
            self.subscriptions.clear()
            return 200, _answer(request_id, {})
        query = params.get("query") if isinstance(params, dict) else (params or [None])[0]
        if query != NEW_BLOCK:
            return 200, _failure(request_id, RpcError(INVALID_PARAMS, f"{query!r} is not simulated"))
        if query in self.subscriptions:
            return 200, _failure(request_id, RpcError(INTERNAL_ERROR, "already subscribed"))
        self.subscriptions[query] = request_id
        return 200, _answer(request_id, {})


def _socket_factory(reactor: Any, server: RpcServer) -> Any:
    class Factory(WebSocketServerFactory):
        def buildProtocol(self, addr: IAddress | None) -> _ChainSocket:
            socket = _ChainSocket(server)
            socket.factory = self
            return socket

    factory = Factory(reactor=reactor)  # type: ignore[no-untyped-call]
    # Autobahn's own timers run on the global reactor, whichever one it is given.
    factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0, autoPingInterval=0)  # type: ignore[no-untyped-call]
    return factory


class _ClosingFactory(WrappingFactory[ProtocolWrapper]):
    """Knows its connections, and when the last one is gone; can stop reading from all of them."""

    noisy = False

    def __init__(self, wrapped: Any) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.is_frozen = False
        self._when_empty: Deferred[None] | None = None

    def registerProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802
        super().registerProtocol(p)  # type: ignore[no-untyped-call]
        if self.is_frozen:
            p.pauseProducing()

    def freeze(self) -> None:
        """Read from no connection."""
        self.is_frozen = True
        for connection in list(self.protocols):
            connection.pauseProducing()

    def thaw(self) -> None:
        """Read from all connections."""
        self.is_frozen = False
        for connection in list(self.protocols):
            connection.resumeProducing()

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        if not self.protocols and self._when_empty is not None:
            when_empty, self._when_empty = self._when_empty, None
            when_empty.callback(None)

    def abort_all(self) -> Deferred[None]:
        """Abort every connection; fires when they are gone."""
        if not self.protocols:
            return succeed(None)
        when_empty = self._when_empty = Deferred()
        for connection in list(self.protocols):
            connection.abortConnection()
        return when_empty


def _answer(request_id: Any, result: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _failure(request_id: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": error.as_json()}
