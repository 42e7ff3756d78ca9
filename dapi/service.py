"""The assembly: one call makes the whole tree, for twistd or for anybody's MultiService."""

from __future__ import annotations

import random as random_module
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi import __version__
from dapi.broker.broker import Broker, PocSettings
from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Node, NodeStore
from dapi.chain.keyring import SigningKey
from dapi.chain_service import ChainService, load_key
from dapi.config import Config
from dapi.database import Database
from dapi.errors import NotReadyError, StartError, StoreBusyError, StoreError
from dapi.http.listener import HttpListener
from dapi.http.site import HttpSettings, JsonSite
from dapi.messages.sizes import MIB
from dapi.messages.urls import is_loopback, parse_url, without_user
from dapi.mlnode.client import MAIN_NETWORK_PARAMS, TEST_NETWORK_PARAMS, MLNodeClient
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import Outbox
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.websocket_client import WebSocketClient
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.poc.websocket_url import websocket_address
from dapi.server.admin import AdminApi
from dapi.server.callbacks import Callbacks
from dapi.submission.submissions import Submissions
from dapi.websocket.address import websocket_endpoint

_CALLBACK_PATH = "/v1/poc-batches"
_MAX_ADMIN_BODY_BYTES = MIB
_REGISTER_RETRY_SECONDS = 5.0
_COUNTS_SECONDS = 2.0
_NO_CHAIN = "no chain is configured (chain_node.url): batches are kept, nothing is submitted"


def make_service(
    config: Config,
    reactor: Any = None,
    *,
    on_broken: Callable[[str], object] | None = None,
    random: random_module.Random | None = None,
) -> DapiService:
    """Return dapi as one service, stopped; several of them may run in one process, each with its own ports and file.

    ``reactor`` is the global one by default. ``on_broken`` is called once, with the reason, when nothing can be stored
    any more (a failed fsync, a corrupt file): the service then refuses everything, and its process should end and start
    anew; by default it is only logged. ``random`` gives the delays between retries.
    """
    if reactor is None:
        from twisted.internet import reactor
    random = random or random_module.Random()  # noqa: S311 - delays are no secrets
    return DapiService(reactor, config, on_broken=on_broken or (lambda reason: None), random=random)


