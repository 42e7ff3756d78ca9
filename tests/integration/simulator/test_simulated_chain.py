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
from tests.integration.simulated_chain import ChainAndClient, post, request, subscriber
from tests.integration.waiting import soon, until


@pytest_twisted.async_yield_fixture
async def pair() -> AsyncIterator[ChainAndClient]:
    pair = ChainAndClient()
    yield pair
    await pair.end()


# The client against the chain.


@pytest_twisted.ensureDeferred
async def test_status_and_block(pair: ChainAndClient) -> None:
    pair.chain.produce_block()
    status = await soon(pair.rpc.status())
    latest = pair.chain.blockchain.latest
    assert (status.chain_id, status.height, status.block_time_ns) == ("gonka-simulated", 11, latest.time_ns)
    assert (status.block_hash, status.catching_up, status.earliest_height) == (latest.hash, False, 10)
    block = await soon(pair.rpc.block(11))
    assert (block.hash, block.time_ns, block.height) == (latest.hash, latest.time_ns, 11)
    with pytest.raises(ChainUnavailableError, match="must be less than or equal"):
        await soon(pair.rpc.block(12))


@pytest_twisted.ensureDeferred
async def test_a_transaction_from_broadcast_to_block(pair: ChainAndClient) -> None:
    raw = pair.tx()
    sent = await soon(pair.rpc.broadcast_tx_sync(raw))
    assert sent is Broadcast.ACCEPTED
    assert await pair.result_of(raw) is None
    assert await soon(pair.rpc.broadcast_tx_sync(raw)) is Broadcast.ALREADY_THERE
    pair.chain.produce_block()
    result = await pair.result_of(raw)
    assert result is not None
    assert (result.height, result.code) == (11, 0)
    assert pair.chain.blockchain.batch_counts() == {"b-1": 1}


@pytest_twisted.ensureDeferred
async def test_a_transaction_that_fails_in_its_block(pair: ChainAndClient) -> None:
    raw = pair.tx(batch(pair.key.address, node_id=""))
    await soon(pair.rpc.broadcast_tx_sync(raw))
    pair.chain.produce_block()
    result = await pair.result_of(raw)
    assert result is not None
    assert (result.code, result.codespace) == (1145, "inference")


@pytest_twisted.ensureDeferred
async def test_refusals_are_sorted(pair: ChainAndClient) -> None:
    with pytest.raises(ChainRefusedError) as refused:
        await soon(pair.rpc.broadcast_tx_sync(pair.tx(chain_id="another")))
    assert (refused.value.code, refused.value.codespace) == (4, "sdk")
    with pytest.raises(ChainStaleError):
        await soon(pair.rpc.broadcast_tx_sync(pair.tx(timeout_ns=1)))
    far = pair.chain.blockchain.latest.time_ns + 700 * SECOND_NS
    with pytest.raises(ChainStaleError, match="ttl exceeds"):
        await soon(pair.rpc.broadcast_tx_sync(pair.tx(timeout_ns=far)))
    pair.chain.switches.is_mempool_full = True
    with pytest.raises(ChainUnavailableError, match="mempool is full"):
        await soon(pair.rpc.broadcast_tx_sync(pair.tx()))
    pair.chain.switches.is_mempool_full = False
    pair.chain.switches.is_mempool_rechecking = True
    with pytest.raises(ChainUnavailableError, match="rechecking"):
        await soon(pair.rpc.broadcast_tx_sync(pair.tx()))


@pytest_twisted.ensureDeferred
async def test_a_lost_confirmation_is_unknown_until_the_block(pair: ChainAndClient) -> None:
    pair.chain.switches.loses_confirmations = True
    raw = pair.tx()
    assert await soon(pair.rpc.broadcast_tx_sync(raw)) is Broadcast.UNKNOWN
    pair.chain.produce_block()
    result = await pair.result_of(raw)
    assert result is not None
    assert result.code == 0


@pytest_twisted.ensureDeferred
async def test_a_body_above_a_megabyte(pair: ChainAndClient) -> None:
    """See docs/protocol/chain.md, 'Limits'."""
    largest = 1_000_000 * 3 // 4 - 100
    with pytest.raises(ChainRefusedError) as refused:
        await soon(pair.rpc.broadcast_tx_sync(b"\xff" * largest))
    assert (refused.value.code, refused.value.codespace) == (2, "sdk"), "read, and no transaction"
    with pytest.raises(ChainRefusedError) as refused:
        await soon(pair.rpc.broadcast_tx_sync(b"\xff" * (largest + 100)))
    assert (refused.value.code, refused.value.codespace) == (21, "rpc")


@pytest_twisted.ensureDeferred
async def test_accounts(pair: ChainAndClient) -> None:
    asked = bytes_field(1, pair.key.address)
    answer = await soon(pair.rpc.abci_query("/cosmos.auth.v1beta1.Query/AccountInfo", asked))
    assert answer.value == message_field(1, asked + varint_field(3, 1))
    assert answer.height == 10
    with pytest.raises(ChainRefusedError, match="key not found") as refused:
        await soon(pair.rpc.abci_query("/cosmos.auth.v1beta1.Query/AccountInfo", bytes_field(1, Key(2).address)))
    assert refused.value.code == 22


