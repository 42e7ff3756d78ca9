"""The simulated chain on real sockets, and dapi's RPC client talking to it; the submitter's tests stand on it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from dapi.chain.rpc_answers import Broadcast
from dapi.errors import ChainRefusedError, ChainStaleError, ChainUnavailableError
from dapi.http.exchange import NoAnswerError
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.rpc import NEW_BLOCK
from dapi.simulator.chain.wire import bytes_field, message_field, varint_field
from tests.chain_tools import SECOND_NS, Key, batch
from tests.integration.simulated_chain import World, post, request, soon, subscriber


@pytest_twisted.async_yield_fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.end()


# The client against the chain.


@pytest_twisted.ensureDeferred
async def test_status_and_block(world: World) -> None:
    world.chain.produce_block()
    status = await soon(world.rpc.status())
    latest = world.chain.blockchain.latest
    assert (status.chain_id, status.height, status.block_time_ns) == ("gonka-simulated", 11, latest.time_ns)
    assert (status.block_hash, status.catching_up, status.earliest_height) == (latest.hash, False, 10)
    block = await soon(world.rpc.block(11))
    assert (block.hash, block.time_ns, block.height) == (latest.hash, latest.time_ns, 11)
    with pytest.raises(ChainUnavailableError, match="must be less than or equal"):
        await soon(world.rpc.block(12))


@pytest_twisted.ensureDeferred
async def test_a_transaction_from_broadcast_to_block(world: World) -> None:
    raw = world.tx()
    sent = await soon(world.rpc.broadcast_tx_sync(raw))
    assert sent.outcome is Broadcast.ACCEPTED
    assert (await soon(world.rpc.lookup(sent.hash))).result is None
    again = await soon(world.rpc.broadcast_tx_sync(raw))
    assert (again.outcome, again.hash) == (Broadcast.ALREADY_THERE, sent.hash)
    world.chain.produce_block()
    lookup = await soon(world.rpc.lookup(sent.hash))
    assert (lookup.status.height, lookup.result.height, lookup.result.code) == (11, 11, 0)
    assert await soon(world.rpc.tx(sent.hash)) == lookup.result
    assert world.chain.blockchain.batch_counts() == {"b-1": 1}


@pytest_twisted.ensureDeferred
async def test_a_transaction_that_fails_in_its_block(world: World) -> None:
    sent = await soon(world.rpc.broadcast_tx_sync(world.tx(batch(world.key.address, node_id=""))))
    world.chain.produce_block()
    result = await soon(world.rpc.tx(sent.hash))
    assert (result.code, result.codespace) == (1145, "inference")


@pytest_twisted.ensureDeferred
async def test_refusals_are_sorted(world: World) -> None:
    with pytest.raises(ChainRefusedError) as refused:
        await soon(world.rpc.broadcast_tx_sync(world.tx(chain_id="another")))
    assert (refused.value.code, refused.value.codespace) == (4, "sdk")
    with pytest.raises(ChainStaleError):
        await soon(world.rpc.broadcast_tx_sync(world.tx(timeout_ns=1)))
    far = world.chain.blockchain.latest.time_ns + 700 * SECOND_NS
    with pytest.raises(ChainStaleError, match="ttl exceeds"):
        await soon(world.rpc.broadcast_tx_sync(world.tx(timeout_ns=far)))
    world.chain.switches.is_mempool_full = True
    with pytest.raises(ChainUnavailableError, match="mempool is full"):
        await soon(world.rpc.broadcast_tx_sync(world.tx()))
    world.chain.switches.is_mempool_full = False
    world.chain.switches.is_mempool_rechecking = True
    with pytest.raises(ChainUnavailableError, match="rechecking"):
        await soon(world.rpc.broadcast_tx_sync(world.tx()))


@pytest_twisted.ensureDeferred
async def test_a_lost_confirmation_is_unknown_until_the_block(world: World) -> None:
    world.chain.switches.loses_confirmations = True
    sent = await soon(world.rpc.broadcast_tx_sync(world.tx()))
    assert sent.outcome is Broadcast.UNKNOWN
    world.chain.produce_block()
    assert (await soon(world.rpc.tx(sent.hash))).code == 0


@pytest_twisted.ensureDeferred
async def test_a_body_above_a_megabyte(world: World) -> None:
    largest = 1_000_000 * 3 // 4 - 100
    with pytest.raises(ChainRefusedError) as refused:
        await soon(world.rpc.broadcast_tx_sync(b"\xff" * largest))
    assert (refused.value.code, refused.value.codespace) == (2, "sdk"), "read, and no transaction"
    with pytest.raises(ChainRefusedError) as refused:
        await soon(world.rpc.broadcast_tx_sync(b"\xff" * (largest + 100)))
    assert (refused.value.code, refused.value.codespace) == (21, "rpc")


@pytest_twisted.ensureDeferred
async def test_accounts(world: World) -> None:
    asked = bytes_field(1, world.key.address)
    answer = await soon(world.rpc.abci_query("/cosmos.auth.v1beta1.Query/AccountInfo", asked))
    assert answer.value == message_field(1, asked + varint_field(3, 1))
    assert answer.height == 10
    with pytest.raises(ChainRefusedError, match="key not found") as refused:
        await soon(world.rpc.abci_query("/cosmos.auth.v1beta1.Query/AccountInfo", bytes_field(1, Key(2).address)))
    assert refused.value.code == 22


@pytest_twisted.ensureDeferred
async def test_indexing_off(world: World) -> None:
    world.chain.switches.is_indexing_off = True
    assert not (await soon(world.rpc.status())).has_tx_index
    with pytest.raises(ChainUnavailableError, match="indexing is disabled"):
        await soon(world.rpc.tx("00" * 32))


@pytest_twisted.ensureDeferred
async def test_500s_and_catching_up(world: World) -> None:
    world.chain.switches.answers_500 = True
    with pytest.raises(ChainUnavailableError, match="HTTP 500"):
        await soon(world.rpc.status())
    world.chain.switches.answers_500 = False
    world.chain.switches.is_catching_up = True
    assert (await soon(world.rpc.status())).catching_up


@pytest_twisted.ensureDeferred
async def test_fail_over_from_a_node_that_is_down(world: World) -> None:
    other = SimulatedChain(reactor, random.Random(0), block_seconds=None, chain_id="other")
    other.startService()
    rpc = world.client(other.url)
    assert (await soon(rpc.status())).chain_id == "other"
    await soon(other.stopService())
    assert (await soon(rpc.status())).chain_id == "gonka-simulated"
    await soon(rpc.close())


@pytest_twisted.ensureDeferred
async def test_a_slow_node_is_given_up(world: World) -> None:
    world.chain.switches.answer_delay_seconds = 0.1
    assert (await soon(world.rpc.status())).height == 10
    world.chain.switches.answer_delay_seconds = 60
    rpc = world.client(timeout_seconds=0.2)
    with pytest.raises(ChainUnavailableError, match=r"within 0\.2 s"):
        await soon(rpc.broadcast_tx_sync(world.tx()))
    assert len(world.chain.blockchain.mempool) == 0
    await soon(rpc.close())


@pytest_twisted.ensureDeferred
async def test_closing_ends_calls_under_way(world: World) -> None:
    world.chain.switches.answer_delay_seconds = 60
    call = world.rpc.status()
    await deferLater(reactor, 0.05)
    await soon(world.rpc.close())
    with pytest.raises(CancelledError):
        await soon(call)


# The chain's own life.


@pytest_twisted.ensureDeferred
async def test_blocks_come_by_themselves_and_stand_still_when_halted(world: World) -> None:
    await soon(world.chain.stopService())
    world.chain = SimulatedChain(reactor, random.Random(0), block_seconds=0.02)
    world.chain.startService()
    assert await soon(world.chain.when_height(4)) == 4
    assert world.chain.blockchain.blocks[4].time_ns > world.chain.blockchain.blocks[3].time_ns
    world.chain.switches.is_halted = True
    await deferLater(reactor, 0.1)
    assert world.chain.height == 4
    assert world.chain.produce_block().height == 5
    world.chain.switches.is_halted = False
    assert await soon(world.chain.when_height(6)) == 6
    assert await soon(world.chain.when_height(1)) >= 6


@pytest_twisted.ensureDeferred
async def test_a_wait_for_a_height_can_be_cancelled(world: World) -> None:
    waiting, other = world.chain.when_height(11), world.chain.when_height(11)
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    world.chain.produce_block()
    assert await other == 11


@pytest_twisted.ensureDeferred
async def test_restart(world: World) -> None:
    first = await soon(world.rpc.broadcast_tx_sync(world.tx()))
    world.chain.produce_block()
    raw = world.tx(batch(world.key.address, batch_id="b-2"))
    await soon(world.rpc.broadcast_tx_sync(raw))
    port, socket = world.chain.port, await subscriber(world.chain)
    await soon(world.chain.restart())
    await soon(socket.closed)
    assert world.chain.port == port
    assert (await soon(world.rpc.tx(first.hash))).height == 11
    world.chain.produce_block()
    assert world.chain.blockchain.batch_counts() == {"b-1": 1}, "the mempool is lost"
    assert (await soon(world.rpc.broadcast_tx_sync(raw))).outcome is Broadcast.ACCEPTED, "and so is its cache"
    await soon(world.chain.restart(keeps_mempool=True))
    world.chain.produce_block()
    assert world.chain.blockchain.batch_counts() == {"b-1": 1, "b-2": 1}


@pytest_twisted.ensureDeferred
async def test_while_it_is_down_nothing_listens(world: World) -> None:
    restarted = world.chain.restart(down_seconds=0.2)
    await deferLater(reactor, 0.1)
    with pytest.raises(NoAnswerError):
        await post(world.chain, request("status"))
    await soon(restarted)
    assert (await post(world.chain, request("status")))[0] == 200


@pytest_twisted.ensureDeferred
async def test_stopping_leaves_nothing_behind(world: World) -> None:
    world.chain.switches.answer_delay_seconds = 60
    call = world.rpc.status()
    socket = await subscriber(world.chain)
    await deferLater(reactor, 0.05)
    parent = MultiService()
    world.chain.setServiceParent(parent)
    await soon(world.chain.stopService())
    await soon(socket.closed)
    with pytest.raises(ChainUnavailableError):
        await soon(call)
    assert await soon(world.chain.stopService()) is None


# JSON-RPC.


@pytest_twisted.ensureDeferred
async def test_requests_that_are_none(world: World) -> None:
    status, answer = await post(world.chain, b"junk")
    assert (status, answer["error"]["code"]) == (500, -32700)
    status, answer = await post(world.chain, b"[]")
    assert (status, answer["error"]["code"]) == (500, -32600)
    status, answer = await post(world.chain, b" " * 1_000_001)
    assert (status, answer["error"]["code"]) == (400, -32600)
    assert answer["error"]["data"] == "error reading request body: http: request body too large"


@pytest_twisted.ensureDeferred
async def test_errors_of_methods_come_with_200(world: World) -> None:
    status, answer = await post(world.chain, request("no_such_method"))
    assert (status, answer["id"], answer["error"]["code"]) == (200, 5, -32601)
    status, answer = await post(world.chain, request("block", params={"height": 10}))
    assert (status, answer["error"]["code"]) == (200, -32602)


@pytest_twisted.ensureDeferred
async def test_a_call_without_id_gets_no_answer(world: World) -> None:
    assert await post(world.chain, b'{"jsonrpc":"2.0","method":"status"}') == (200, None)


# The WebSocket.


@pytest_twisted.ensureDeferred
async def test_new_blocks(world: World) -> None:
    socket = await subscriber(world.chain)
    world.chain.produce_block()
    assert await socket.call("subscribe", [NEW_BLOCK]) == {"jsonrpc": "2.0", "id": "1", "result": {}}
    sent = await soon(world.rpc.broadcast_tx_sync(world.tx()))
    for height in (12, 13):
        block = world.chain.produce_block()
        event = await soon(socket.received.get())
        assert (event["id"], event["result"]["query"]) == ("1", NEW_BLOCK)
        data = event["result"]["data"]
        assert data["type"] == "tendermint/event/NewBlock"
        assert data["value"]["block"]["header"]["height"] == str(height)
        assert data["value"]["block_id"]["hash"] == block.hash
        assert len(data["value"]["block"]["data"]["txs"]) == (height == 12)
    assert (await soon(world.rpc.tx(sent.hash))).height == 12
    socket.sendClose()
    await soon(socket.closed)


@pytest_twisted.ensureDeferred
async def test_subscriptions(world: World) -> None:
    socket = await subscriber(world.chain)
    assert (await socket.call("subscribe", {"query": NEW_BLOCK}, 7))["result"] == {}
    assert "already subscribed" in (await socket.call("subscribe", {"query": NEW_BLOCK}))["error"]["data"]
    assert (await socket.call("subscribe", {"query": "tm.event='Tx'"}))["error"]["code"] == -32602
    assert (await socket.call("unsubscribe_all", {}))["result"] == {}
    world.chain.produce_block()
    answer = await socket.call("status", {}, 9)
    assert answer["id"] == 9, "no event came before"
    assert answer["result"]["sync_info"]["latest_block_height"] == "11"
    socket.sendClose()
    await soon(socket.closed)


@pytest_twisted.ensureDeferred
async def test_a_subscriber_that_is_leaving_stops_no_blocks(world: World) -> None:
    socket = await subscriber(world.chain)
    await socket.call("subscribe", [NEW_BLOCK])
    (leaving,) = world.chain._server._sockets
    leaving.sendClose(1000)
    # The close frame is on its way, and the connection is not gone yet.
    assert world.chain.subscriptions == 1
    world.chain.produce_block()
    world.chain.cancel_subscriptions()
    await soon(socket.closed)


@pytest_twisted.ensureDeferred
async def test_who_answers_no_ping_is_dropped(world: World) -> None:
    socket = await subscriber(world.chain)
    world.chain._server._ping()
    await deferLater(reactor, 0.05)
    world.chain._server._ping()
    assert not socket.closed.called
    await deferLater(reactor, 0.05)
    socket.sendPong = lambda payload=None: None
    world.chain._server._ping()
    await deferLater(reactor, 0.05)
    world.chain._server._ping()
    await soon(socket.closed)