class DapiService(MultiService):
    """Owns everything that runs: database, callback port, broker with its workers, submitter, admin port.

    Starting loads the signing key, if a chain is configured, opens the database and then the ports, the callbacks'
    first, before it returns, and waits for no chain and no node; it raises StartError, leaving nothing behind, when the
    key or the database must not be used or a port cannot be had. Stopping ends the intake (ports, WebSockets) and the
    submitting first, lets the disk take what came, and closes the database; the Deferred fires when nothing is left on
    the reactor, and fails with the first failure of a part, after all the others are stopped too. It can be started
    again after that.

    Its parts are made at the start: ``database``, ``outbox``, ``broker``, ``callback_listener``, ``admin_listener``,
    and ``chain`` (None where none is configured).
    """

    log = Logger()

    database: Database
    outbox: Outbox
    broker: Broker
    callback_listener: HttpListener
    admin_listener: HttpListener
    chain: ChainService | None

    def __init__(
        self, reactor: Any, config: Config, *, on_broken: Callable[[str], object], random: random_module.Random
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._config = config
        self._on_broken = on_broken
        self._random = random
        self._websocket_settings = WebSocketSettings(**msgspec.structs.asdict(config.websocket))
        _check_ca_file(reactor, config.websocket.ca_file)
        self._registering: Deferred[None] = succeed(None)
        self._is_stopping = False
        self._stop_waiters: list[Deferred[None]] = []
        self._started_at = 0.0

    @property
    def callback_url(self) -> str:
        """The base that nodes append ``/generated`` and ``/validated`` to."""
        base = self._config.api.poc_callback_url or f"http://127.0.0.1:{self.callback_listener.port}"
        return base.rstrip("/") + _CALLBACK_PATH

    def startService(self) -> None:
        """Start all parts, in order."""
        if self._is_stopping:
            raise StartError("dapi is still stopping: start it when the Deferred of stopService has fired")
        super().startService()  # type: ignore[no-untyped-call]
        self._started_at = self._reactor.seconds()
        try:
            self._start()
        except BaseException:
            undone = self.stopService()
            undone.addErrback(lambda failure: self.log.failure("undoing a failed start failed", failure))
            raise

    def stopService(self) -> Deferred[None]:
        """Stop all parts, in order; fires with None when nothing is left, fails with a part's failure."""
        if self.running:
            Service.stopService(self)
            self._is_stopping = True
            Deferred.fromCoroutine(self._stop()).addBoth(self._stopped)
        if not self._is_stopping:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._stop_waiters.append(waiter)
        return waiter

    def status(self) -> Deferred[dict[str, Any]]:
        """Fire with what ``GET /admin/v1/status`` shows; never fails for a store that is slow or broken.

        ``batches`` counts them by state, and is None while the store cannot say (``database`` says why).
        """
        return Deferred.fromCoroutine(self._status())

    def _start(self) -> None:
        chain_node = self._config.chain_node
        # A key that cannot be used ends the start before anything is open.
        key = load_key(chain_node) if chain_node.url is not None else None
        self._start_intake()
        self._start_broker()
        self.chain = self._start_chain(key) if key is not None else None
        if key is None:
            self.log.warn("{problem}", problem=_NO_CHAIN)
        self._registering = Deferred.fromCoroutine(self._register_nodes())
        self._registering.addErrback(self._not_registered)
        self._start_admin()

    def _start_intake(self) -> None:
        reactor, api, storage = self._reactor, self._config.api, self._config.storage
        self.database = Database(
            reactor,
            str(Path(storage.path).expanduser()),
            reserve_bytes=storage.reserve_bytes,
            on_broken=self._on_broken,
        )
        self.outbox = Outbox(reactor, self.database)
        self._recorder = CosmosMessageClient(self.outbox)
        self._callbacks = Callbacks(reactor, self, BatchHandler(None, None, self._recorder))
        site = JsonSite(reactor, self._callbacks.resource())
        self.callback_listener = HttpListener(reactor, "callbacks", site, api.ml_server_port, api.ml_server_host)
        self._add(self.database)
        # Before all else, so that no batch finds the door closed because something else takes its time.
        self._add(self.callback_listener)

    def _start_broker(self) -> None:
        params = TEST_NETWORK_PARAMS if self._config.poc.network == "test" else MAIN_NETWORK_PARAMS
        poc_settings = PocSettings(callback_url=self.callback_url, params=params)
        self.broker = Broker(self._reactor, NodeStore(self.database), self._make_worker, poc_settings)
        self._add(self.broker)

    def _start_chain(self, key: SigningKey) -> ChainService:
        chain = ChainService(
            self._reactor,
            self._config.chain_node,
            key,
            database=self.database,
            outbox=self.outbox,
            recorder=self._recorder,
            broker=self.broker,
            random=self._random,
            drives_nodes=self._config.poc.follow_chain,
        )
        self._add(chain)
        return chain

    def _start_admin(self) -> None:
        reactor, api = self._reactor, self._config.api
        is_local = is_loopback(api.admin_server_host)
        driver = self.chain.phase_status if self.chain is not None else None
        admin = AdminApi(reactor, self.broker, self.outbox, self.status, driver=driver, local_only=is_local)
        site = JsonSite(reactor, admin.resource(), HttpSettings(max_body_bytes=_MAX_ADMIN_BODY_BYTES))
        self.admin_listener = HttpListener(reactor, "admin", site, api.admin_server_port, api.admin_server_host)
        self._add(self.admin_listener)
        if not is_local:
            self.log.warn(
                "the admin API is open to whoever reaches {host}: it asks for no password", host=api.admin_server_host
            )

    def _add(self, part: Service) -> None:
        part.setServiceParent(self)

    def worker_by_num(self, num: int) -> NodeWorker:
        """Return the worker of the node with this number; see Broker.worker_by_num."""
        return self.broker.worker_by_num(num)

    def _make_worker(self, node: Node) -> NodeWorker:
        if is_loopback(parse_url(self.callback_url).host) and not is_loopback(parse_url(node.poc_url).host):
            self.log.warn(
                "{node_id}: at {poc_url}, it cannot reach {callback_url}: set api.poc_callback_url",
                node_id=node.id,
                poc_url=node.poc_url,
                callback_url=without_user(self.callback_url),
            )
        handler = BatchHandler(node.id, node.num, self._recorder)
        websocket_client = WebSocketClient(
            self._reactor,
            node.websocket_base,
            handler,
            node_id=node.id,
            random=self._random,
            settings=self._websocket_settings,
        )
        ml_client = MLNodeClient(self._reactor, node.poc_url, node_id=node.id)
        return NodeWorker(self._reactor, node, ml_client, handler, websocket_client)

    async def _register_nodes(self) -> None:
        told = None
        while True:
            try:
                await self.broker.register_missing(self._config.nodes)
            except (StoreBusyError, NotReadyError) as error:
                if str(error) != told:
                    told = str(error)
                    self.log.error("the configured nodes are not registered yet: {error}", error=told)
                await deferLater(self._reactor, _REGISTER_RETRY_SECONDS)
            else:
                break
        if self.chain is not None:
            self.chain.drive_nodes()

    def _not_registered(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("the configured nodes cannot be registered", failure)

    async def _stop(self) -> None:
        self._registering.cancel()
        databases = [part for part in self if isinstance(part, Database)]
        failures = await self._stop_parts([part for part in self if part not in databases])
        if databases:
            await self._drain()
            failures += await self._stop_parts(databases)
        for part in list(self):
            part.disownServiceParent()
        if failures:
            failures[0].raiseException()

    async def _stop_parts(self, parts: Sequence[IService]) -> list[Failure]:
        """Stop parts side by side; return the failures, logged."""
        failures = []
        for part, stopping in [(part, maybeDeferred(part.stopService)) for part in parts]:
            try:
                await stopping
            except Exception:  # noqa: BLE001 - the others have to be stopped all the same
                failures.append(Failure())
                self.log.failure("{part} did not stop properly", part=type(part).__name__)
        return failures

    async def _drain(self) -> None:
        """Wait until the disk has, or has refused, what came before the intake ended."""
        while self.database.running and self.outbox.status()["pending_bytes"]:
            await deferLater(self._reactor, 0)
            try:
                await self.database.write(lambda connection: None)
            except StoreError:
                # Refused to the outbox too, which tells those who wait.
                return

    def _stopped(self, result: Failure | None) -> None:
        self._is_stopping = False
        waiters, self._stop_waiters = self._stop_waiters, []
        for waiter in waiters:
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(None)

    async def _status(self) -> dict[str, Any]:
        nodes = self.broker.status()
        site = self.callback_listener.site
        return {
            "version": __version__,
            "uptime_seconds": round(self._reactor.seconds() - self._started_at, 3),
            "database": self.database.status(),
            "batches": await self._batch_counts(),
            "outbox": {name: value for name, value in self.outbox.status().items() if name != "database"},
            "callbacks": {
                "port": self.callback_listener.port,
                "url": without_user(self.callback_url),
                "connections": site.connections,
                "batches": self._callbacks.counts,
                "answers": site.counts.answers,
                "connections_refused": site.counts.connections_refused,
            },
            "broker": {"is_loaded": nodes.is_loaded, "problem": nodes.problem, "highest_num": nodes.highest_num},
            "nodes": nodes.nodes,
            "chain": await self._chain_status(),
        }

    async def _batch_counts(self) -> dict[str, int] | None:
        try:
            return await self.outbox.counts().addTimeout(_COUNTS_SECONDS, self._reactor)
        except (StoreError, DeferredTimeoutError):
            return None

    async def _chain_status(self) -> dict[str, Any]:
        if self.chain is None:
            return {"state": "not configured", "reason": _NO_CHAIN}
        return {
            **self.chain.submitter.status(),
            "oldest_waiting_seconds": await self._oldest_waiting_seconds(self.chain.submissions),
            "poc": self.chain.phase_status.status() if self.chain.phase_status is not None else None,
        }

    async def _oldest_waiting_seconds(self, submissions: Submissions) -> float | None:
        try:
            oldest = await submissions.oldest_received_at().addTimeout(_COUNTS_SECONDS, self._reactor)
        except (StoreError, DeferredTimeoutError):
            return None
        return None if oldest is None else max(0.0, round(time.time() - oldest, 1))


def _check_ca_file(reactor: Any, ca_file: str | None) -> None:
    """Raise ConfigError now for a file that would only be missed once a wss node is there."""
    if ca_file is not None:
        address = websocket_address("wss://localhost/")
        websocket_endpoint(reactor, address, connect_timeout_seconds=1.0, ca_file=ca_file)
