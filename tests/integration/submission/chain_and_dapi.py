"""Submitters without the rest of dapi, and a simulated chain that goes as fast as a test wants."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.keyring import SigningKey
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import Broadcast, TxLookups, tx_hash_of
from dapi.database import Database
from dapi.messages import Kind, Receipt, State, Via, content_id
from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.outbox.pages import BatchRow
from dapi.phases.poc_version import PocVersion
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.chain.messages import SubmitPocBatch
from dapi.submission.chain_identity import ChainIdentity
from dapi.submission.settings import SubmitterSettings
from dapi.submission.submissions import Submissions
from dapi.submission.submitter import Submitter
from tests.batches import generated_batch, validated_batch
from tests.earlier_verdicts import put_earlier_verdict
from tests.integration.ports import free_port
from tests.integration.waiting import PATIENCE_SECONDS, until, until_awaited

reactor: Any = global_reactor
STAGE = 10
SECOND_NS = 10**9
# Blocks that a test makes by hand come when a busy machine gets to it: only who waits for a halt has one.
HALTED_SECONDS = 3600.0
BLOCK_NS = 5 * SECOND_NS
# How many blocks a transaction has: its 60 s, and the second that is added by chance.
BLOCKS_OF_A_TRANSACTION = 13
QUICK = {"retry_min_seconds": 0.1, "retry_max_seconds": 0.2, "offer_again_seconds": 0.2}
# Windows that are long enough for every test that is not about their end.
LONG = EpochParams(epoch_length=4000, poc_stage_duration=5, poc_exchange_duration=1900, poc_validation_duration=1900)


def key(seed: int) -> SigningKey:
    return SigningKey(bytes([seed]) * 32)


def reason_of(row: BatchRow) -> str:
    """Why a batch is in its state, empty where no reason is kept."""
    return row.reason or ""


class Chain:
    """A simulated chain with a clock of its own: 5 s a block, which comes by hand or every ``block_seconds``."""

    def __init__(self, block_seconds: float | None = 0.1, params: EpochParams = LONG, **settings: Any) -> None:
        self.time_ns = 1_700_000_000 * SECOND_NS
        settings = {"epochs": Epochs(STAGE, params), "first_height": STAGE, "port": free_port(), **settings}
        self.simulated = SimulatedChain(
            reactor, random.Random(1), block_seconds=block_seconds, now_ns=self.tick, **settings
        )
        self.simulated.add_account(key(1).public_key)
        self.state = self.simulated.state
        self.blockchain = self.simulated.blockchain
        self.switches = self.simulated.switches

    def tick(self) -> int:
        self.time_ns += BLOCK_NS
        return self.time_ns

    def batch_ids(self) -> set[str]:
        return {batch_id for _, _, batch_id in self.state.batches}

    def delivered_batches(self) -> list[SubmitPocBatch]:
        """What was in a block, refused or not, in order: only batches."""
        messages = [delivered.message for delivered in self.blockchain.ledger]
        batches = [message for message in messages if isinstance(message, SubmitPocBatch)]
        assert len(batches) == len(messages), messages
        return batches

    async def mempool(self, number: int) -> None:
        """Wait until so many transactions wait for a block."""
        await until(lambda: len(self.blockchain.mempool) == number)

    def transactions(self) -> list[list[Any]]:
        """The messages of each transaction in a block, in order."""
        by_hash: dict[str, list[Any]] = {}
        for delivered in self.blockchain.ledger:
            by_hash.setdefault(delivered.tx_hash, []).append(delivered.message)
        return list(by_hash.values())


class SpyRpc(ChainRpc):
    """Notes what is sent and looked up; may lose what is sent, ``before`` or ``after`` the chain has it."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.sent: list[str] = []
        self.lookups = 0
        self.on_send: Callable[[bytes], None] = lambda raw: None
        self.loses: str | None = None

    def broadcast_tx_sync(self, raw: bytes, *, turn: int = 0) -> Deferred[Broadcast]:
        self.on_send(raw)
        self.sent.append(tx_hash_of(raw))
        if self.loses == "before":
            return Deferred()
        sending = super().broadcast_tx_sync(raw, turn=turn)
        return sending.addCallback(lambda _: Deferred()) if self.loses == "after" else sending

    def lookup_all(self, tx_hashes: Collection[str]) -> Deferred[TxLookups]:
        self.lookups += len(tx_hashes)
        return super().lookup_all(tx_hashes)


