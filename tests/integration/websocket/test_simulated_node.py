"""A WebSocketClient and a simulated ML node: what a node does to a connection, and how batches come all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from dapi.messages import Via, decode_generated
from dapi.poc.websocket_client import WebSocketClient
from dapi.websocket.client import WebSocketState
from tests.integration.simulated_node import NodeTestBed
from tests.integration.waiting import until
from tests.integration.websocket.servers import Running, reactor

# A tenth of the promised times, as the simulated node's are.
TENTH = {"bypass_grace_seconds": 0.5, "bypass_interval_seconds": 1.5}


class Callbacks(Resource):
    """Hands what comes by HTTP to the same handler as the WebSocket does."""

    isLeaf = True

    def __init__(self, running: Running) -> None:
        super().__init__()
        self.running = running
        self.taken = 0

    def render_POST(self, request: Request) -> bytes:
        self.taken += 1
        assert request.content is not None
        self.running.handler.handle_generated_batch(decode_generated(request.content.read()), Via.HTTP)
        return b""


class Poc:
    """A node, its client, and the callbacks."""

    def __init__(self) -> None:
        self.running = Running()
        self.bed = NodeTestBed()
        # What is slow is not to be taken for lost.
        self.bed.settings.ack_wait_seconds = 10
        self.callbacks = Callbacks(self.running)
        self.listening: Any = reactor.listenTCP(0, Site(self.callbacks, reactor=reactor), interface="127.0.0.1")

    async def init(self, **changes: Any) -> None:
        status, _answer = await self.bed.init(url=f"http://127.0.0.1:{self.listening.getHost().port}", **changes)
        assert status == 200

    def connect(self, **settings: Any) -> WebSocketClient:
        return self.running.connect(self.bed.node.base_url, **(TENTH | settings))

    async def end(self) -> None:
        await self.running.stop()
        await self.bed.end()
        await self.listening.stopListening()


@pytest.fixture
def poc() -> Iterator[Poc]:
    everything = Poc()
    yield everything
    pytest_twisted.blockon(Deferred.fromCoroutine(everything.end()))


@pytest_twisted.ensureDeferred
async def test_all_batches_come_over_the_websocket(poc: Poc) -> None:
    # Connected before the first walk, so that nothing goes by HTTP.
    poc.bed.settings.batches_per_walk = 0
    await poc.init()
    client = poc.connect()
    await until(lambda: client.status().state is WebSocketState.OPEN)
    poc.bed.settings.batches_per_walk = 1
    await until(lambda: client.status().acks >= 5)
    assert poc.callbacks.taken == 0


@pytest_twisted.ensureDeferred
async def test_refused_until_poc_runs(poc: Poc) -> None:
    client = poc.connect()
    await until(lambda: client.status().state is WebSocketState.REFUSED)
    assert client.status().reason == "closed by the node: 1008 PoW is not running"
    await poc.init()
    await until(lambda: client.status().acks > 0)


@pytest_twisted.ensureDeferred
async def test_a_restart_after_the_init_that_restarted_the_poc(poc: Poc) -> None:
    await poc.init()
    client = poc.connect(bypass_grace_seconds=1000)
    await until(lambda: client.status().acks > 0)
    await poc.init(block_hash="ANOTHER")
    client.restart()
    before = client.status().acks
    await until(lambda: client.status().acks > before + 2)
    assert client.status().connections == 2


@pytest_twisted.ensureDeferred
async def test_a_dead_connection_that_nobody_told_of(poc: Poc) -> None:
    """The node restarts its PoW: the old connection stays open, answers pings, and is never used again."""
    await poc.init()
    client = poc.connect()
    await until(lambda: client.status().acks > 0)
    await poc.init(block_hash="ANOTHER")
    taken = poc.callbacks.taken
    await until(lambda: poc.callbacks.taken > taken)
    before = client.status().acks
    await until(lambda: client.status().acks > before)
    assert client.status().connections == 2


@pytest_twisted.ensureDeferred
async def test_a_node_that_shuts_down_and_comes_back(poc: Poc) -> None:
    await poc.init()
    client = poc.connect()
    await until(lambda: client.status().acks > 0)
    await poc.bed.node.stopService()
    await until(lambda: "1012" in (client.status().last_problem or ""))
    poc.bed.node.startService()
    await poc.init()
    before = client.status().acks
    await until(lambda: client.status().acks > before)
