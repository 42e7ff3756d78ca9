"""What was measured on the real chain, with as many messages a block as there: nothing is late, nothing is lost.

A block comes when a test makes it, so a block of 5 s takes no time; 27 batches a second are 135 a block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from dapi.messages import Receipt, State
from dapi.simulator.chain import blocks
from dapi.simulator.chain.node import NodeSettings
from tests.chain_tools import BATCH_URL, VALIDATION_URL
from tests.integration.submission.chain_and_dapi import SECOND_NS, STAGE, Chain, Dapi, Maker, key
from tests.integration.waiting import until

PARTICIPANT = key(1).address
A_BLOCK = 135


class Load:
    """Batches of one nonce, which come block by block; remembers in which block each could be at the earliest."""

    def __init__(self, chain: Chain, dapi: Dapi) -> None:
        self.chain = chain
        self.dapi = dapi
        self.came_at: dict[str, int] = {}
        self._nonce = 0

    async def come(self, number: int = A_BLOCK) -> None:
        recordings = [self.dapi.record(self._nonce + index) for index in range(number)]
        self._nonce += number
        receipts: list[Receipt] = await gatherResults(recordings)
        self.came_at |= {receipt.batch_id: self.chain.simulated.height for receipt in receipts}

    async def at_rest(self) -> None:
        """Wait until all is in a mempool that can be sent now."""
        status = self.dapi.submitter.status

        def is_at_rest() -> bool:
            query = "SELECT count(*) FILTER (WHERE state = 'stored'), count(DISTINCT tx_hash) FROM unfinished"
            ((stored, in_flight),) = self.dapi.look(query)
            has_room = status()["transactions_in_flight"] < status()["max_transactions"]
            # What is held is asked about with one transaction a block.
            may_wait = in_flight > 0 if status()["held"] else not has_room
            return len(self.chain.blockchain.mempool) == in_flight and (not stored or may_wait)

        await until(is_at_rest)

    async def block(self) -> None:
        await self.at_rest()
        await self.dapi.next_block(self.chain)

    async def blocks_until(self, is_over: Callable[[dict[str, int]], bool], most: int) -> int:
        """Make blocks until the counts are as wanted; return how many."""
        for number in range(most + 1):
            if is_over(await self.dapi.outbox.counts()):
                return number
            await self.block()
        pytest.fail(f"not after {most} blocks: {await self.dapi.outbox.counts()}")

    async def delays(self) -> list[int]:
        """How many blocks after it came each is in one."""
        rows = await self.dapi.outbox.batches(limit=1000)
        taken = {row.batch_id: row for row in rows.batches if row.batch_id in self.came_at}
        assert {row.state for row in taken.values()} == {State.CONFIRMED}
        assert not self.chain.blockchain.doubles()
        return [(row.included_height or 0) - self.came_at[row.batch_id] for row in taken.values()]


def granted(chain: Chain) -> None:
    for type_url in (BATCH_URL, VALIDATION_URL):
        chain.simulated.grant(PARTICIPANT, key(7).address, type_url)


def load_of_a_granted_key(maker: Maker, *, is_granted: bool = True) -> Load:
    chain = maker.chain(None)
    chain.simulated.add_account(key(7).public_key)
    if is_granted:
        granted(chain)
    return Load(chain, maker.dapi(chain, seed=7, participant=PARTICIPANT))


@pytest_twisted.ensureDeferred
async def test_27_batches_a_second_are_each_in_the_next_block(maker: Maker) -> None:
    load = load_of_a_granted_key(maker)
    for _ in range(6):
        await load.come()
        await load.block()
    await load.dapi.when_all(State.CONFIRMED, 6 * A_BLOCK)
    assert set(await load.delays()) == {1}


@pytest_twisted.ensureDeferred
async def test_stale_batches_delay_no_good_one(maker: Maker) -> None:
    load = load_of_a_granted_key(maker)
    for number in range(5):
        await load.come(100)
        for nonce in range(10):
            await load.dapi.record(10**6 + 10 * number + nonce, block_height=STAGE - 5)
        await load.block()
    await load.dapi.when(lambda counts: (counts["confirmed"], counts["failed"]) == (500, 50))
    assert set(await load.delays()) == {1}


@pytest_twisted.ensureDeferred
async def test_a_grant_that_is_missing_for_the_first_third(maker: Maker) -> None:
    load = load_of_a_granted_key(maker, is_granted=False)
    for _ in range(2):
        await load.come()
        await load.block()
    assert load.dapi.submitter.status()["state"] == "held"
    granted(load.chain)
    for _ in range(4):
        await load.come()
        await load.block()
    await load.dapi.when_all(State.CONFIRMED, 6 * A_BLOCK)
    # Noticed in the block after the grant at the latest; all that waited is in the one after that.
    assert max(await load.delays()) in (3, 4)


@pytest_twisted.ensureDeferred
async def test_after_30_seconds_without_a_block(maker: Maker) -> None:
    load = load_of_a_granted_key(maker)
    await load.come()
    await load.block()
    for _ in range(6):
        await load.come()
    load.chain.time_ns += 30 * SECOND_NS
    assert await load.blocks_until(lambda counts: counts["confirmed"] == 7 * A_BLOCK, 2) <= 2
    assert not load.chain.blockchain.doubles()


@pytest_twisted.ensureDeferred
async def test_a_node_that_asks_a_minimum_gas_price_is_one_of_two(maker: Maker) -> None:
    chain = maker.chain(None)
    costly = chain.simulated.add_node(settings=NodeSettings(minimum_gas_price=0.1))
    dapi = maker.dapi_of([costly.url, chain.simulated.url])
    load = Load(chain, dapi)
    for _ in range(3):
        await load.come(45)
        await load.block()
    await dapi.when_all(State.CONFIRMED, 135)
    assert set(await load.delays()) == {1}
    assert dapi.submitter.status()["held"] == {}


@pytest.mark.parametrize("limits", [{"max_tx_bytes": 30_000}, {"max_txs_bytes": 60_000}, {"max_txs": 3}])
@pytest_twisted.ensureDeferred
async def test_a_node_with_a_small_mempool_or_small_transactions(maker: Maker, limits: dict[str, int]) -> None:
    chain = maker.chain(0.1)
    for name, limit in limits.items():
        setattr(chain.simulated.node.node.mempool, name, limit)
        setattr(chain.blockchain.mempool, name, limit)
    dapi = maker.dapi(chain)
    for number in range(40):
        await dapi.record_large(1000 * number, 400)
    await dapi.record_large(10**6, 9_000)
    await dapi.when_all(State.CONFIRMED, 41)
    assert not chain.blockchain.doubles()


async def drain(maker: Maker, record: Callable[[Dapi, int], Awaitable[Receipt]], number: int) -> tuple[Load, int]:
    """Store a backlog while the chain cannot be used; return in how many blocks it is on the chain afterwards."""
    chain = maker.chain(None)
    chain.switches.is_catching_up = True
    dapi = maker.dapi(chain, max_transaction_bytes=70_000)
    for index in range(number):
        await record(dapi, index)
    chain.switches.is_catching_up = False
    load = Load(chain, dapi)
    await dapi.when_status(state="submitting")
    return load, await load.blocks_until(lambda counts: counts["confirmed"] == number, 6)


@pytest_twisted.ensureDeferred
async def test_a_backlog_is_in_blocks_within_five_blocks(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tenth of 5,000 messages, of transactions, and of a block.
    monkeypatch.setattr(blocks, "MAX_BLOCK_BYTES", blocks.MAX_BLOCK_BYTES // 10)
    load, number = await drain(maker, lambda dapi, index: dapi.record_large(1000 * index, 1000), 500)
    assert number <= 5
    assert not load.chain.blockchain.doubles()
