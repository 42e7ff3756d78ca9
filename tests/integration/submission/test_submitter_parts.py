"""Batches of more nonces than the chain takes in one message: sent in parts, and one batch all the same."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from dapi.messages import State
from dapi.simulator.chain.messages import HostMessage, SubmitPocBatch
from dapi.simulator.chain.rules import TxRefused
from tests.integration.submission.chain_and_dapi import STAGE, Chain, Maker, key, reason_of
from tests.integration.waiting import until


def nonces_on(chain: Chain) -> list[int]:
    """All nonces that the chain holds, repeated ones repeated."""
    return sorted(nonce for stored in chain.state.batches.values() for nonce in stored.message.nonces)


def nonces_waiting(chain: Chain) -> int:
    """How many nonces are in transactions that wait for a block."""
    messages = [message for tx in chain.blockchain.mempool.waiting() for message in tx.host_messages()]
    return sum(len(message.nonces) for message in messages if isinstance(message, SubmitPocBatch))


def refuse(chain: Chain, *part_ids: str) -> None:
    """Have the chain refuse these for good, and nothing else."""

    def refusal_of(message: HostMessage) -> TxRefused | None:
        is_refused = isinstance(message, SubmitPocBatch) and message.batch_id in part_ids
        return TxRefused("inference", 1155, "participant is blocked") if is_refused else None

    chain.state.refuse_message = refusal_of


@pytest_twisted.ensureDeferred
async def test_parts_have_ids_of_the_batch_and_each_nonce_is_on_the_chain_once(maker: Maker) -> None:
    chain, dapi = maker.pair()
    receipt = await dapi.record_large(0, 25_000)
    await dapi.record(99_999)
    rows = await dapi.when_all(State.CONFIRMED, 2)
    batch_id = receipt.batch_id
    parts = {f"{batch_id}-0-9999", f"{batch_id}-10000-19999", f"{batch_id}-20000-24999"}
    assert parts < chain.batch_ids()
    assert len(chain.batch_ids()) == 4
    assert nonces_on(chain) == [*range(25_000), 99_999]
    assert chain.state.doubled_nonces() == set()
    for (height, creator, _), stored in chain.state.batches.items():
        assert (height, creator, stored.message.node_id) == (STAGE, key(1).address, "node1")
    part = chain.state.batches[STAGE, key(1).address, f"{batch_id}-10000-19999"].message
    assert part.dist == tuple(nonce / 2**20 for nonce in part.nonces)
    row = rows[batch_id]
    assert (row.nonces, row.state) == (25_000, State.CONFIRMED)
    record = chain.blockchain.find(row.tx_hash or "")
    assert record is not None
    assert record.height == row.included_height == max(stored.received_at_height for stored in parts_of(chain, parts))


def parts_of(chain: Chain, ids: set[str]) -> list[Any]:
    return [stored for (_, _, batch_id), stored in chain.state.batches.items() if batch_id in ids]


@pytest_twisted.ensureDeferred
async def test_too_large_for_a_transaction_it_is_cut_smaller(maker: Maker) -> None:
    chain, dapi = maker.pair(max_transaction_bytes=20_000)
    await dapi.record_large(0, 5_000)
    await dapi.when_all(State.CONFIRMED, 1)
    assert nonces_on(chain) == list(range(5_000))
    sizes = {len(chain.blockchain.find(each.tx_hash).tx.raw) for each in chain.blockchain.ledger}  # type: ignore[union-attr]
    assert max(sizes) <= 20_000


@pytest_twisted.ensureDeferred
async def test_it_is_listed_once_and_done_when_its_last_part_is(maker: Maker) -> None:
    chain, dapi = maker.pair(None, max_transaction_bytes=100_000, max_in_flight=2)
    receipt = await dapi.record_large(0, 25_000)
    confirmed = 0
    while confirmed < 1:
        (row,) = (await dapi.rows()).values()
        assert row.batch_id == receipt.batch_id
        counts = await dapi.outbox.counts()
        assert sum(counts.values()) == 1
        # Delivered again meanwhile, it is known.
        assert (await dapi.record_large(0, 25_000)).seen > 1
        await until(lambda: chain.blockchain.mempool)
        await dapi.next_block(chain)
        confirmed = (await dapi.outbox.counts())["confirmed"]
        missing = 25_000 - len(nonces_on(chain))
        assert confirmed == 0 or missing == 0
    assert nonces_on(chain) == list(range(25_000))
    assert len(chain.transactions()) > 2
    assert (await dapi.record_large(0, 25_000)).seen > 2
    assert (await dapi.outbox.counts())["confirmed"] == 1


@pytest_twisted.ensureDeferred
async def test_dropped_parts_go_again_over_restarts(maker: Maker) -> None:
    chain = maker.chain(0.05)
    chain.switches.drop_fraction = 0.5
    dapi = maker.dapi(chain, max_transaction_bytes=100_000)
    await dapi.record_large(0, 30_000)
    for _ in range(3):
        await dapi.when_sent()
        await maker.stop(dapi)
        dapi = maker.dapi(chain, max_transaction_bytes=100_000)
    await dapi.when_all(State.CONFIRMED, 1)
    assert nonces_on(chain) == list(range(30_000))
    assert set(chain.blockchain.batch_counts().values()) == {1}


@pytest_twisted.ensureDeferred
async def test_it_fails_with_its_first_part_and_is_sent_again_as_a_whole(maker: Maker) -> None:
    chain, dapi = maker.pair(0.05)
    chain.switches.is_catching_up = True
    receipt = await dapi.record_large(0, 25_000)
    refuse(chain, f"{receipt.batch_id}-10000-19999")
    chain.switches.is_catching_up = False
    rows = await dapi.when_all(State.FAILED, 1)
    assert "inference 1155" in reason_of(rows[receipt.batch_id])
    assert dapi.look("SELECT * FROM unfinished") == []
    refuse(chain)
    await dapi.outbox.retry(receipt.batch_id)
    await dapi.when_all(State.CONFIRMED, 1)
    assert nonces_on(chain) == list(range(25_000))


@pytest_twisted.ensureDeferred
async def test_it_does_not_fail_while_another_part_is_under_way(maker: Maker) -> None:
    chain, dapi = maker.pair(None, max_transaction_bytes=100_000)
    receipt = await dapi.record_large(0, 20_000)
    await until(lambda: nonces_waiting(chain) == 20_000)
    waiting = chain.blockchain.mempool.waiting()
    first, others = waiting[0], waiting[1:]
    assert len(others) > 1
    refused = next(iter(first.host_messages()))
    assert isinstance(refused, SubmitPocBatch)
    refuse(chain, refused.batch_id)
    for tx in others:
        chain.blockchain.mempool.remove(tx.hash)
    await dapi.next_block(chain)
    await until(lambda: dapi.look("SELECT 1 FROM unfinished WHERE state = 'failing'"))
    # Sent again now, a part could be on the chain twice: it is not offered yet.
    assert (await dapi.outbox.counts())["in_flight"] == 1
    assert dapi.look("SELECT DISTINCT state FROM unfinished WHERE parent IS NOT NULL") == [("in_flight",)]
    # A restart changes nothing of that.
    await maker.stop(dapi)
    dapi = maker.dapi(chain, max_transaction_bytes=100_000)
    for tx in others:
        chain.blockchain.mempool.put(tx)
    await dapi.next_block(chain)
    rows = await dapi.when_all(State.FAILED, 1)
    assert "inference 1155" in reason_of(rows[receipt.batch_id])
    assert dapi.look("SELECT * FROM unfinished") == []


@pytest_twisted.ensureDeferred
async def test_parts_that_were_cut_when_more_was_allowed_are_cut_again(maker: Maker) -> None:
    chain = maker.chain(0.05)
    chain.switches.is_mempool_full = True
    dapi = maker.dapi(chain, max_in_flight=1)
    await dapi.record_large(0, 90_000)
    await until(lambda: dapi.look("SELECT count(*) FROM unfinished WHERE state = 'stored'") > [(1,)])
    await maker.stop(dapi)
    chain.state.rules.max_nonces = 4_000
    chain.switches.is_mempool_full = False
    # What was sent cannot be cut any more; what was not is.
    dapi = maker.dapi(chain, max_nonces=4_000)
    await dapi.when(lambda counts: counts["confirmed"] + counts["failed"] == 1)
    if (await dapi.outbox.counts())["failed"]:
        (batch_id,) = await dapi.rows()
        await dapi.outbox.retry(batch_id)
    await dapi.when_all(State.CONFIRMED, 1)
    assert set(nonces_on(chain)) == set(range(90_000))
    assert dapi.look("SELECT * FROM unfinished") == []
