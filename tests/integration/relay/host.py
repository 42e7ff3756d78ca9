"""A relay between senders and a simulated api container, on real sockets, without the rest of dapi."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

from bench.relay_faults.proxy import CutProxy
from dapi.database import Database
from dapi.http.exchange import Exchanges
from dapi.http.listener import HttpListener
from dapi.http.settings import HttpSettings
from dapi.http.site import JsonSite
from dapi.http.streams import StreamDoor
from dapi.relay.relay import Relay, RelaySettings
from dapi.simulator.api.api import ApiState, SimulatedApi
from dapi.simulator.api.settings import ApiSettings
from dapi.simulator.api.stages import Durations, Stage
from dapi.simulator.vllm.sender import SimulatedVllm, callback_path, generated_body
from dapi.simulator.vllm.settings import SenderSettings
from dapi.timing.retry import RetryDelay
from tests.integration.ports import free_port
from tests.integration.waiting import PATIENCE_SECONDS, soon, until

reactor: Any = global_reactor
MODEL = "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"
P = 1_728_000
# A stage that lasts as long as a test: its height is moved by hand.
DURATIONS = Durations(epoch_length=20_000, poc_stage_duration=1000)
# It hurries, and gives a try the time that a busy machine needs.
QUICK = msgspec.structs.replace(SenderSettings(artifacts_per_second=1000).scaled(0.02), try_seconds=PATIENCE_SECONDS)
PATH = callback_path(MODEL, "generated")


class Host:
    """The api container of a host, and a relay before it that can be stopped and started again."""

    def __init__(self, folder: Path, *, settled_seconds: float = PATIENCE_SECONDS, **api_settings: Any) -> None:
        self.folder = folder
        self.settled_seconds = settled_seconds
        quick = {"flush_seconds": 0.1, "unsynced_seconds": 0.05, "many_commits_a_block": True}
        settings = ApiSettings(**{**quick, **api_settings})
        ports = (free_port(), free_port(), free_port())
        self.api = SimulatedApi(reactor, settings, nodes={1: MODEL, 2: MODEL}, ports=ports)
        self.api.stage, self.api.height = Stage(P, DURATIONS), P
        self.exchanges = Exchanges(reactor, None, PATIENCE_SECONDS)
        self.senders: list[SimulatedVllm] = []
        self.proxies: list[CutProxy] = []
        # The same over a restart: the nodes know it.
        self.port = free_port()
        self.is_up = False

    async def start_api(self) -> None:
        """Start the container, and wait until it takes callbacks."""
        self.api.startService()
        await until(lambda: self.api.state is ApiState.RUNNING)

    def put_network_between(self) -> None:
        """Have the relay, from its next start on, reach the container over ``proxies``, which can be cut."""
        for url in (self.api.callback_url, self.api.public_url, self.api.admin_url):
            self.proxies.append(CutProxy(reactor, int(url.rpartition(":")[2])))

    async def start(
        self, *, reserve_bytes: int = 2**16, free_bytes: Any = None, is_loaded: bool = True, **http: Any
    ) -> Relay:
        """Start the relay, and wait until it ``is_loaded``."""
        self.database = Database(
            reactor,
            str(self.folder / "outbox.db"),
            on_broken=pytest.fail,
            reserve_bytes=reserve_bytes,
            free_bytes=free_bytes,
        )
        urls = [self.api.callback_url, self.api.public_url, self.api.admin_url]
        if self.proxies:
            urls = [f"http://127.0.0.1:{proxy.port}" for proxy in self.proxies]
        settings = RelaySettings(
            callback_url=urls[0],
            public_url=urls[1],
            admin_url=urls[2],
            look_seconds=0.05,
            settled_seconds=self.settled_seconds,
        )
        self.relay = Relay(
            reactor,
            self.database,
            str(self.folder / "relay"),
            settings,
            retry_delay=RetryDelay(random.Random(1), 0.1, 0.2),
        )

        def admit(target: bytes, _address: str) -> None:
            self.relay.admit(target)

        door = StreamDoor(self.relay, Resource())
        site = JsonSite(reactor, door, HttpSettings(**http), streams=self.relay, admit=admit)
        self.listener = HttpListener(reactor, "callbacks", site, self.port, "127.0.0.1")
        for part in (self.database, self.relay, self.listener):
            part.startService()
        self.is_up = True
        await until(lambda: self.relay.is_loaded or not is_loaded)
        return self.relay

    async def stop(self) -> None:
        """Stop the relay."""
        self.is_up = False
        await soon(self.listener.stopService())
        await soon(self.relay.stopService())
        await soon(self.database.stopService())

    @property
    def base(self) -> str:
        """What the api container would be told as its callback URL."""
        return f"http://127.0.0.1:{self.port}{self.relay.prefix}"

    async def post(
        self, body: bytes, path: str = PATH, *, base: str | None = None, method: str = "POST"
    ) -> tuple[int, bytes]:
        """POST as a node does; return the answer."""
        url = f"{self.base if base is None else base}{path}"
        return await soon(Deferred.fromCoroutine(self.exchanges.exchange(method, url, body)))

    def sender(self, node_num: int = 1, settings: SenderSettings = QUICK) -> SimulatedVllm:
        """Return one more sender, which generates."""
        sender = SimulatedVllm(reactor, self.base, node_num=node_num, node_count=3, model=MODEL, settings=settings)
        self.senders.append(sender)
        sender.generate(P)
        return sender

    def stored(self) -> int:
        """How many artifacts the container has on disk."""
        artifacts = self.api.artifacts.get((P, MODEL))
        return artifacts.count if artifacts is not None else 0

    def states(self) -> dict[str, int]:
        """How many payloads came to each state since the start."""
        return dict(self.relay.book.counts)

    def files(self) -> list[Path]:
        """The bodies on disk."""
        return sorted((self.folder / "relay").glob("*.body"))

    async def end(self) -> None:
        """Stop everything."""
        for sender in self.senders:
            await soon(sender.stop())
        if self.is_up:
            await self.stop()
        if self.api.running:
            await soon(self.api.stopService())
        for proxy in self.proxies:
            await soon(proxy.close())
        await soon(self.exchanges.close())


def body_of(*nonces: int, node_num: int = 1, height: int = P) -> bytes:
    """A ``generated`` body."""
    return generated_body(height, node_num, list(nonces))


@asynccontextmanager
async def hosting(
    folder: Path, *, is_started: bool = True, settled_seconds: float = PATIENCE_SECONDS
) -> AsyncIterator[Host]:
    """Have a host whose container runs, and its relay too where it ``is_started``; all of it ends with the context."""
    host = Host(folder, settled_seconds=settled_seconds)
    await host.start_api()
    if is_started:
        await host.start()
    try:
        yield host
    finally:
        await host.end()
