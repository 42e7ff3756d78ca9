"""A chain in trouble: everything waits on disk, nothing grows, and all goes on afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import deferLater

from dapi.chain.rpc_answers import Broadcast
from dapi.errors import ChainUnavailableError
from dapi.messages import State
from tests.integration.submission.chain_and_dapi import HALTED_SECONDS, SECOND_NS, Chain, Dapi, Maker, key, reactor
from tests.integration.waiting import until

MAX_IN_FLIGHT = 4


async def waits_and_goes_on(
    chain: Chain, dapi: Dapi, begin: Callable[[], object], end: Callable[[], object], **wanted: str
) -> None:
    """Store what is far more than may be under way, during the trouble; then see it confirmed, each once."""
    begin()
    for number in range(30):
        await dapi.record_large(1000 * number, 100)
    await dapi.when_status(**wanted)
    for _ in range(10):
        await deferLater(reactor, 0.1)
        assert dapi.submitter.status()["transactions_in_flight"] <= MAX_IN_FLIGHT
        counts = await dapi.outbox.counts()
        assert counts["stored"] + counts["in_flight"] == 30
    ended = end()
    if isinstance(ended, Deferred):
        await ended
    await dapi.when_all(State.CONFIRMED, 30)
    assert set(chain.blockchain.batch_counts().values()) == {1}


SWITCHES = {
    "catching up": ("is_catching_up", {"state": "waiting", "reason": "catching up"}),
    "mempool full": ("is_mempool_full", {"problem": "mempool is full"}),
    "rechecking": ("is_mempool_rechecking", {"problem": "rechecking"}),
    "500": ("answers_500", {"state": "waiting", "reason": "HTTP 500"}),
}


@pytest.mark.parametrize("trouble", SWITCHES)
@pytest_twisted.ensureDeferred
async def test_it_waits_and_goes_on(maker: Maker, trouble: str) -> None:
    name, wanted = SWITCHES[trouble]
    chain = maker.chain(0.05)
    # Seven messages a transaction: there is more than may be under way.
    dapi = maker.dapi(chain, max_in_flight=MAX_IN_FLIGHT, max_transaction_bytes=10_000)
    await waits_and_goes_on(
        chain,
        dapi,
        lambda: setattr(chain.switches, name, True),
        lambda: setattr(chain.switches, name, False),
        **wanted,
    )


@pytest_twisted.ensureDeferred
async def test_a_broadcast_without_an_answer_may_have_arrived(maker: Maker) -> None:
    chain = maker.chain(0.05)
    chain.switches.loses_confirmations = True
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await dapi.when_all(State.CONFIRMED, 1)
    assert len(chain.blockchain.ledger) == 1


@pytest_twisted.ensureDeferred
async def test_out_of_reach_and_back(maker: Maker) -> None:
    chain, dapi = maker.pair(0.05, max_in_flight=MAX_IN_FLIGHT, max_transaction_bytes=10_000)
    await dapi.when_status(state="submitting")
    await chain.simulated.stopService()
    await waits_and_goes_on(
        chain, dapi, lambda: None, chain.simulated.startService, state="waiting", reason="not reachable"
    )


@pytest_twisted.ensureDeferred
async def test_a_restart_of_the_chain_loses_the_mempool_and_nothing_else(maker: Maker) -> None:
    chain, dapi = maker.pair(None)
    await dapi.record(1)
    await chain.mempool(1)
    first = dapi.hash()
    await chain.simulated.restart(down_seconds=0.3)
    # Offered again, with its own bytes, long before its time has passed.
    await chain.mempool(1)
    assert dapi.hash() == first
    chain.simulated.produce_block()
    await dapi.when_all(State.CONFIRMED, 1)


@pytest_twisted.ensureDeferred
async def test_a_halt_stops_all_clocks(maker: Maker) -> None:
    chain = maker.chain(None)
    chain.switches.drop_fraction = 1.0
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await dapi.when_sent()
    first = dapi.hash()
    # No block, and so no time that passes: it is offered again and again, in the same bytes.
    await until(lambda: len(dapi.rpc.sent) > 5)
    assert set(dapi.rpc.sent) == {first}
    # The first block after a halt brings the time that has passed.
    chain.time_ns += 3600 * SECOND_NS
    chain.switches.drop_fraction = 0.0
    chain.simulated.produce_block()
    await chain.mempool(1)
    assert dapi.hash() != first
    chain.simulated.produce_block()
    await dapi.when_all(State.CONFIRMED, 1)


@pytest_twisted.ensureDeferred
async def test_halted_it_says_so_and_offers_nothing(maker: Maker) -> None:
    chain = maker.chain(None)
    # It halts while the submitter still asks for the account, and what comes then waits, too.
    chain.switches.answer_delay_seconds = 0.1
    dapi = maker.dapi(chain)
    await dapi.when_status(state="submitting")
    # As if so much time had gone by.
    dapi.watcher._moved_at -= HALTED_SECONDS + 1
    await dapi.record(1)
    await dapi.when_status(state="waiting", reason="halted")
    await deferLater(reactor, 0.5)
    assert dapi.rpc.sent == []
    chain.switches.answer_delay_seconds = 0
    chain.simulated.produce_block()
    await chain.mempool(1)
    chain.simulated.produce_block()
    await dapi.when_all(State.CONFIRMED, 1)


@pytest_twisted.ensureDeferred
async def test_slow_answers_are_waited_for(maker: Maker) -> None:
    chain = maker.chain(0.2)
    chain.switches.answer_delay_seconds = 0.3
    dapi = maker.dapi(chain)
    for nonce in range(10):
        await dapi.record(nonce)
    await dapi.when_all(State.CONFIRMED, 10)
    assert set(chain.blockchain.batch_counts().values()) == {1}


@pytest_twisted.ensureDeferred
async def test_stopped_while_some_answers_have_failed_and_others_are_waited_for(maker: Maker) -> None:
    chain, dapi = maker.pair(None)
    for number in range(1, 4):
        await dapi.record(number)
        await chain.mempool(number)
    # All are to be offered again the next time that they are looked up.
    looked_up = dapi.submitter.looked_up
    await until(lambda: dapi.submitter.looked_up != looked_up)
    for transaction in dapi.submitter._in_flight.all():
        transaction.offered_at = float("-inf")
    # One offer fails at once, the others keep waiting: a stop must not be taken for one more failure.
    failed: list[bytes] = []

    def broadcast(raw: bytes, *, turn: int = 0) -> Deferred[Broadcast]:
        failed.append(raw)
        return fail(ChainUnavailableError("no answer")) if len(failed) == 1 else Deferred()

    dapi.rpc.broadcast_tx_sync = broadcast  # type: ignore[method-assign]
    await until(lambda: len(failed) > 2)
    await maker.stop(dapi)


@pytest_twisted.ensureDeferred
async def test_without_an_index_all_is_confirmed_from_the_blocks(maker: Maker) -> None:
    chain = maker.chain(0.05)
    chain.switches.is_indexing_off = True
    dapi = maker.dapi(chain, max_transaction_bytes=10_000)
    for number in range(30):
        await dapi.record_large(1000 * number, 100)
    await dapi.when_all(State.CONFIRMED, 30)
    assert set(chain.blockchain.batch_counts().values()) == {1}


@pytest_twisted.ensureDeferred
async def test_an_index_that_lags_behind_the_blocks(maker: Maker) -> None:
    chain = maker.chain(0.05)
    chain.switches.index_delay_blocks = 1
    dapi = maker.dapi(chain)
    for nonce in range(20):
        await dapi.record(nonce)
    await dapi.when_all(State.CONFIRMED, 20)
    assert set(chain.blockchain.batch_counts().values()) == {1}


@pytest_twisted.ensureDeferred
async def test_in_the_last_block_of_its_time_with_an_index_that_lags(maker: Maker) -> None:
    chain = maker.chain(None)
    chain.switches.index_delay_blocks = 1
    chain.switches.drop_fraction = 1.0
    dapi = maker.dapi(chain)
    await dapi.record(1)
    await dapi.when_sent()
    ((timeout_ns,),) = dapi.look("SELECT tx_timeout_ns FROM unfinished")
    while chain.time_ns + 10 * SECOND_NS <= timeout_ns:
        await dapi.next_block(chain)
    # Forgotten by the mempool, it is offered again, and gets into the last block that it can be in.
    chain.switches.drop_fraction = 0.0
    chain.simulated.lose_mempools()
    await chain.mempool(1)
    chain.simulated.produce_block()
    assert chain.time_ns <= timeout_ns < chain.time_ns + 5 * SECOND_NS
    await deferLater(reactor, 0.5)
    chain.simulated.produce_block()
    await dapi.when_all(State.CONFIRMED, 1)
    assert len(chain.blockchain.ledger) == 1


@pytest_twisted.ensureDeferred
async def test_the_next_url_is_used_while_the_first_does_not_answer(maker: Maker) -> None:
    chain, gone = maker.chain(0.05), maker.chain(None)
    await gone.simulated.stopService()
    dapi = maker.dapi(gone, chain)
    for nonce in range(5):
        await dapi.record(nonce)
    await dapi.when_all(State.CONFIRMED, 5)
    assert dapi.watcher.head is not None
    assert dapi.watcher.head.node == chain.simulated.url.removeprefix("http://")


@pytest_twisted.ensureDeferred
async def test_a_url_of_another_network_is_not_fallen_back_to(maker: Maker) -> None:
    chain, other = maker.chain(0.05), maker.chain(0.05, chain_id="another-network")
    dapi = maker.dapi(chain, other)
    await dapi.record(1)
    await dapi.when_all(State.CONFIRMED, 1)
    await chain.simulated.stopService()
    await dapi.record(2)
    await dapi.when_status(state="waiting", reason="another-network")
    await deferLater(reactor, 0.5)
    assert other.blockchain.ledger == []
    chain.simulated.startService()
    await dapi.when_all(State.CONFIRMED, 2)


@pytest_twisted.ensureDeferred
async def test_started_anew_in_every_state(maker: Maker) -> None:
    chain = maker.chain(0.05)
    chain.switches.drop_fraction = 0.3
    dapi = maker.dapi(chain, max_transaction_bytes=3_000)
    for round_ in range(8):
        for nonce in range(5):
            await dapi.record(10 * round_ + nonce)
        await deferLater(reactor, 0.03 * round_)
        await maker.stop(dapi)
        dapi = maker.dapi(chain, max_transaction_bytes=3_000)
    await dapi.when_all(State.CONFIRMED, 40)
    assert set(chain.blockchain.batch_counts().values()) == {1}
    timeouts = [delivered.tx_hash for delivered in chain.blockchain.ledger]
    assert len({chain.blockchain.find(tx_hash).tx.timeout_ns for tx_hash in timeouts}) == len(set(timeouts))  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred
async def test_timestamps_ascend_over_a_restart_however_the_dice_fall(maker: Maker) -> None:
    chain, dapi = maker.pair(None)
    for number in range(1, 11):
        await dapi.record(number)
        await chain.mempool(number)
    last = max(tx.timeout_ns or 0 for tx in chain.blockchain.mempool.waiting())
    await maker.stop(dapi)
    # In the same block, with the same dice.
    dapi = maker.dapi(chain)
    for number in range(11, 16):
        await dapi.record(number)
        await chain.mempool(number)
    later = [tx.timeout_ns or 0 for tx in chain.blockchain.mempool.waiting()][10:]
    assert min(later) > last
    chain.simulated.produce_block()
    await dapi.when_all(State.CONFIRMED, 15)


@pytest_twisted.ensureDeferred
async def test_two_processes_with_one_key_that_draw_the_same_timestamp(maker: Maker) -> None:
    chain = maker.chain(None)
    first = maker.dapi(chain, name="first")
    second = maker.dapi(chain, name="second")
    await first.record(1)
    await chain.mempool(1)
    # The mempool refuses the second one, which goes again with another timestamp.
    ((taken_ns,),) = first.look("SELECT tx_timeout_ns FROM unfinished")
    timestamps = second.submitter._timestamps
    usual = timestamps.next
    # Until it has sent something: a turn with nothing to send draws timestamps, too.
    timestamps.next = lambda block_time_ns: usual(block_time_ns) if second.rpc.sent else taken_ns  # type: ignore[method-assign]
    await second.record(2)
    await second.when_status(problem="already used timeout")
    chain.simulated.produce_block()
    await first.when_all(State.CONFIRMED, 1)
    while not chain.blockchain.mempool:
        await second.next_block(chain)
        await deferLater(reactor, 0.1)
    chain.simulated.produce_block()
    await second.when_all(State.CONFIRMED, 1)
    assert set(chain.blockchain.batch_counts().values()) == {1}


@pytest_twisted.ensureDeferred
async def test_two_processes_with_one_key_under_load(maker: Maker) -> None:
    chain = maker.chain(0.05)
    chain.switches.drop_fraction = 0.2
    dapis = [maker.dapi(chain, name=name, max_transaction_bytes=3_000) for name in ("first", "second")]
    for nonce in range(60):
        await dapis[nonce % 2].record(nonce)
    for dapi in dapis:
        await dapi.when_all(State.CONFIRMED, 30)
    assert len(chain.batch_ids()) == 60
    assert set(chain.blockchain.batch_counts().values()) == {1}
    assert {creator for _, creator, _ in chain.state.batches} == {key(1).address}
