"""The simulated ML node as a service.

::

node = SimulatedMLNode(reactor, random.Random(1), settings=quick_settings())
node.startService()
# have a client call node.base_url + "/api/v1/pow/init/generate", connect to node.websocket_url, …
await node.ledger.when_delivered(3)
await node.stopService()
"""

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import Any

from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from dapi.simulator.ml_node.api import Inference, NodeAPI
from dapi.simulator.ml_node.http import WEBSOCKET_PATH, NodeResource
from dapi.simulator.ml_node.ledger import Ledger
from dapi.simulator.ml_node.listener import Listener
from dapi.simulator.ml_node.pow_service import PowService
from dapi.simulator.ml_node.run import PowRun
from dapi.simulator.ml_node.sender import Sender
from dapi.simulator.ml_node.settings import MLNodeSettings
from dapi.simulator.ml_node.websocket import SERVICE_RESTART, NodeWebSocketFactory


class SimulatedMLNode(Service):
    """One ML node: HTTP and WebSocket on one port of 127.0.0.1.

    ``settings`` may change at any time; ``ledger`` has what happened, its newest ``remembered`` events. ``name`` is for
    the log only; the number in the batches is the one of the init request. ``port`` 0 lets the system pick a port,
    which stays the same when the service starts again. ``prefix`` is a path before all routes, such as a version
    (``/v3.0.8``). ``reactor`` needs IReactorTCP and IReactorTime.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        random_source: random.Random,
        *,
        name: str = "simulated",
        settings: MLNodeSettings | None = None,
        port: int = 0,
        prefix: str = "",
        remembered: int = 10_000,
    ) -> None:
        self.node_name = name
        self.settings = settings if settings is not None else MLNodeSettings()
        self.ledger = Ledger(remembered)
        self._reactor = reactor
        self._random = random_source
        self._prefix = prefix
        # A connection that is kept for the next batch would outlive the run.
        pool = HTTPConnectionPool(reactor, persistent=False)
        self._http = HTTPClient(Agent(reactor, pool=pool))
        self._pow = PowService(
            reactor,
            random_source,
            settings=self.settings,
            ledger=self.ledger,
            make_sender=self._make_sender,
            deafness=lambda: self._listener.deafness(),
        )
        self.inference = Inference(reactor, self.settings)
        self._api = NodeAPI(self._pow, self.inference)
        self._websocket = NodeWebSocketFactory(reactor, self._pow, self.settings, self.ledger)
        self._resource = NodeResource(
            reactor,
            name=name,
            prefix=prefix,
            routes=self._api.routes(),
            websocket=self._websocket,
            settings=self.settings,
            ledger=self.ledger,
        )
        self._listener = Listener(reactor, port, self._resource)
        self._tasks: set[Deferred[None]] = set()

    # Its addresses and state.

    @property
    def port(self) -> int:
        """The port; known after the first start."""
        return self._listener.port

    @property
    def base_url(self) -> str:
        """The URL before the paths of the HTTP API, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}{self._prefix}"

    @property
    def websocket_url(self) -> str:
        """The address of the WebSocket."""
        return f"ws://127.0.0.1:{self.port}{self._prefix}{WEBSOCKET_PATH}"

    @property
    def state(self) -> str:
        """POW, INFERENCE, TRAIN or STOPPED."""
        return self._api.state

    @property
    def run(self) -> PowRun | None:
        """The PoW that runs, with its ``request``, ``phase`` and connection flag; None when none does."""
        return self._pow.run

    @property
    def is_sender_alive(self) -> bool:
        """Tell whether anything can be delivered."""
        return self._pow.sender is not None and self._pow.sender.is_alive

    # Start and stop.

    def startService(self) -> None:
        """Open the port before this returns; raise CannotListenError. No service of the node runs then."""
        self._listener.listen()
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """Shut down as the node does: deliver nothing more, close the clients with 1012.

        The Deferred fires when nothing of the node is left on the reactor.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._shut_down(clean=True))

    def crash(self) -> Deferred[None]:
        """End without closing anything properly; the Deferred fires when all sockets are gone.

        The service can be started again, on the same port.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._shut_down(clean=False))

    async def _shut_down(self, *, clean: bool) -> None:
        self._resource.cancel_all()
        for task in list(self._tasks):
            task.cancel()
        self.inference.end()
        self._api.is_training = False
        self._pow.abandon()
        closed = self._listener.close()
        clients = list(self._websocket.open_connections)
        if clean and clients:
            for client in clients:
                client.close_with(SERVICE_RESTART, "")
            gone = DeferredList([client.when_gone for client in clients])
            timer = self._reactor.callLater(self.settings.close_seconds, self._listener.abort)
            await gone
            if timer.active():
                timer.cancel()
        await self._listener.abort()
        await closed
        # HTTP calls that were cut off need one turn to leave the reactor.
        await deferLater(self._reactor, 0)

    # What a test may do to the node.

    def drop_connections(self) -> None:
        """Cut all WebSocket connections now, without a close frame."""
        for connection in list(self._websocket.open_connections):
            connection.dropConnection(abort=True)

    def send_junk(self, payload: bytes = b"no JSON", *, binary: bool = False) -> None:
        """Send a message that is no JSON on every WebSocket connection."""
        for connection in list(self._websocket.open_connections):
            connection.sendMessage(payload, isBinary=binary)  # type: ignore[no-untyped-call]

    def close_connections(self, code: int, reason: str = "") -> None:
        """Begin to close all WebSocket connections with this code."""
        for connection in list(self._websocket.open_connections):
            connection.close_with(code, reason)

    def be_deaf_for(self, seconds: float) -> Deferred[None]:
        """Answer nothing for so long, pings included; the Deferred fires at the end, or at a shutdown."""

        async def be_deaf() -> None:
            with self._listener.deafness():
                await deferLater(self._reactor, seconds)

        return self._until_shutdown(be_deaf())

    def restart_pow(self) -> Deferred[None]:
        """Start the PoW anew with the same request, without a call from outside.

        The Deferred fires when the new PoW runs, or at a shutdown; an open connection is not used any more then. Raises
        RuntimeError when no PoW runs.
        """
        if self.run is None:
            raise RuntimeError("no PoW runs")
        return self._until_shutdown(self._pow.restart())

    def kill_sender(self) -> None:
        """End the sender of the PoW, as a distance does that is too large; nothing else changes."""
        if self._pow.sender is not None:
            self._pow.sender.kill()

    def begin_training(self) -> None:
        """Be in state TRAIN until a stop."""
        self._api.is_training = True

    def when_client_connected(self) -> Deferred[None]:
        """Return a Deferred that fires when the flag of the PoW run says that a client is connected."""
        return self.ledger.when(self._has_client)

    def when_client_gone(self) -> Deferred[None]:
        """Return a Deferred that fires when no WebSocket connection is open."""
        return self.ledger.when(lambda: not self._websocket.open_connections)

    def _has_client(self) -> bool:
        return self.run is not None and self.run.client_connected

    def _until_shutdown(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        """Return a Deferred that fires at the end of the coroutine, or when the node's end has cancelled it."""
        task = Deferred.fromCoroutine(coroutine)
        self._tasks.add(task)
        ended: Deferred[None] = Deferred()

        def end(result: object) -> None:
            self._tasks.discard(task)
            if isinstance(result, Failure) and not result.check(CancelledError):
                ended.errback(result)
            else:
                ended.callback(None)

        task.addBoth(end)
        return ended

    def _make_sender(self, run: PowRun) -> Sender:
        return Sender(
            self._reactor,
            self._random,
            run,
            name=self.node_name,
            settings=self.settings,
            ledger=self.ledger,
            http=self._http,
        )
