"""What is stored gets to a simulated chain, each message exactly once, whatever goes wrong on the way."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.cosmos_message_client import CosmosMessageClient
from dapi.chain.keyring import SigningKey
from dapi.chain.outbox import Outbox
from dapi.chain.outbox_pages import BatchRow
from dapi.chain.rpc import ChainRpc
from dapi.chain.submissions import Submissions
from dapi.chain.submitter import Submitter, SubmitterSettings
from dapi.database import Database
from dapi.messages import Receipt, State, Via, content_id
from dapi.simulator.chain import SimulatedChain
from dapi.simulator.chain_epochs import EpochParams, Epochs
from tests.batches import generated_batch, validated_batch

reactor: Any = global_reactor
PATIENCE_SECONDS = 20
STAGE = 10
SECOND_NS = 10**9


class Chain:
    """A simulated chain with a clock of its own: each block is made by hand or 0.1 s after the one before."""

    def __init__(self, block_seconds: float | None = 0.1, **settings: Any) -> None:
        self.time_ns = 1_700_000_000 * SECOND_NS
        # Windows that are long enough for every test that is not about their end.
        durations = EpochParams(
            epoch_length=2000, poc_stage_duration=5, poc_exchange_duration=900, poc_validation_duration=900
        )
        epochs = Epochs(STAGE, durations)
        settings = {"epochs": epochs, "first_height": STAGE, **settings}
        self.simulated = SimulatedChain(
            reactor, random.Random(1), block_seconds=block_seconds, now_ns=self.tick, **settings
        )

    def tick(self) -> int:
        self.time_ns += 5 * SECOND_NS
        return self.time_ns

    def batch_ids(self) -> set[str]:
        return {batch_id for _, _, batch_id in self.simulated.state.batches}


class Dapi:
    """The way from the recorder to the chain, without the rest."""

    def __init__(self, path: Path, url: str, *, key: int = 1, participant: str | None = None, **settings: Any) -> None:
        self.key = SigningKey(bytes([key]) * 32)
        self.database = Database(reactor, str(path), on_broken=pytest.fail, reserve_bytes=2**16)
        self.outbox = Outbox(reactor, self.database)
        self.recorder = CosmosMessageClient(self.outbox)
        self.rpc = ChainRpc(reactor, [url], timeout_seconds=2)
        self.watcher = BlockWatcher(reactor, self.rpc, poll_seconds=0.05)
        quick = {"retry_min_seconds": 0.1, "retry_max_seconds": 0.2, "offer_again_seconds": 0.2, **settings}
        self.submitter = Submitter(
            reactor,
            Submissions(self.database, self.outbox),
            self.rpc,
            self.watcher,
            key=self.key,
            participant_address=participant or self.key.address,
            random=random.Random(2),
            settings=SubmitterSettings(**quick),
        )

    def start(self) -> None:
        for service in (self.database, self.watcher, self.submitter):
            service.startService()

    async def stop(self) -> None:
        await gatherResults([self.submitter.stopService(), self.watcher.stopService()])
        await self.rpc.close()
        await self.database.stopService()

    def record(self, nonce: int, **changes: Any) -> Deferred[Receipt]:
        batch = generated_batch(**{"block_height": STAGE, "nonces": [nonce], "dist": [0.5], **changes})
        return self.recorder.submit_poc_batch(batch, batch_id=content_id(batch), node_id="node1", via=Via.HTTP)

    def record_verdict(self, **changes: Any) -> Deferred[Receipt]:
        verdict = validated_batch(**{"block_height": STAGE, **changes})
        return self.recorder.submit_poc_validation(verdict, batch_id=content_id(verdict), node_id=None, via=Via.HTTP)

    async def rows(self) -> list[BatchRow]:
        page = await self.outbox.batches(limit=1000)
        return page.batches

    async def when(self, predicate: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Wait until the counts by state are as wanted."""
        deadline = reactor.seconds() + PATIENCE_SECONDS
        while True:
            counts = await self.outbox.counts()
            if predicate(counts):
                return counts
            assert reactor.seconds() < deadline, (counts, self.submitter.status())
            await deferLater(reactor, 0.02)

    async def when_all(self, state: State, number: int) -> None:
        await self.when(lambda counts: counts[state] == number == sum(counts.values()))


@pytest_twisted.async_yield_fixture
async def world(tmp_path: Path) -> AsyncIterator[Any]:
    """Makes chains and dapis, and stops them at the end."""

    class World:
        def __init__(self) -> None:
            self.running: list[Any] = []

        def chain(self, *args: Any, **settings: Any) -> Chain:
            chain = Chain(*args, **settings)
            chain.simulated.add_account(SigningKey(b"\1" * 32).public_key)
            chain.simulated.startService()
            self.running.insert(0, chain)
            return chain

        def dapi(self, chain: Chain, **settings: Any) -> Dapi:
            dapi = Dapi(tmp_path / "outbox.db", chain.simulated.url, **settings)
            dapi.start()
            self.running.append(dapi)
            return dapi

        async def stop(self, dapi: Dapi) -> None:
            self.running.remove(dapi)
            await dapi.stop()

    world = World()
    yield world
    for thing in reversed(world.running):
        if isinstance(thing, Dapi):
            await thing.stop()
        elif thing.simulated.running:
            await thing.simulated.stopService()


@pytest_twisted.ensureDeferred
async def test_what_is_stored_is_confirmed_with_its_block(world: Any) -> None:
    chain = world.chain()
    dapi = world.dapi(chain)
    for nonce in range(5):
        await dapi.record(nonce)
    await dapi.record_verdict()
    await dapi.when_all(State.CONFIRMED, 6)
    rows = await dapi.rows()
    assert chain.batch_ids() == {row.batch_id for row in rows if row.kind == "generated"}
    assert len(chain.simulated.state.validations) == 1
    for row in rows:
        record = chain.simulated.blockchain.find(row.tx_hash)
        assert record is not None
        assert (record.height, record.code) == (row.included_height, 0)
    assert not chain.simulated.blockchain.doubles()
    assert dapi.submitter.status()["state"] == "submitting"
