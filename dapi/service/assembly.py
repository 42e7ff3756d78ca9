"""Makes every part of dapi, and hands each one the others that it needs; nothing is started here."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dapi.broker.broker import Broker
from dapi.broker.callback_tokens import CallbackTokens
from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Node, NodeStore
from dapi.broker.rehearsals import Rehearsals
from dapi.chain.rpc import ChainRpc
from dapi.chain_service import ChainService, load_key
from dapi.config import Config
from dapi.database import Database
from dapi.database.backup import Backups
from dapi.http.endpoints import trust_root_of
from dapi.http.listener import HttpListener
from dapi.http.routes import Route, open_paths
from dapi.http.settings import HttpSettings
from dapi.http.site import JsonSite
from dapi.http.streams import StreamDoor
from dapi.messages.sizes import MIB
from dapi.mlnode.arguments import NetworkArguments
from dapi.mlnode.client import MAIN_NETWORK_PARAMS, TEST_NETWORK_PARAMS, MLNodeClient, NetworkVersion
from dapi.orchestration.restarts import Restarts
from dapi.outbox.comparison import Comparison
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import Outbox
from dapi.outbox.quota import NodeQuota, NodeQuotaSettings
from dapi.outbox.retention import Retention
from dapi.poc.batch_handler import AckTimes, BatchHandler
from dapi.poc.deliveries import Deliveries
from dapi.poc.large_batches import LargeBatches
from dapi.poc.websocket_client import WebSocketClient
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.relay.api_client import ApiClient
from dapi.relay.chain_questions import ChainQuestions
from dapi.relay.prefix import without_prefix
from dapi.relay.watch import Watch
from dapi.server.admin import AdminApi
from dapi.server.backup_routes import BackupRoutes
from dapi.server.callback_door import CallbackDoor
from dapi.server.callbacks import Callbacks
from dapi.server.epochs import restart_answer
from dapi.server.health import HealthRoutes
from dapi.server.log_routes import LogRoutes
from dapi.server.metric_families import Snapshot
from dapi.server.metrics import Metrics
from dapi.server.openapi import OpenApiRoute
from dapi.server.operations import ADMIN, CALLBACKS, RELAYED
from dapi.server.page.live import LivePage
from dapi.server.page.minutes import ByWay
from dapi.server.page.routes import PageRoutes
from dapi.server.rehearsal_routes import RehearsalRoutes
from dapi.service.admin_token import admin_token
from dapi.service.server_tls import server_tls
from dapi.timing.fair_share import FairShare
from dapi.timing.log_levels import LogLevels
from dapi.timing.retry import RetryDelay
from dapi.websocket.factory import WatchedConnectionFactory

if TYPE_CHECKING:
    from dapi.relay.relay import Relay


_CALLBACK_PATH = "/v1/poc-batches"
_MAX_ADMIN_BODY_BYTES = MIB


def without_callback_path(url: str) -> str:
    """Return a callback URL without the path that follows it, which some write into the setting, too."""
    return url.rstrip("/").removesuffix(_CALLBACK_PATH).rstrip("/")


class Parts:
    """The parts of one dapi. ``in_starting_order`` lists the services; ``chain`` is None where none is configured.

    ``status`` is what the admin API asks, ``snapshot`` what the metrics are made of. Making the parts reads the key
    that signs and the authorities' file; it raises ConfigError or StartError when either cannot be used.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: Config,
        *,
        status: Callable[[], object],
        snapshot: Callable[[], Deferred[Snapshot]],
        on_broken: Callable[[str], object],
        on_another_chain: Callable[[str], object],
        takes_other_chain_at_once: bool = False,
        random: random_module.Random,
        log_levels: LogLevels | None = None,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._random = random
        self._websocket_settings = WebSocketSettings(
            **msgspec.structs.asdict(config.websocket), ca_file=config.tls.ca_file
        )
        # A file that cannot be used would only be missed once an https node is there.
        trust_root_of(config.tls.ca_file)
        path = str(Path(config.storage.path).expanduser())
        self.database = self._make_database(path, on_broken)
        self.outbox = Outbox(reactor, self.database)
        knows_stages = config.chain_node.url is not None and config.poc.follow_chain
        self._comparison = Comparison(reactor, self.database) if knows_stages else None
        self.node_quota = self._make_quota()
        self._recorder = CosmosMessageClient(self.outbox, comparison=self._comparison, quota=self.node_quota)
        params = TEST_NETWORK_PARAMS if config.poc.network == "test" else MAIN_NETWORK_PARAMS
        store = NodeStore(self.database)
        self.ack_times = AckTimes()
        self.share, self.large_batches = FairShare(reactor), LargeBatches(reactor)
        self._network_version, self._network_arguments = NetworkVersion(), NetworkArguments()
        self.callback_tokens = CallbackTokens(path)
        self.broker = Broker(reactor, store, self._make_worker, callback_url=self._told_url, params=params)
        health = self._make_health().routes()
        self.relay = self._make_relay(path)
        self.poc_v2_watch = self._make_watch()
        operations = {**CALLBACKS, **(RELAYED if self.relay is not None else {})}
        description = OpenApiRoute("dapi: callbacks", operations, is_open=True)
        self.callback_listener = self._make_callbacks((*health, *description.routes()))
        self.chain = self._make_chain(on_another_chain, takes_other_chain_at_once)
        self.backups, self.page = Backups(reactor, path), self._make_page(status)
        self.retention = Retention(reactor, self.database, keep_days=config.storage.keep_finished)
        phases = self.chain.phase_status if self.chain is not None else None
        self.rehearsals = Rehearsals(reactor, self.broker, brings_back=phases is None)
        parts = (Metrics(reactor, snapshot), BackupRoutes(self.backups), PageRoutes(self.page), LogRoutes(log_levels))
        more = (RehearsalRoutes(self.rehearsals, phases), OpenApiRoute("dapi: admin", ADMIN))
        routes = (*health, *(route for part in (*parts, *more) for route in part.routes()))
        self.admin_listener = self._make_admin(status, routes)

    @cached_property
    def restarts(self) -> Restarts:
        """Tells whether dapi, and the api container, may be restarted now."""
        phases = self.chain.phase_status if self.chain is not None else None
        knowledge = self.poc_v2_watch.knowledge if self.poc_v2_watch is not None else None
        return Restarts(phases, knowledge, self.relay is not None)

    @property
    def in_starting_order(self) -> tuple[Any, ...]:
        """The services, each after those that it needs.

        The callbacks' port is before all else, so that no batch finds the door closed because something takes its time.
        """
        intake = (self.database, self.callback_tokens, self.relay, self.large_batches, self.callback_listener)
        doors = (self.page, self.poc_v2_watch, self.admin_listener)
        order = (*intake, self.broker, self.chain, self.node_quota, self.retention, self.backups, *doors)
        return tuple(part for part in order if part is not None)

    def _make_database(self, path: str, on_broken: Callable[[str], object]) -> Database:
        storage = self._config.storage
        return Database(
            self._reactor,
            path,
            reserve_bytes=storage.reserve_bytes,
            is_new_wanted=storage.new_database,
            on_broken=on_broken,
        )

    def _make_quota(self) -> NodeQuota:
        storage = self._config.storage
        settings = NodeQuotaSettings(max_messages=storage.max_node_messages, max_bytes=storage.max_node_bytes)
        return NodeQuota(self._reactor, self.database, settings)

    def _make_callbacks(self, others: Sequence[Route]) -> HttpListener:
        reactor, api = self._reactor, self._config.api
        tls = server_tls(reactor, self._config, for_nodes=True)
        site = self._make_callback_site(others)
        return HttpListener(reactor, "callbacks", site, api.ml_server_port, api.ml_server_host, tls)

    def _make_callback_site(self, others: Sequence[Route]) -> JsonSite:
        self.callback_door = CallbackDoor(
            self._reactor,
            self.callback_tokens,
            self.broker.nodes,
            lambda num: self.broker.worker_by_num(num).node,
            takes_plain=self._config.api.callback_auth == "optional",
            open_paths=open_paths(others),
        )
        self.unnamed_handler = BatchHandler(None, None, self._recorder, ack_times=self.ack_times)
        self.callbacks = Callbacks(
            self._reactor,
            self.callback_door,
            self._batch_handler,
            self.unnamed_handler,
            self.share,
            self.large_batches,
        )
        resource, relay = self.callbacks.resource(others), self.relay
        if relay is None:
            return JsonSite(self._reactor, resource, admit=self.callback_door.admit, share=self.share)

        def admit(target: bytes, address: str) -> int | None:
            if relay.takes(target):
                relay.admit(target)
                return None
            return self.callback_door.admit(target, address)

        return JsonSite(self._reactor, StreamDoor(relay, resource), admit=admit, streams=relay, share=self.share)

    def _make_watch(self) -> Watch | None:
        config = self._config.poc_v2
        if not config.watch and self.relay is None:
            return None
        client = ApiClient(
            self._reactor,
            callback_url=config.api_url,
            public_url=config.api_public_url,
            admin_url=config.api_admin_url,
            ca_file=self._config.tls.ca_file,
        )
        chain = None
        if config.chain_url is not None and config.participant is not None:
            chain = ChainQuestions(
                self._reactor, ChainRpc(self._reactor, config.chain_url.split(",")), config.participant
            )
        watch = partial(Watch, self._reactor, client, self.database, chain=chain)
        if (relay := self.relay) is None:
            return watch()
        return watch(knowledge=relay.knowledge, handed_on=relay.handed_on)

    def _make_relay(self, path: str) -> Relay | None:
        config = self._config.poc_v2
        if not config.relay:
            return None
        # It computes with numpy, which takes 17 MB that no other host needs.
        from dapi.relay.relay import Relay, RelaySettings

        settings = RelaySettings(
            callback_url=config.api_url,
            public_url=config.api_public_url,
            admin_url=config.api_admin_url,
            ca_file=self._config.tls.ca_file,
            holds_suspects=config.hold_suspects,
        )
        return Relay(self._reactor, self.database, f"{path}-relay", settings, retry_delay=RetryDelay(self._random))

    @property
    def is_callback_url_set(self) -> bool:
        """Whether a setting says where the nodes reach the callbacks."""
        return self._config.api.poc_callback_url is not None

    def callback_url(self) -> str:
        """Return the base of the callbacks, without a node's token; the system may choose its port."""
        configured = self._config.api.poc_callback_url
        # A host may give dapi the environment of its api container, whose URL has the relay's prefix.
        scheme = "http" if self.callback_listener.tls is None else "https"
        base = without_prefix(configured) if configured else f"{scheme}://127.0.0.1:{self.callback_listener.port}"
        return without_callback_path(base) + _CALLBACK_PATH

    def _make_admin(self, status: Callable[[], object], others: Iterable[Route]) -> HttpListener:
        reactor, api = self._reactor, self._config.api
        phases = self.chain.phase_status if self.chain is not None else None
        hosts = (api.admin_hosts or "").split(",")
        admin = AdminApi(
            reactor,
            self.broker,
            self.outbox,
            status,
            phases=phases,
            restarts=self.restarts,
            poc_v2=self.poc_v2_watch.latest_stages if self.poc_v2_watch is not None else None,
            token=admin_token(api),
            hosts=[host.strip() for host in hosts if host],
            others=others,
        )
        site = JsonSite(reactor, admin.resource(), HttpSettings(max_body_bytes=_MAX_ADMIN_BODY_BYTES))
        tls = server_tls(reactor, self._config, for_nodes=False)
        return HttpListener(reactor, "admin", site, api.admin_server_port, api.admin_server_host, tls)

    def _make_health(self) -> HealthRoutes:
        def pending() -> tuple[int, int]:
            status = self.outbox.status()
            return status["pending_bytes"], status["max_pending_bytes"]

        def connections() -> tuple[int, int]:
            site = self.callback_listener.site
            return site.connections, site.settings.max_connections

        return HealthRoutes(
            self._reactor,
            self.database,
            is_loaded=lambda: self.broker.is_loaded,
            pending=pending,
            connections=connections,
        )

    def _told_url(self, node_num: int, token_num: int) -> str:
        """Return the base that a node is told; 0 stands for the one without a token."""
        base = self.callback_url()
        return f"{base}/{self.callback_tokens.token(node_num, token_num)}" if token_num else base

    def _make_page(self, status: Callable[[], object]) -> LivePage:
        def restart() -> Any:
            return msgspec.to_builtins(restart_answer(self.restarts))

        def counts() -> dict[str, ByWay]:
            if not self.broker.is_loaded:
                return {}
            return {worker.node.id: worker.batch_handler.counts.by_way for worker in self.broker.workers()}

        return LivePage(self._reactor, status=status, restart=restart, counts=counts)

    def _make_chain(self, on_another_chain: Callable[[str], object], takes_other_at_once: bool) -> ChainService | None:
        config = self._config.chain_node
        if config.url is None:
            return None
        return ChainService(
            self._reactor,
            config,
            load_key(config),
            database=self.database,
            outbox=self.outbox,
            recorder=self._recorder,
            comparison=self._comparison,
            broker=self.broker,
            random=self._random,
            network_version=self._network_version,
            network_arguments=self._network_arguments,
            on_another_chain=on_another_chain,
            takes_other_at_once=takes_other_at_once,
        )

    def _batch_handler(self, node_num: int) -> BatchHandler:
        return self.broker.worker_by_num(node_num).batch_handler

    @cached_property
    def _websocket_factory(self) -> WatchedConnectionFactory:
        # Autobahn seeds the process's random numbers when it makes one: not before there is a node.
        return WatchedConnectionFactory(self._reactor)

    def _make_worker(self, node: Node) -> NodeWorker:
        deliveries = Deliveries(self._reactor, node.id)
        access = node.config.access(self._config.tls.ca_file)._asdict()
        settings = msgspec.structs.replace(self._websocket_settings, **access)
        handler = BatchHandler(
            node.id, node.num, self._recorder, deliveries, self.ack_times, node_counts=self.broker.node_counts
        )
        websocket_client = WebSocketClient(
            self._reactor,
            node.websocket_base,
            handler,
            node_id=node.id,
            random=self._random,
            # Most nodes share them.
            settings=self._websocket_settings if settings == self._websocket_settings else settings,
            account=partial(self.share.of_node, node.num),
            large_batches=self.large_batches,
            factory=self._websocket_factory,
        )
        version = None if node.config.version else self._network_version
        ml_client = MLNodeClient(
            self._reactor,
            node.poc_url,
            node_id=node.id,
            network_version=version,
            network_arguments=self._network_arguments,
            **access,
        )
        return NodeWorker(self._reactor, node, ml_client, handler, websocket_client)
