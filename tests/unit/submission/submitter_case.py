"""A submitter on a real database, with a chain that answers when the test says so."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime

from bench.heads import Heads, SameChain
from dapi.chain.keyring import SigningKey
from dapi.chain.nodes import ChainNodes
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import (
    BlockTransactions,
    Broadcast,
    ChainStatus,
    QueryResult,
    TxLookups,
    TxResult,
    tx_hash_of,
)
from dapi.errors import ChainUnavailableError
from dapi.messages import Via, content_id, cosmos_pb2, epochs_pb2
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import Outbox
from dapi.phases.poc_version import PocVersion
from dapi.submission.settings import SubmitterSettings
from dapi.submission.submissions import Submissions
from dapi.submission.submitter import Submitter
from tests.batches import generated_batch
from tests.unit.database.store_tools import StoreTestCase

SECOND_NS = 10**9


def status_at(height: int, **changes: Any) -> ChainStatus:
    values = {
        "chain_id": "chain",
        "height": height,
        "block_time_ns": height * 5 * SECOND_NS,
        "block_hash": "AB",
        "earliest_height": 1,
        "catching_up": False,
        "has_tx_index": True,
        "node": "127.0.0.1:26657",
    }
    return ChainStatus(**{**values, **changes})


class FakeRpc(ChainRpc):
    """A chain that answers every call at once."""

    def __init__(self, clock: IReactorTime) -> None:
        self.nodes = ChainNodes(clock, ["http://127.0.0.1:26657"])
        self.head = status_at(10)
        self.sent: list[str] = []
        self.lookups: list[str] = []
        self.results: dict[str, TxResult] = {}
        # What the first node says to a broadcast, and what the others do, by their names; None: they take it.
        self.broadcast_error: Exception | None = None
        self.others: dict[str, Exception | None] = {}
        self.turns: list[int] = []
        self.asked: list[str] = []
        self.hashes_asked: set[str] = set()
        self.lookup_error: Exception | None = None
        self.lookup_answer: Deferred[TxLookups] | None = None
        self.is_poc_v2 = False
        self.epoch_error: Exception | None = None
        # What it says of its epochs beside that, and the number that it has of any account.
        self.epoch = epochs_pb2.QueryEpochInfoResponse()
        self.account_number = 7
        self.accounts_asked: list[str] = []
        self.account_error: Exception | None = None

    def status(self) -> Deferred[ChainStatus]:
        return succeed(self.head)

    def lookup_all(self, tx_hashes: Collection[str]) -> Deferred[TxLookups]:
        self.lookups += tx_hashes
        if self.lookup_error is not None:
            return fail(self.lookup_error)
        if self.lookup_answer is not None:
            return self.lookup_answer
        found = {tx_hash: self.results[tx_hash] for tx_hash in tx_hashes if tx_hash in self.results}
        return succeed(TxLookups(self.head, found))

    def block_transactions(self, height: int) -> Deferred[BlockTransactions]:
        return fail(self.lookup_error or ChainUnavailableError("no blocks"))

    def usable_nodes(self) -> list[str]:
        return list(self.others)

    def broadcast_to(self, name: str, raw: bytes) -> Deferred[Broadcast]:
        self.asked.append(name)
        self.hashes_asked.add(tx_hash_of(raw))
        error = self.others[name]
        return fail(error) if error is not None else succeed(Broadcast.ACCEPTED)

    def broadcast_tx_sync(self, raw: bytes, *, turn: int = 0) -> Deferred[Broadcast]:
        self.sent.append(tx_hash_of(raw))
        self.turns.append(turn)
        return fail(self.broadcast_error) if self.broadcast_error is not None else succeed(Broadcast.ACCEPTED)

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = 0
    ) -> Deferred[QueryResult]:
        if path.endswith("EpochInfo"):
            info = epochs_pb2.QueryEpochInfoResponse(block_height=height or self.head.height)
            info.MergeFrom(self.epoch)
            info.params.poc_params.poc_v2_enabled = self.is_poc_v2
            return fail(self.epoch_error) if self.epoch_error else succeed(QueryResult(info.SerializeToString(), 1))
        if path.endswith("Grants"):
            # Nobody has been granted anything.
            return succeed(QueryResult(cosmos_pb2.QueryGrantsResponse().SerializeToString(), 1))
        self.accounts_asked.append(cosmos_pb2.QueryAccountInfoRequest.FromString(data).address)
        if self.account_error is not None:
            return fail(self.account_error)
        account = cosmos_pb2.BaseAccount(address="a", account_number=self.account_number)
        answer = cosmos_pb2.QueryAccountInfoResponse(info=account)
        return succeed(QueryResult(answer.SerializeToString(), 1))


class EnteredChain(SameChain):
    """Keeps the heads with which it was entered."""

    def __init__(self) -> None:
        self.heads: list[ChainStatus] = []

    async def enter(self, head: ChainStatus) -> None:
        """Return at once."""
        self.heads.append(head)


class SubmitterTestCase(StoreTestCase):
    """A submitter that is started, and stopped at the end of the test."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.outbox = Outbox(self.clock, self.database)
        self.recorder = CosmosMessageClient(self.outbox)
        self.submissions = Submissions(self.database, self.outbox)
        self.chain = FakeRpc(self.clock)
        self.watcher = Heads(self.chain.head)
        self.poc_version = self.start_anew()
        self.addCleanup(self.stop)
        self.settle()

    def start_anew(self, participant: str | None = None, **settings: Any) -> PocVersion:
        """As another process would; return what it knows of the network."""
        key = SigningKey(b"\1" * 32)
        self.identity = EnteredChain()
        poc_version = PocVersion(self.chain)
        self.submitter = Submitter(
            self.clock,
            self.submissions,
            self.chain,
            self.watcher,
            self.identity,
            key=key,
            participant_address=participant or key.address,
            poc_version=poc_version,
            random=random.Random(1),
            settings=SubmitterSettings(**settings),
        )
        self.submitter.startService()
        return poc_version

    def stop(self) -> None:
        self.clock.wait_for(self.submitter.stopService())

    def settle(self) -> None:
        """Let both threads of the database, and what follows from their answers, come to rest."""
        # A turn that fails has tried as often as there is room, one try after the other.
        for _ in range(20):
            self.clock.wait_for(self.database.write(lambda connection: None))
            self.clock.wait_for(self.database.read(lambda connection: None))

    def record(self, nonce: int) -> None:
        batch = generated_batch(block_height=10, nonces=[nonce], dist=[0.5])
        recorded = self.recorder.submit_poc_batch(batch, batch_id=content_id(batch), node_id="n", via=Via.HTTP)
        self.clock.wait_for(recorded)
        self.settle()

    def block(self, height: int, **changes: Any) -> None:
        self.chain.head = status_at(height, **changes)
        self.watcher.move(self.chain.head)
        self.settle()

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self.clock.advance(0.5)
            self.settle()

    def include(self, tx_hash: str, height: int, code: int = 0, codespace: str = "", log: str = "") -> None:
        self.chain.results[tx_hash] = TxResult(tx_hash, height, code, codespace, log)

    def counts(self) -> dict[str, int]:
        counts = self.clock.wait_for(self.outbox.counts())
        return {state: number for state, number in counts.items() if number}