@pytest_twisted.ensureDeferred
async def test_indexing_off(pair: ChainAndClient) -> None:
    pair.chain.switches.is_indexing_off = True
    assert not (await soon(pair.rpc.status())).has_tx_index
    with pytest.raises(ChainUnavailableError, match="indexing is disabled"):
        await soon(pair.rpc.lookup_all(["00" * 32]))


@pytest_twisted.ensureDeferred
async def test_500s_and_catching_up(pair: ChainAndClient) -> None:
    pair.chain.switches.answers_500 = True
    with pytest.raises(ChainUnavailableError, match="HTTP 500"):
        await soon(pair.rpc.status())
    pair.chain.switches.answers_500 = False
    pair.chain.switches.is_catching_up = True
    assert (await soon(pair.rpc.status())).catching_up


@pytest_twisted.ensureDeferred
async def test_fail_over_from_a_node_that_is_down(pair: ChainAndClient) -> None:
    other = pair.chain.add_node()
    rpc = pair.client(other.url)
    assert (await soon(rpc.status())).node == f"127.0.0.1:{other.port}"
    await soon(other.stopService())
    assert (await soon(rpc.status())).node == f"127.0.0.1:{pair.chain.port}"
    await soon(rpc.close())


@pytest_twisted.ensureDeferred
async def test_a_slow_node_is_given_up(pair: ChainAndClient) -> None:
    pair.chain.switches.answer_delay_seconds = 0.1
    assert (await soon(pair.rpc.status())).height == 10
    pair.chain.switches.answer_delay_seconds = 60
    rpc = pair.client(timeout_seconds=0.2, large_timeout_seconds=0.2)
    with pytest.raises(ChainUnavailableError, match=r"within 0\.2 s"):
        await soon(rpc.broadcast_tx_sync(pair.tx()))
    assert len(pair.chain.blockchain.mempool) == 0
    await soon(rpc.close())


@pytest_twisted.ensureDeferred
async def test_closing_ends_calls_under_way(pair: ChainAndClient) -> None:
    pair.chain.switches.answer_delay_seconds = 60
    call = pair.rpc.status()
    await deferLater(reactor, 0.05)
    await soon(pair.rpc.close())
    with pytest.raises(CancelledError):
        await soon(call)


# The chain's own life.


@pytest_twisted.ensureDeferred
async def test_blocks_come_by_themselves_and_stand_still_when_halted(pair: ChainAndClient) -> None:
    await soon(pair.chain.stopService())
    pair.chain = SimulatedChain(reactor, random.Random(0), block_seconds=0.02)
    pair.chain.startService()
    assert await soon(pair.chain.when_height(4)) == 4
    assert pair.chain.blockchain.blocks[4].time_ns > pair.chain.blockchain.blocks[3].time_ns
    pair.chain.is_halted = True
    await deferLater(reactor, 0.1)
    assert pair.chain.height == 4
    assert pair.chain.produce_block().height == 5
    pair.chain.is_halted = False
    assert await soon(pair.chain.when_height(6)) == 6
    assert await soon(pair.chain.when_height(1)) >= 6


@pytest_twisted.ensureDeferred
async def test_a_wait_for_a_height_can_be_cancelled(pair: ChainAndClient) -> None:
    waiting, other = pair.chain.when_height(11), pair.chain.when_height(11)
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    pair.chain.produce_block()
    assert await other == 11


@pytest_twisted.ensureDeferred
async def test_restart(pair: ChainAndClient) -> None:
    first = pair.tx()
    await soon(pair.rpc.broadcast_tx_sync(first))
    pair.chain.produce_block()
    raw = pair.tx(batch(pair.key.address, batch_id="b-2"))
    await soon(pair.rpc.broadcast_tx_sync(raw))
    port, socket = pair.chain.port, await subscriber(pair.chain)
    await soon(pair.chain.restart())
    await soon(socket.closed)
    assert pair.chain.port == port
    result = await pair.result_of(first)
    assert result is not None
    assert result.height == 11
    pair.chain.produce_block()
    assert pair.chain.blockchain.batch_counts() == {"b-1": 1}, "the mempool is lost"
    assert await soon(pair.rpc.broadcast_tx_sync(raw)) is Broadcast.ACCEPTED, "and so is its cache"
    await soon(pair.chain.restart(keeps_mempool=True))
    pair.chain.produce_block()
    assert pair.chain.blockchain.batch_counts() == {"b-1": 1, "b-2": 1}


@pytest_twisted.ensureDeferred
async def test_while_it_is_down_nothing_listens(pair: ChainAndClient) -> None:
    restarted = pair.chain.restart(down_seconds=3)
    await until(lambda: not pair.chain.running)
    with pytest.raises(NoAnswerError):
        await post(pair.chain, request("status"))
    assert not restarted.called
    await soon(restarted)
    assert (await post(pair.chain, request("status")))[0] == 200