class SpiedSubmitter(Submitter):
    """Notes at which height, and when, it has looked all transactions up last."""

    looked_up = (0, float("-inf"))

    async def _look_up_all(self) -> None:
        assert self._watcher.head is not None
        height = self._watcher.head.height
        await super()._look_up_all()
        self.looked_up = (height, self._reactor.seconds())


class Dapi:
    """The way from the recorder to the chain, without the rest."""

    def __init__(
        self,
        path: Path,
        urls: list[str],
        *,
        seed: int = 1,
        participant: str | None = None,
        timeout_seconds: float = PATIENCE_SECONDS,
        **settings: Any,
    ) -> None:
        self.key = key(seed)
        self.path = path
        self.database = Database(reactor, str(path), on_broken=pytest.fail, reserve_bytes=2**16)
        self.outbox = Outbox(reactor, self.database)
        self.recorder = CosmosMessageClient(self.outbox)
        self.rpc = SpyRpc(reactor, urls, timeout_seconds=timeout_seconds)
        self.watcher = BlockWatcher(reactor, self.rpc, poll_seconds=0.05, halted_seconds=HALTED_SECONDS)
        # Without events the status is asked for at every poll.
        self.said_to_be_another: list[str] = []
        submissions = Submissions(self.database, self.outbox)
        self.submitter = SpiedSubmitter(
            reactor,
            submissions,
            self.rpc,
            self.watcher,
            ChainIdentity(self.rpc, submissions, self.said_to_be_another.append),
            key=self.key,
            participant_address=participant or self.key.address,
            poc_version=PocVersion(self.rpc),
            random=random.Random(2),
            settings=SubmitterSettings(**{**QUICK, "kinds": frozenset({Kind.GENERATED, Kind.VALIDATED}), **settings}),
        )

    def start(self) -> None:
        for service in (self.database, self.watcher, self.submitter):
            service.startService()

    async def stop(self) -> None:
        """End it as abruptly as can be without a process: what was under way is cancelled wherever it is."""
        await gatherResults([self.submitter.stopService(), self.watcher.stopService()])
        await self.rpc.close()
        await self.database.stopService()

    def record(self, nonce: int, **changes: Any) -> Deferred[Receipt]:
        batch = generated_batch(**{"block_height": STAGE, "nonces": [nonce], "dist": [0.5], **changes})
        return self.recorder.submit_poc_batch(batch, batch_id=content_id(batch), node_id="node1", via=Via.HTTP)

    def record_large(self, first: int, number: int) -> Deferred[Receipt]:
        nonces = list(range(first, first + number))
        return self.record(first, nonces=nonces, dist=[nonce / 2**20 for nonce in nonces])

    def record_verdict(self, **changes: Any) -> Deferred[Receipt]:
        return put_earlier_verdict(self.outbox, validated_batch(**{"block_height": STAGE, **changes}))

    def record_without_node(self, first: int, number: int = 1) -> Deferred[Receipt]:
        """Put what no BatchHandler would: a batch that the chain refuses with 1145."""
        batch_id = f"{first:064x}"
        message = MsgSubmitPocBatch(
            poc_stage_start_block_height=STAGE,
            batch_id=batch_id,
            nonces=range(first, first + number),
            dist=[0.5] * number,
        ).SerializeToString()
        return self.outbox.put(OutboxEntry(batch_id, Kind.GENERATED, None, STAGE, number, Via.HTTP, message))

    async def rows(self) -> dict[str, BatchRow]:
        page = await self.outbox.batches(limit=1000)
        return {row.batch_id: row for row in page.batches}

    def look(self, query: str) -> list[tuple[Any, ...]]:
        """What is on disk, as another program sees it."""
        connection = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def hash(self) -> Any:
        """The hash of the only transaction under way, None when there is none."""
        rows = self.look("SELECT DISTINCT tx_hash FROM unfinished WHERE state = 'in_flight'")
        assert len(rows) <= 1
        return rows[0][0] if rows else None

    async def when(self, predicate: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Wait until the counts by state are as wanted."""

        async def found() -> dict[str, int] | None:
            counts = await self.outbox.counts()
            return counts if predicate(counts) else None

        counts = await until_awaited(found)
        assert counts is not None
        return counts

    async def when_sent(self) -> list[str]:
        """Wait until it has sent something; return the hashes."""
        return await until(lambda: self.rpc.sent)

    async def when_all(self, state: State, number: int) -> dict[str, BatchRow]:
        """Wait until all there is, so many, is in a state; return it."""
        await self.when(lambda counts: counts[state] == number == sum(counts.values()))
        return await self.rows()

    async def when_status(self, **wanted: str) -> dict[str, Any]:
        def is_as_wanted() -> bool:
            status = self.submitter.status()
            return all(str(value) in str(status[name]) for name, value in wanted.items())

        await until(is_as_wanted)
        return self.submitter.status()

    async def next_block(self, chain: Chain) -> None:
        """Make a block, and wait until all that is under way was looked for in it, and what was found is on disk."""
        height = chain.simulated.produce_block().height
        await until(lambda: self.submitter.looked_up[0] >= height)

    async def at_rest(self, chain: Chain) -> None:
        """Wait until each message is in a mempool, or waits for a later block than the next one."""

        def is_at_rest() -> bool:
            can_be_next = f"state = 'stored' AND not_before <= {chain.simulated.height + 1}"
            query = f"SELECT count(*) FILTER (WHERE {can_be_next}), count(DISTINCT tx_hash) FROM unfinished"
            return self.look(query) == [(0, len(chain.blockchain.mempool))]

        await until(is_at_rest)

    async def blocks_until(self, chain: Chain, predicate: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Make a block, look all up, and give time to what comes by time, until the counts by state are as wanted."""

        async def found() -> dict[str, int] | None:
            counts = await self.outbox.counts()
            if predicate(counts):
                return counts
            await self.next_block(chain)
            await deferLater(reactor, 0.1)
            return None

        counts = await until_awaited(found)
        assert counts is not None
        return counts


class Maker:
    """Makes chains and dapis of a test, which are stopped at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._chains: list[Chain] = []
        self._dapis: list[Dapi] = []

    def chain(self, *args: Any, **settings: Any) -> Chain:
        chain = Chain(*args, **settings)
        chain.simulated.startService()
        self._chains.append(chain)
        return chain

    def dapi(self, *chains: Chain, name: str = "outbox", **settings: Any) -> Dapi:
        return self.dapi_of([chain.simulated.url for chain in chains], name=name, **settings)

    def dapi_of(self, urls: list[str], *, name: str = "outbox", **settings: Any) -> Dapi:
        dapi = Dapi(self._folder / f"{name}.db", urls, **settings)
        dapi.start()
        self._dapis.append(dapi)
        return dapi

    def pair(self, block_seconds: float | None = 0.1, **settings: Any) -> tuple[Chain, Dapi]:
        """A chain, and a dapi with these settings that knows no other."""
        chain = self.chain(block_seconds)
        return chain, self.dapi(chain, **settings)

    async def stop(self, dapi: Dapi) -> None:
        self._dapis.remove(dapi)
        await dapi.stop()

    async def end(self) -> None:
        for dapi in self._dapis:
            await dapi.stop()
        for chain in self._chains:
            if chain.simulated.running:
                await chain.simulated.stopService()
