"""The head is followed over real sockets, whatever the simulated chain does to its WebSocket."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
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
from tests.integration.simulated_chain import PATIENCE_SECONDS, soon

reactor: Any = global_reactor
NEVER_SECONDS = 3600.0


class World:
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
        self.rpc = ChainRpc(reactor, urls, timeout_seconds=2)
        settings = ConnectionSettings(retry_min_seconds=0.1, retry_max_seconds=0.2)
        self.events = BlockEvents(reactor, urls, random=random.Random(2), settings=settings)
        self.watcher = BlockWatcher(
            reactor, self.rpc, self.events, poll_seconds=poll_seconds, quiet_seconds=quiet_seconds
        )
        self.watcher.observe(lambda: self.told.append(self.height))
        self.watcher.startService()
        await self.until(lambda: bool(self.told) and self.is_subscribed)

    @property
    def height(self) -> int:
        return self.watcher.head.height if self.watcher.head is not None else 0

    @property
    def is_subscribed(self) -> bool:
        return self.chain.subscriptions > 0

    async def until(self, predicate: Callable[[], bool]) -> None:
        deadline = reactor.seconds() + PATIENCE_SECONDS
        while not predicate():
            assert reactor.seconds() < deadline, (self.told, self.watcher.problem, self.events.connection_status())
            await deferLater(reactor, 0.01)

    async def until_head(self) -> None:
        """Wait until the watcher is where the chain is."""
        await self.until(lambda: self.height == self.chain.height)

    async def until_subscribed(self) -> None:
        await self.until(lambda: self.is_subscribed)

    async def end(self) -> None:
        await soon(self.watcher.stopService())
        await soon(self.rpc.close())
        if self.chain.running:
            await soon(self.chain.stopService())


@pytest_twisted.async_yield_fixture
async def world() -> AsyncIterator[Any]:
    made = World()
    yield made
    await made.end()


@pytest_twisted.ensureDeferred
async def test_each_block_is_told_by_its_event(world: World) -> None:
    # The status is asked for once, and not again before the test is over.
    await world.start(poll_seconds=NEVER_SECONDS)
    first = world.height
    for _ in range(20):
        block = world.chain.produce_block()
        await world.until_head()
        head = world.watcher.head
        assert head is not None
        assert (head.block_hash, head.block_time_ns) == (block.hash, block.time_ns)
    assert world.told == list(range(first, first + 21))
    assert world.watcher.missed_blocks == 0


@pytest_twisted.ensureDeferred
async def test_blocks_in_a_burst_are_all_told(world: World) -> None:
    await world.start(poll_seconds=NEVER_SECONDS)
    first = world.height
    for _ in range(50):
        world.chain.produce_block()
    await world.until_head()
    assert world.told == list(range(first, first + 51))


@pytest_twisted.ensureDeferred
async def test_a_cut_websocket_delays_no_head_and_comes_back(world: World) -> None:
    await world.start()
    for _ in range(3):
        world.chain.cut_websockets()
        await world.until(lambda: world.events.opened_at is None)
        world.chain.produce_block()
        await world.until_head()
        await world.until_subscribed()
        world.chain.produce_block()
        await world.until_head()
    assert world.events.connection_status().connections == 4
    assert world.watcher.problem is None


@pytest_twisted.ensureDeferred
async def test_a_canceled_subscription_is_made_anew(world: World) -> None:
    await world.start()
    world.chain.cancel_subscriptions()
    await world.until(lambda: world.events.opened_at is None)
    assert "client is not pulling messages fast enough" in str(world.events.connection_status().reason)
    await world.until_subscribed()
    world.chain.produce_block()
    await world.until_head()
    assert world.events.connection_status().state is WebSocketState.OPEN


@pytest_twisted.ensureDeferred
async def test_quiet_events_are_made_up_for_and_replaced(world: World) -> None:
    await world.start(quiet_seconds=0.3)
    world.chain.switches.hides_events = True
    world.chain.produce_block()
    await world.until_head()
    connections = world.events.connection_status().connections
    await world.until(lambda: world.events.connection_status().connections > connections)
    world.chain.switches.hides_events = False
    world.chain.produce_block()
    await world.until_head()


@pytest_twisted.ensureDeferred
async def test_a_jump_of_50_blocks_is_told_once_and_counted(world: World) -> None:
    await world.start(poll_seconds=NEVER_SECONDS)
    first = world.height
    world.chain.switches.hides_events = True
    for _ in range(49):
        world.chain.produce_block()
    world.chain.switches.hides_events = False
    world.chain.produce_block()
    await world.until_head()
    assert world.told == [first, first + 50]
    assert world.watcher.missed_blocks == 49


@pytest_twisted.ensureDeferred
async def test_a_restart_of_the_chain(world: World) -> None:
    await world.start()
    await soon(world.chain.stopService())
    await world.until(lambda: str(world.watcher.problem).startswith("not reachable"))
    world.chain.startService()
    await world.until(lambda: world.watcher.problem is None)
    await world.until_subscribed()
    world.chain.produce_block()
    await world.until_head()


@pytest_twisted.ensureDeferred
async def test_a_halted_chain_keeps_its_connection(world: World) -> None:
    await world.start(quiet_seconds=0.1)
    await deferLater(reactor, 1)
    assert world.events.connection_status().connections == 1
    world.chain.produce_block()
    await world.until_head()


@pytest_twisted.ensureDeferred
async def test_catching_up_is_told_by_the_status(world: World) -> None:
    await world.start(quiet_seconds=0.1)
    world.chain.switches.is_catching_up = True
    await world.until(lambda: world.watcher.problem == "catching up")
    world.chain.produce_block()
    await world.until_head()
    assert world.watcher.problem == "catching up"
    world.chain.switches.is_catching_up = False
    await world.until(lambda: world.watcher.problem is None)


@pytest_twisted.ensureDeferred
async def test_the_first_url_that_works_is_followed(world: World) -> None:
    # Nobody listens on port 1.
    await world.start("http://127.0.0.1:1")
    world.chain.produce_block()
    await world.until_head()
    assert world.events.connection_status().connections == 1
