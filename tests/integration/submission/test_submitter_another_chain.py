"""A database that was used with one chain, and then with another one."""

from __future__ import annotations

import pytest_twisted

from dapi.messages import State
from tests.integration.submission.chain_and_dapi import Maker
from tests.integration.waiting import until


@pytest_twisted.ensureDeferred
async def test_batches_of_another_chain_are_not_sent(maker: Maker) -> None:
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
    assert reasons == {"it is of another chain: gonka-simulated"}