@pytest_twisted.ensureDeferred
async def test_stopping_leaves_nothing_behind(pair: ChainAndClient) -> None:
    pair.chain.switches.answer_delay_seconds = 60
    call = pair.rpc.status()
    socket = await subscriber(pair.chain)
    await deferLater(reactor, 0.05)
    parent = MultiService()
    pair.chain.setServiceParent(parent)
    await soon(pair.chain.stopService())
    await soon(socket.closed)
    with pytest.raises(ChainUnavailableError):
        await soon(call)
    await soon(pair.chain.stopService())


# JSON-RPC.


@pytest_twisted.ensureDeferred
async def test_requests_that_are_none(pair: ChainAndClient) -> None:
    status, answer = await post(pair.chain, b"junk")
    assert (status, answer["error"]["code"]) == (500, -32700)
    status, answer = await post(pair.chain, b"[]")
    assert (status, answer["error"]["code"]) == (500, -32600)
    status, answer = await post(pair.chain, b" " * 1_000_001)
    assert (status, answer["error"]["code"]) == (400, -32600)
    assert answer["error"]["data"] == "error reading request body: http: request body too large"


@pytest_twisted.ensureDeferred
async def test_errors_of_methods_come_with_200(pair: ChainAndClient) -> None:
    status, answer = await post(pair.chain, request("no_such_method"))
    assert (status, answer["id"], answer["error"]["code"]) == (200, 5, -32601)
    status, answer = await post(pair.chain, request("block", params={"height": 10}))
    assert (status, answer["error"]["code"]) == (200, -32602)


@pytest_twisted.ensureDeferred
async def test_a_call_without_id_gets_no_answer(pair: ChainAndClient) -> None:
    assert await post(pair.chain, b'{"jsonrpc":"2.0","method":"status"}') == (200, None)


# The WebSocket.


@pytest_twisted.ensureDeferred
async def test_new_blocks(pair: ChainAndClient) -> None:
    socket = await subscriber(pair.chain)
    pair.chain.produce_block()
    assert await socket.call("subscribe", [NEW_BLOCK]) == {"jsonrpc": "2.0", "id": "1", "result": {}}
    raw = pair.tx()
    await soon(pair.rpc.broadcast_tx_sync(raw))
    for height in (12, 13):
        block = pair.chain.produce_block()
        event = await soon(socket.received.get())
        assert (event["id"], event["result"]["query"]) == ("1", NEW_BLOCK)
        data = event["result"]["data"]
        assert data["type"] == "tendermint/event/NewBlock"
        assert data["value"]["block"]["header"]["height"] == str(height)
        assert data["value"]["block_id"]["hash"] == block.hash
        assert len(data["value"]["block"]["data"]["txs"]) == (height == 12)
    result = await pair.result_of(raw)
    assert result is not None
    assert result.height == 12
    socket.sendClose()
    await soon(socket.closed)


@pytest_twisted.ensureDeferred
async def test_subscriptions(pair: ChainAndClient) -> None:
    socket = await subscriber(pair.chain)
    assert (await socket.call("subscribe", {"query": NEW_BLOCK}, 7))["result"] == {}
    assert "already subscribed" in (await socket.call("subscribe", {"query": NEW_BLOCK}))["error"]["data"]
    assert (await socket.call("subscribe", {"query": "tm.event='Tx'"}))["error"]["code"] == -32602
    assert (await socket.call("unsubscribe_all", {}))["result"] == {}
    pair.chain.produce_block()
    answer = await socket.call("status", {}, 9)
    assert answer["id"] == 9, "no event came before"
    assert answer["result"]["sync_info"]["latest_block_height"] == "11"
    socket.sendClose()
    await soon(socket.closed)


@pytest_twisted.ensureDeferred
async def test_a_subscriber_that_is_leaving_stops_no_blocks(pair: ChainAndClient) -> None:
    socket = await subscriber(pair.chain)
    await socket.call("subscribe", [NEW_BLOCK])
    (leaving,) = pair.chain.node.server._sockets
    leaving.sendClose(1000)
    # The close frame is on its way, and the connection is not gone yet.
    assert pair.chain.subscriptions == 1
    pair.chain.produce_block()
    pair.chain.cancel_subscriptions()
    await soon(socket.closed)


@pytest_twisted.ensureDeferred
async def test_who_answers_no_ping_is_dropped(pair: ChainAndClient, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = await subscriber(pair.chain)
    (chains_end,) = pair.chain.node.server._sockets
    for _ in range(2):
        pair.chain.node.server._ping()
        await until(lambda: chains_end._was_heard)
    assert not socket.closed.called
    pings: list[object] = []
    monkeypatch.setattr(socket, "onPing", pings.append)
    pair.chain.node.server._ping()
    await until(lambda: pings)
    assert not socket.closed.called
    pair.chain.node.server._ping()
    await soon(socket.closed)
