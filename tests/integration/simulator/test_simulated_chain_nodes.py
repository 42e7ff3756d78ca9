"""Several nodes of one simulated chain on real sockets: docs/protocol/measured.md, 'Chain nodes that fail'."""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import Broadcast, tx_hash_of
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import Epochs
from dapi.simulator.chain.node import NodeSettings
from dapi.simulator.chain.rpc import NEW_BLOCK
from tests.chain_tools import SECOND_NS, batch
from tests.integration.simulated_chain import ChainAndClient, post, request, subscriber
from tests.integration.waiting import PATIENCE_SECONDS, soon, until


@pytest_twisted.async_yield_fixture
async def pair() -> AsyncIterator[ChainAndClient]:
    pair = ChainAndClient()
    yield pair
    await pair.end()


def client_of(url: str, timeout_seconds: float = PATIENCE_SECONDS) -> ChainRpc:
    return ChainRpc(reactor, [url], timeout_seconds=timeout_seconds, large_timeout_seconds=timeout_seconds)


@pytest_twisted.ensureDeferred
async def test_all_nodes_tell_the_same_and_a_transaction_goes_in_at_any(pair: ChainAndClient) -> None:
    other = pair.chain.add_node()
    rpc = client_of(other.url)
    raw = pair.tx()
    assert await soon(rpc.broadcast_tx_sync(raw)) is Broadcast.ACCEPTED
    block = pair.chain.produce_block()
    for client in (rpc, pair.rpc):
        status = await soon(client.status())
        assert (status.height, status.block_hash) == (block.height, block.hash)
        lookups = await soon(client.lookup_all([tx_hash_of(raw)]))
        assert lookups.results[tx_hash_of(raw)].code == 0
    await soon(rpc.close())


@pytest_twisted.ensureDeferred
async def test_a_partitioned_node_answers_stands_still_and_follows_at_its_pace(pair: ChainAndClient) -> None:
    other = pair.chain.add_node(settings=NodeSettings(blocks_per_second=50))
    rpc = client_of(other.url)
    socket = await subscriber(other)
    await socket.call("subscribe", [NEW_BLOCK])
    other.partition()
    raw = pair.tx()
    assert await soon(rpc.broadcast_tx_sync(raw)) is Broadcast.ACCEPTED
    for _ in range(8):
        pair.chain.produce_block()
    status = await soon(rpc.status())
    assert (status.height, status.catching_up) == (10, False)
    assert await soon(rpc.broadcast_tx_sync(raw)) is Broadcast.ALREADY_THERE
    assert pair.chain.blockchain.ledger == []
    began = reactor.seconds()
    other.reconnect()
    heights = [int((await soon(socket.received.get()))["result"]["data"]["value"]["block"]["header"]["height"])]
    await until(lambda: other.height == 18)
    assert reactor.seconds() - began >= 8 / 50 * 0.9
    assert heights == [11]
    pair.chain.produce_block()
    assert other.height == 19
    assert pair.chain.blockchain.batch_counts() == {"b-1": 1}
    await soon(rpc.close())


@pytest_twisted.ensureDeferred
async def test_a_frozen_node_accepts_and_does_not_answer_until_it_runs_again(pair: ChainAndClient) -> None:
    other = pair.chain.add_node(settings=NodeSettings(blocks_per_second=50))
    socket = await subscriber(other)
    await socket.call("subscribe", [NEW_BLOCK])
    other.freeze()
    rpc = client_of(other.url, timeout_seconds=0.3)
    raw = pair.tx()
    with pytest.raises(ChainUnavailableError, match=r"no complete answer within 0\.3 s"):
        await soon(rpc.status())
    with pytest.raises(ChainUnavailableError, match=r"no complete answer within 0\.3 s"):
        await soon(rpc.broadcast_tx_sync(raw))
    socket.sendMessage(request("status"))
    pair.chain.produce_block()
    await deferLater(reactor, 0.2)
    assert socket.received.pending == []
    other.thaw()
    # What came meanwhile is answered, and the block that came meanwhile is taken over.
    answer = await soon(socket.received.get())
    assert answer["result"]["sync_info"]["latest_block_height"] == "10"
    event = await soon(socket.received.get())
    assert event["result"]["data"]["value"]["block"]["header"]["height"] == "11"
    await soon(rpc.close())
    rpc = client_of(other.url)
    assert (await soon(rpc.status())).height == 11
    # So is a transaction whose sender has long gone.
    await until(lambda: len(pair.chain.blockchain.mempool))
    pair.chain.produce_block()
    assert pair.chain.blockchain.batch_counts() == {"b-1": 1}
    await soon(rpc.close())


@pytest_twisted.ensureDeferred
async def test_a_frozen_node_can_be_stopped(pair: ChainAndClient) -> None:
    socket = await subscriber(pair.chain.node)
    pair.chain.node.freeze()
    await soon(pair.chain.stopService())
    await soon(socket.closed)


