"""The head is followed over real sockets, whatever the simulated chain does to its WebSocket."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from dapi.chain.block_events import BlockEvents
from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.rpc import ChainRpc
from dapi.simulator.chain.chain import SimulatedChain
from dapi.websocket.client import WebSocketState
from dapi.websocket.settings import ConnectionSettings
from tests.integration.waiting import PATIENCE_SECONDS, soon, until
from tests.logs import captured_log

reactor: Any = global_reactor
NEVER_SECONDS = 3600.0


class WatchedChain:
    """A chain whose blocks are made by hand, and a watcher of it; the first head has been told."""

    def __init__(self) -> None:
        self.chain = SimulatedChain(reactor, random.Random(1), block_seconds=None, first_height=10)
        self.rpc: ChainRpc
        self.events: BlockEvents
        self.watcher: BlockWatcher
        self.told: list[int] = []

    async def start(self, *more_urls: str, quiet_seconds: float = 10, poll_seconds: float = 0.05) -> None:
        self.chain.startService()
        urls = [*more_urls, self.chain.url]
        self.rpc = ChainRpc(reactor, urls, timeout_seconds=PATIENCE_SECONDS)
        settings = ConnectionSettings(retry_min_seconds=0.1, retry_max_seconds=0.2)
        self.events = BlockEvents(reactor, urls, random=random.Random(2), settings=settings)
        self.watcher = BlockWatcher(
            reactor, self.rpc, self.events, poll_seconds=poll_seconds, quiet_seconds=quiet_seconds
        )
        self.watcher.observe(lambda: self.told.append(self.height))
        self.watcher.startService()
        await until(lambda: bool(self.told) and self.is_subscribed)

    @property
    def height(self) -> int:
        return self.watcher.head.height if self.watcher.head is not None else 0

    @property
    def is_subscribed(self) -> bool:
        return self.chain.subscriptions > 0

    async def until_head(self) -> None:
        """Wait until the watcher is where the chain is."""
        await until(lambda: self.height == self.chain.height)

    async def until_subscribed(self) -> None:
        await until(lambda: self.is_subscribed)

    async def end(self) -> None:
        await soon(self.watcher.stopService())
        await soon(self.rpc.close())
        if self.chain.running:
            await soon(self.chain.stopService())


@pytest_twisted.async_yield_fixture
async def watched() -> AsyncIterator[Any]:
    made = WatchedChain()
    yield made
    await made.end()


@pytest_twisted.ensureDeferred
async def test_each_block_is_told_by_its_event(watched: WatchedChain) -> None:
    # The status is asked for once, and not again before the test is over.
    await watched.start(poll_seconds=NEVER_SECONDS)
    first = watched.height
    for _ in range(20):
        block = watched.chain.produce_block()
        await watched.until_head()
        head = watched.watcher.head
        assert head is not None
        assert (head.block_hash, head.block_time_ns) == (block.hash, block.time_ns)
    assert watched.told == list(range(first, first + 21))


@pytest_twisted.ensureDeferred
async def test_blocks_in_a_burst_are_all_told(watched: WatchedChain) -> None:
    await watched.start(poll_seconds=NEVER_SECONDS)
    first = watched.height
    for _ in range(50):
        watched.chain.produce_block()
    await watched.until_head()
    assert watched.told == list(range(first, first + 51))


@pytest_twisted.ensureDeferred
async def test_a_cut_websocket_delays_no_head_and_comes_back(watched: WatchedChain) -> None:
    await watched.start()
    for _ in range(3):
        watched.chain.cut_websockets()
        await until(lambda: watched.events.opened_at is None)
        watched.chain.produce_block()
        await watched.until_head()
        await watched.until_subscribed()
        watched.chain.produce_block()
        await watched.until_head()
    assert watched.events.connection_status().connections == 4
    assert watched.watcher.problem is None


@pytest_twisted.ensureDeferred
async def test_a_canceled_subscription_is_made_anew(watched: WatchedChain) -> None:
    await watched.start()
    watched.chain.cancel_subscriptions()
    await until(lambda: watched.events.opened_at is None)
    assert "client is not pulling messages fast enough" in str(watched.events.connection_status().reason)
    await watched.until_subscribed()
    watched.chain.produce_block()
    await watched.until_head()
    assert watched.events.connection_status().state is WebSocketState.OPEN


@pytest_twisted.ensureDeferred
async def test_quiet_events_are_made_up_for_and_replaced(watched: WatchedChain) -> None:
    await watched.start(quiet_seconds=0.3)
    watched.chain.switches.hides_events = True
    watched.chain.produce_block()
    await watched.until_head()
    connections = watched.events.connection_status().connections
    await until(lambda: watched.events.connection_status().connections > connections)
    watched.chain.switches.hides_events = False
    watched.chain.produce_block()
    await watched.until_head()


@pytest_twisted.ensureDeferred
async def test_a_jump_of_50_blocks_is_told_once(watched: WatchedChain) -> None:
    await watched.start(poll_seconds=NEVER_SECONDS)
    first = watched.height
    watched.chain.switches.hides_events = True
    for _ in range(49):
        watched.chain.produce_block()
    watched.chain.switches.hides_events = False
    watched.chain.produce_block()
    await watched.until_head()
    assert watched.told == [first, first + 50]


@pytest_twisted.ensureDeferred
async def test_a_restart_of_the_chain(watched: WatchedChain) -> None:
    await watched.start()
    with captured_log() as log:
        await soon(watched.chain.stopService())
        await until(lambda: str(watched.watcher.problem).startswith("not reachable"))
        # It is said while the loop goes round, not only once the chain is back.
        (line,) = await until(lambda: log.warnings("everything waits"))
    assert line.startswith("the chain is not reachable: ")
    watched.chain.startService()
    await until(lambda: watched.watcher.problem is None)
    await watched.until_subscribed()
    watched.chain.produce_block()
    await watched.until_head()


@pytest_twisted.ensureDeferred
async def test_a_halted_chain_keeps_its_connection(watched: WatchedChain) -> None:
    await watched.start(quiet_seconds=0.1)
    await deferLater(reactor, 1)
    assert watched.events.connection_status().connections == 1
    watched.chain.produce_block()
    await watched.until_head()


@pytest_twisted.ensureDeferred
async def test_catching_up_is_told_by_the_status(watched: WatchedChain) -> None:
    await watched.start(quiet_seconds=0.1)
    watched.chain.switches.is_catching_up = True
    await until(lambda: watched.watcher.problem == "catching up")
    watched.chain.produce_block()
    await watched.until_head()
    assert watched.watcher.problem == "catching up"
    watched.chain.switches.is_catching_up = False
    await until(lambda: watched.watcher.problem is None)


@pytest_twisted.ensureDeferred
async def test_the_first_url_that_works_is_followed(watched: WatchedChain) -> None:
    # Nobody listens on port 1.
    await watched.start("http://127.0.0.1:1")
    watched.chain.produce_block()
    await watched.until_head()
    assert watched.events.connection_status().connections == 1
