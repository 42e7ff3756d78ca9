"""Two nodes of one chain on real sockets, of which the preferred one fails in every way that was measured.

See docs/protocol/measured.md, 'Chain nodes that fail' and 'Queries on a real chain'.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.logger import LogLevel

from dapi.chain.block_events import BlockEvents
from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.nodes import Standing
from dapi.chain.queries import contradiction_to
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import Broadcast, tx_hash_of
from dapi.errors import ChainPrunedError, ChainRefusedError, ChainUnavailableError, MempoolFullError
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.node_service import SimulatedNode
from dapi.submission.pace import max_size
from dapi.websocket.settings import ConnectionSettings
from tests.chain_tools import batch
from tests.integration.simulated_chain import ChainAndClient
from tests.integration.waiting import PATIENCE_SECONDS, soon, until
from tests.logs import Log, captured_log

reactor: Any = global_reactor
FIRST, SECOND = 0, 1
# Short for the test, and long for a machine that does something else meanwhile.
IMPATIENT_SECONDS = 4


class TwoNodes(ChainAndClient):
    """A chain whose blocks are made by hand, and a watcher of its two nodes, which follow at once when they can."""

    def __init__(self, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        super().__init__()
        self.first: SimulatedNode = self.chain.node
        self.second = self.chain.add_node()
        for node in self.chain.nodes:
            node.settings.blocks_per_second = 50
        urls = [self.first.url, self.second.url]
        self.rpc = ChainRpc(reactor, urls, timeout_seconds=timeout_seconds)
        settings = ConnectionSettings(retry_min_seconds=0.1, retry_max_seconds=0.2)
        self.events = BlockEvents(reactor, urls, random=random.Random(2), settings=settings, nodes=self.rpc.nodes)
        self.watcher = BlockWatcher(reactor, self.rpc, self.events, poll_seconds=0.05, quiet_seconds=0.2)

    async def start(self) -> None:
        self.watcher.startService()
        servers = [node.server for node in self.chain.nodes]
        await until(lambda: self.height == self.chain.height and any(server.subscriptions for server in servers))

    @property
    def height(self) -> int:
        return self.watcher.head.height if self.watcher.head is not None else 0

    def standing(self, index: int) -> Standing:
        return self.rpc.nodes[index].standing

    async def make_blocks(self, number: int) -> None:
        """Make blocks one by one; each has to become the head."""
        for _ in range(number):
            self.chain.produce_block()
            await until(lambda: self.height == self.chain.height)

    async def used_for_calls(self) -> SimulatedNode:
        name = (await soon(self.rpc.status())).node
        return next(node for node in self.chain.nodes if name == f"127.0.0.1:{node.port}")

    async def end(self) -> None:
        await soon(self.watcher.stopService())
        await super().end()


@pytest_twisted.async_yield_fixture
async def two() -> AsyncIterator[Any]:
    made = TwoNodes()
    yield made
    await made.end()


@pytest_twisted.async_yield_fixture
async def impatient() -> AsyncIterator[Any]:
    """Of a node that does not answer in time nothing more is expected."""
    made = TwoNodes(timeout_seconds=IMPATIENT_SECONDS)
    yield made
    await made.end()


@pytest_twisted.async_yield_fixture
async def log() -> AsyncIterator[Any]:
    with captured_log() as log:
        yield log


@pytest_twisted.ensureDeferred
async def test_a_partitioned_node_is_left_and_taken_up_again(two: TwoNodes, log: Log) -> None:
    await two.start()
    two.first.partition()
    # The node stands still, and says nothing: the head goes on by the other.
    await two.make_blocks(4)
    await until(lambda: two.standing(FIRST) is Standing.BEHIND)
    assert await two.used_for_calls() is two.second
    await until(lambda: two.second.server.subscriptions > 0)
    await two.make_blocks(4)
    assert two.watcher.problem is None
    assert two.rpc.nodes.status()[FIRST]["lag"] >= 3
    two.first.reconnect()
    await until(lambda: two.standing(FIRST) is Standing.SOUND)
    assert await two.used_for_calls() is two.first
    name = f"chain node 127.0.0.1:{two.first.port}"
    (left,) = log.warnings(name)
    assert " blocks behind: " in left
    assert len(log.lines(containing=name)) == 2
    assert len(log.lines(containing=f"{name} is back")) == 1


@pytest_twisted.ensureDeferred
async def test_a_transaction_reaches_the_validators_though_the_best_node_is_cut_off(two: TwoNodes) -> None:
    await two.start()
    two.first.partition()
    raw = two.tx()
    assert await soon(two.rpc.broadcast_tx_sync(raw)) is Broadcast.ACCEPTED
    await two.make_blocks(1)
    assert two.chain.blockchain.ledger == []
    assert two.standing(FIRST) is Standing.SOUND, "nothing shows yet that it stands still"
    assert await soon(two.rpc.broadcast_tx_sync(raw)) is Broadcast.ALREADY_THERE
    assert await soon(two.rpc.broadcast_tx_sync(raw, turn=1)) is Broadcast.ACCEPTED
    await two.make_blocks(1)
    assert two.chain.blockchain.batch_counts() == {"b-1": 1}


@pytest_twisted.ensureDeferred
async def test_a_frozen_node_is_given_up_and_costs_no_more(impatient: TwoNodes, log: Log) -> None:
    two = impatient
    await two.start()
    two.first.freeze()
    await two.make_blocks(1)
    await until(lambda: two.standing(FIRST) is Standing.FAILING)
    skipped_until = two.rpc.nodes[FIRST].skipped_until
    assert skipped_until > float("-inf")
    await until(lambda: two.second.server.subscriptions > 0)
    began = reactor.seconds()
    for _ in range(20):
        assert await two.used_for_calls() is two.second
        await two.make_blocks(1)
    # Each call that waited for it would take so long.
    assert reactor.seconds() - began < 10 * IMPATIENT_SECONDS
    assert two.watcher.problem is None
    text = f"chain node 127.0.0.1:{two.first.port} failed at status: no complete answer within {IMPATIENT_SECONDS} s"
    assert log.warnings("chain node") == [text]
    # It is asked again when its time is over.
    two.first.thaw()
    await until(lambda: two.standing(FIRST) is Standing.SOUND)
    assert reactor.seconds() >= skipped_until


@pytest_twisted.ensureDeferred
async def test_a_node_that_catches_up_is_left_though_it_is_the_first(two: TwoNodes) -> None:
    two.first.switches.is_catching_up = True
    two.first.switches.lag_blocks = 5
    for _ in range(8):
        two.chain.produce_block()
    await two.start()
    await until(lambda: two.standing(FIRST) is Standing.BEHIND)
    assert two.watcher.problem is None
    assert await two.used_for_calls() is two.second
    two.first.switches.is_catching_up = False
    two.first.switches.lag_blocks = 0
    await two.make_blocks(1)
    await until(lambda: two.standing(FIRST) is Standing.SOUND)


@pytest_twisted.ensureDeferred
async def test_a_lag_of_two_blocks_is_no_reason_to_leave(two: TwoNodes) -> None:
    two.first.switches.lag_blocks = 2
    await two.start()
    await two.make_blocks(6)
    await until(lambda: two.rpc.nodes.status()[FIRST]["lag"] == 2)
    assert two.standing(FIRST) is Standing.SOUND
    # What only the other has already is asked of the other.
    assert (await soon(two.rpc.block(two.chain.height))).height == two.chain.height


@pytest_twisted.ensureDeferred
async def test_a_node_of_another_chain_is_never_used(two: TwoNodes, log: Log) -> None:
    elsewhere = SimulatedChain(reactor, random.Random(0), chain_id="another", block_seconds=None, first_height=500)
    two.second.join(elsewhere.blockchain)
    await two.start()
    await until(lambda: two.standing(SECOND) is Standing.OTHER_CHAIN)
    assert (two.height, two.watcher.problem) == (10, None)
    await soon(two.first.stopService())
    with pytest.raises(ChainUnavailableError):
        await soon(two.rpc.broadcast_tx_sync(two.tx()))
    await until(lambda: str(two.watcher.problem).startswith("not reachable"))
    assert len(two.second.node.mempool) == 0
    [line] = log.lines(LogLevel.critical)
    assert line.endswith("is of another chain and is not used: its chain id is another, not gonka-simulated")


@pytest_twisted.ensureDeferred
async def test_a_network_that_begins_anew_under_its_old_id_is_told(two: TwoNodes, log: Log) -> None:
    await two.start()
    await two.make_blocks(3)
    assert two.watcher.head is not None
    known = two.watcher.head.block
    two.chain.begin_anew()
    await until(lambda: str(two.watcher.problem).startswith("another one: "))
    assert two.height == 13
    with pytest.raises(ChainUnavailableError):
        await soon(two.rpc.broadcast_tx_sync(two.tx()))
    # Each node tells, and what follows from it.
    await until(lambda: len(log.lines(LogLevel.critical, "it began anew")) == 2)
    await until(lambda: len(log.warnings("the chain is another one")) == 1)
    # A process that knows nothing of the old one but a block that was kept finds out, too.
    client = two.client()
    assert "it began anew" in str(await contradiction_to(client, known))
    await soon(client.close())


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_one_nodes_word(two: TwoNodes) -> None:
    two.first.settings.minimum_gas_price = 1.0
    await two.start()
    raw = two.tx()
    with pytest.raises(ChainRefusedError, match="insufficient fees") as refused:
        await soon(two.rpc.broadcast_tx_sync(raw))
    first, second = two.rpc.usable_nodes()
    assert (refused.value.node, refused.value.codespace, refused.value.code) == (first, "sdk", 13)
    assert await soon(two.rpc.broadcast_to(second, raw)) is Broadcast.ACCEPTED
    await two.make_blocks(1)
    assert two.chain.blockchain.batch_counts() == {"b-1": 1}


@pytest_twisted.ensureDeferred
async def test_mempools_with_limits_of_their_own(two: TwoNodes) -> None:
    await two.start()
    raw = two.tx(batch(two.key.address, nonces=range(2000), dist=[0.5] * 2000))
    two.first.node.mempool.max_txs_bytes = 10_000
    assert await soon(two.rpc.broadcast_tx_sync(raw)) is Broadcast.ACCEPTED
    two.second.node.mempool.clear()
    two.second.node.mempool.max_txs_bytes = 10_000
    with pytest.raises(MempoolFullError):
        await soon(two.rpc.broadcast_tx_sync(raw))
    for node in two.chain.nodes:
        node.node.mempool.max_txs_bytes = 10_000_000
        node.node.mempool.max_tx_bytes = 10_000
    with pytest.raises(ChainRefusedError) as refused:
        await soon(two.rpc.broadcast_tx_sync(raw))
    assert max_size(refused.value.log) == 10_000


@pytest_twisted.ensureDeferred
async def test_pruned_blocks_and_states_are_asked_of_the_other_node(two: TwoNodes) -> None:
    two.first.settings.kept_blocks = two.first.settings.kept_states = 3
    await two.start()
    await two.make_blocks(10)
    assert (await soon(two.rpc.block(12))).height == 12
    epoch = "/inference.inference.Query/EpochInfo"
    assert (await soon(two.rpc.abci_query(epoch, b"", 12))).height == 12
    await soon(two.second.stopService())
    with pytest.raises(ChainPrunedError) as pruned:
        await soon(two.rpc.block(12))
    assert pruned.value.lowest == 18
    with pytest.raises(ChainPrunedError):
        await soon(two.rpc.abci_query(epoch, b"", 12))


@pytest_twisted.ensureDeferred
async def test_each_nodes_hash_of_a_transaction(two: TwoNodes) -> None:
    await two.start()
    raw = two.tx()
    await soon(two.rpc.broadcast_tx_sync(raw))
    await two.make_blocks(1)
    await until(lambda: two.first.height == two.second.height)
    content = await soon(two.rpc.block_transactions(11))
    assert content.hashes == [tx_hash_of(raw)]
