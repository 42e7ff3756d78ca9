"""Transactions are found on real sockets by an index, and in blocks where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted
from twisted.internet import reactor as global_reactor

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import tx_hash_of
from dapi.chain.transaction_finder import Reach, Search, TransactionFinder
from dapi.simulator.chain.node_service import SimulatedNode
from tests.chain_tools import batch
from tests.integration.simulated_chain import ChainAndClient
from tests.integration.waiting import PATIENCE_SECONDS, soon

reactor: Any = global_reactor


class Finding(ChainAndClient):
    """A chain of two nodes whose blocks are made by hand, and a finder; transactions are called by numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.second: SimulatedNode = self.chain.add_node()
        self.rpc = ChainRpc(reactor, [self.chain.url, self.second.url], timeout_seconds=PATIENCE_SECONDS)
        self.finder = TransactionFinder(self.rpc)
        self.hashes: dict[int, str] = {}

    async def send(self, number: int, *, nonces: int = 1, node_id: str = "node1") -> None:
        message = batch(
            self.key.address, batch_id=f"b-{number}", nonces=range(nonces), dist=[0.5] * nonces, node_id=node_id
        )
        raw = self.tx(message)
        self.hashes[number] = tx_hash_of(raw)
        await soon(self.rpc.broadcast_tx_sync(raw))

    async def find(self, **firsts: int) -> Search:
        """Look for transactions: ``_3=8`` is number 3, which may be in block 8 or later."""
        await soon(self.rpc.ask_all())
        return await soon(self.finder.find({self.hashes[int(name[1:])]: first for name, first in firsts.items()}))

    def found(self, search: Search) -> dict[int, tuple[int, int]]:
        """Height and code of what was found, by number."""
        numbers = {tx_hash: number for number, tx_hash in self.hashes.items()}
        return {numbers[tx_hash]: (result.height, result.code) for tx_hash, result in search.found.items()}


@pytest_twisted.async_yield_fixture
async def finding() -> AsyncIterator[Any]:
    made = Finding()
    yield made
    await made.end()


@pytest_twisted.ensureDeferred
async def test_without_an_index(finding: Finding) -> None:
    for node in finding.chain.nodes:
        node.switches.is_indexing_off = True
    await finding.send(1)
    await finding.send(2, node_id="")
    finding.chain.produce_block()
    await finding.send(3)
    search = await finding.find(_1=11, _2=11, _3=12)
    assert finding.found(search) == {1: (11, 0), 2: (11, 1145)}
    result = search.found[finding.hashes[2]]
    assert (result.codespace, result.log.endswith("is empty")) == ("inference", True)
    assert search.problem is None
    block = finding.chain.produce_block()
    search = await finding.find(_1=11, _3=12)
    assert finding.found(search) == {1: (11, 0), 3: (12, 0)}
    # What an executed transaction answered, which claims need.
    assert search.found[finding.hashes[3]].data == block.records[0].data
    assert block.records[0].data


@pytest_twisted.ensureDeferred
async def test_a_block_with_megabytes_of_transactions(finding: Finding) -> None:
    for node in finding.chain.nodes:
        node.switches.is_indexing_off = True
    for number in range(16):
        await finding.send(number, nonces=10_000 - number)
    block = finding.chain.produce_block()
    assert sum(len(record.tx.raw) for record in block.records) > 2**20
    search = await finding.find(_0=11, _15=11)
    assert finding.found(search).keys() == {0, 15}


@pytest_twisted.ensureDeferred
async def test_the_index_of_the_second_node_will_do(finding: Finding) -> None:
    finding.chain.switches.is_indexing_off = True
    await finding.send(1)
    await finding.send(2)
    block = finding.chain.produce_block()
    finding.hashes[3] = tx_hash_of(finding.tx())
    search = await finding.find(_1=11, _2=11, _3=11)
    assert finding.found(search) == {1: (11, 0), 2: (11, 0)}
    assert search.reach == {finding.hashes[3]: Reach(10, block.time_ns)}


@pytest_twisted.ensureDeferred
async def test_a_late_index_is_waited_for(finding: Finding) -> None:
    finding.second.switches.is_indexing_off = True
    finding.chain.switches.index_delay_blocks = 1
    await finding.send(1)
    finding.chain.produce_block()
    search = await finding.find(_1=11)
    assert (search.found, search.reach[finding.hashes[1]].height) == ({}, 10)
    finding.chain.produce_block()
    assert finding.found(await finding.find(_1=11)) == {1: (11, 0)}


@pytest_twisted.ensureDeferred
async def test_blocks_that_one_node_has_pruned(finding: Finding) -> None:
    for node in finding.chain.nodes:
        node.switches.is_indexing_off = True
    finding.chain.node.settings.kept_blocks = 2
    await finding.send(1)
    for _ in range(5):
        finding.chain.produce_block()
    assert finding.found(await finding.find(_1=11)) == {1: (11, 0)}
    finding.finder = TransactionFinder(finding.rpc)
    await soon(finding.second.stopService())
    search = await finding.find(_1=11)
    assert search.found == {}
    assert search.reach[finding.hashes[1]].height == finding.chain.height


@pytest_twisted.ensureDeferred
async def test_a_partitioned_node_proves_nothing(finding: Finding) -> None:
    await finding.send(1)
    finding.chain.node.partition()
    for _ in range(5):
        finding.chain.produce_block()
    for _ in range(2):
        await soon(finding.rpc.ask_all())
    assert finding.found(await finding.find(_1=11)) == {1: (11, 0)}