@pytest_twisted.ensureDeferred
async def test_lagging_and_catching_up(pair: ChainAndClient) -> None:
    other = pair.chain.add_node(settings=NodeSettings(blocks_per_second=50))
    other.switches.lag_blocks = 5
    other.switches.is_catching_up = True
    for _ in range(10):
        pair.chain.produce_block()
    rpc = client_of(other.url)
    status = await soon(rpc.status())
    assert (status.height, status.catching_up) == (15, True)
    other.switches.lag_blocks = 0
    pair.chain.produce_block()
    await until(lambda: other.height == pair.chain.height)
    await soon(rpc.close())


@pytest_twisted.ensureDeferred
async def test_a_node_that_lies_about_what_is_in_a_block(pair: ChainAndClient) -> None:
    other = pair.chain.add_node()
    rpc = client_of(other.url)
    other.switches.invents_inclusions = True
    invented = pair.tx()
    assert await soon(rpc.broadcast_tx_sync(invented)) is Broadcast.ACCEPTED
    block = pair.chain.produce_block()
    result = (await soon(rpc.lookup_all([tx_hash_of(invented)]))).results[tx_hash_of(invented)]
    assert (result.height, result.code) == (block.height, 0)
    assert (block.records, await pair.result_of(invented)) == ((), None)
    other.switches.invents_inclusions, other.switches.hides_inclusions = False, True
    hidden = pair.tx()
    assert await soon(rpc.broadcast_tx_sync(hidden)) is Broadcast.ACCEPTED
    assert len(pair.chain.produce_block().records) == 1
    assert (await soon(rpc.lookup_all([tx_hash_of(hidden)]))).results == {}
    assert await pair.result_of(hidden) is not None
    await soon(rpc.close())


@pytest_twisted.ensureDeferred
async def test_a_network_that_begins_anew(pair: ChainAndClient) -> None:
    """With the same keys and another chain-id, or the same one."""
    await soon(pair.rpc.broadcast_tx_sync(pair.tx()))
    pair.chain.produce_block()
    assert (await soon(pair.rpc.status())).height == 11
    socket = await subscriber(pair.chain.node)
    for chain_id in (None, "another"):
        pair.chain.begin_anew(chain_id, epochs=Epochs(5))
        await until(lambda: pair.chain.subscriptions == 0)
        # A client that has seen the old chain takes the node for one of another.
        with pytest.raises(ChainUnavailableError, match="another chain"):
            await soon(pair.rpc.status())
        pair.rpc = pair.client()
        status = await soon(pair.rpc.status())
        assert (status.chain_id, status.height) == (chain_id or "gonka-simulated", 1)
        assert len(pair.chain.state.batches) == 0
        assert pair.key.address in pair.chain.state.accounts
    await soon(socket.closed)
    with pytest.raises(ChainRefusedError, match="signature verification failed"):
        await soon(pair.rpc.broadcast_tx_sync(pair.tx()))
    raw = pair.tx(batch(pair.key.address, height=5), chain_id="another")
    assert await soon(pair.rpc.broadcast_tx_sync(raw)) is Broadcast.ACCEPTED


@pytest_twisted.ensureDeferred
async def test_a_node_of_another_chain_under_the_same_url(pair: ChainAndClient) -> None:
    elsewhere = SimulatedChain(reactor, random.Random(0), chain_id="another", block_seconds=None)
    other = pair.chain.add_node()
    assert (await soon(client_of(other.url).status())).chain_id == "gonka-simulated"
    other.join(elsewhere.blockchain)
    assert (await soon(client_of(other.url).status())).chain_id == "another"


@pytest_twisted.ensureDeferred
async def test_a_transaction_is_found_in_its_block_without_an_index(pair: ChainAndClient) -> None:
    """See docs/protocol/measured.md, 'Queries on a real chain'."""
    pair.chain.switches.is_indexing_off = True
    raw = pair.tx(batch(pair.key.address, node_id=""))
    await soon(pair.rpc.broadcast_tx_sync(raw))
    pair.chain.produce_block()
    _, block = await post(pair.chain, request("block", params={"height": "11"}))
    assert block["result"]["block"]["data"]["txs"] == [base64.b64encode(raw).decode()]
    _, results = await post(pair.chain, request("block_results", params={"height": "11"}))
    (result,) = results["result"]["txs_results"]
    assert (result["codespace"], result["code"]) == ("inference", 1145)


@pytest_twisted.ensureDeferred
async def test_block_times_of_their_own() -> None:
    chain = SimulatedChain(reactor, random.Random(0), block_seconds=0.02, block_time_seconds=5.0)
    chain.startService()
    await soon(chain.when_height(4))
    times = [chain.blockchain.blocks[height].time_ns for height in range(1, 5)]
    assert [later - earlier for earlier, later in pairwise(times)] == [5 * SECOND_NS] * 3
    chain.is_halted = True
    before = chain.blockchain.latest.time_ns
    chain.pass_block_time(70)
    assert chain.produce_block().time_ns == before + 75 * SECOND_NS
    await soon(chain.stopService())
