"""A database that was used with one chain, and then with another one."""

from __future__ import annotations

import pytest
import pytest_twisted

from dapi.chain import block_watcher
from dapi.messages import State
from tests.integration.submission.chain_and_dapi import STAGE, Maker
from tests.integration.waiting import until


@pytest_twisted.ensureDeferred
async def test_batches_of_another_chain_are_not_sent(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_watcher, "_ANOTHER_CHAIN_SECONDS", 1.0)
    first, second = maker.chain(None), maker.chain(0.05, chain_id="another-network")
    dapi = maker.dapi(first)
    for nonce in range(3):
        await dapi.record(nonce)
    await until(lambda: sum(len(tx.messages) for tx in first.blockchain.mempool.waiting()) == 3)
    await maker.stop(dapi)
    dapi = maker.dapi(second)
    await dapi.when(lambda counts: counts["expired"] == 3)
    await dapi.record(1)
    await dapi.when(lambda counts: counts["confirmed"] == 1)
    assert len(second.blockchain.ledger) == 1
    reasons = {row.reason for row in (await dapi.rows()).values() if row.state is State.EXPIRED}
    assert all(str(reason).startswith("it is of another chain: gonka-simulated@") for reason in reasons)


@pytest_twisted.ensureDeferred
async def test_a_chain_that_begins_anew_under_its_id_gets_nothing_of_the_old_one(maker: Maker) -> None:
    chain, dapi = maker.pair(None)
    await dapi.record(0)
    await chain.mempool(1)
    await dapi.next_block(chain)
    await dapi.when(lambda counts: counts["confirmed"] == 1)
    for nonce in range(1, 4):
        await dapi.record(nonce)
    await until(lambda: sum(len(tx.messages) for tx in chain.blockchain.mempool.waiting()) == 3)
    await maker.stop(dapi)
    chain.simulated.begin_anew(first_height=STAGE)
    # The new one has come farther than the old one ever was: only the hash of a known block tells.
    for _ in range(5):
        chain.simulated.produce_block()
    dapi = maker.dapi(chain)
    await dapi.when(lambda counts: counts["expired"] == 3)
    await dapi.record(9)
    await until(lambda: len(chain.simulated.blockchain.mempool) == 1)
    chain.simulated.produce_block()
    await dapi.when(lambda counts: counts["confirmed"] == 2)
    assert len(chain.simulated.blockchain.ledger) == 1
    reasons = {row.reason for row in (await dapi.rows()).values() if row.state is State.EXPIRED}
    assert len(reasons) == 1
    assert str(reasons.pop()).startswith("it is of another chain: gonka-simulated@")
