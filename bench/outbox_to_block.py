"""How fast messages get from the outbox into blocks, and what that costs the reactor's thread.

``python -m bench.outbox_to_block`` stores a backlog on disk, size by size, and has the submitter send it with a granted
key. The chain stands in the same process: it takes every transaction, and puts 22 MB of them into each block, which
comes as soon as the submitter has done what it can. So the rate is dapi's own. The time of the reactor's thread has
everything in it but the network, and what the database's thread does: choosing and signing. Beside it, in the same run,
stands how long it takes to sign the same messages and put them into requests, without anything else.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import deferLater, react

from bench.heads import Heads, SameChain
from bench.processes import folder
from bench.results import Section
from dapi.chain.keyring import SigningKey
from dapi.chain.nodes import ChainNodes
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import (
    Broadcast,
    ChainStatus,
    QueryResult,
    TxLookups,
    TxResult,
    encode_request,
    tx_hash_of,
)
from dapi.chain.transactions import BATCH_TYPE_URL, TransactionSigner
from dapi.database import Database
from dapi.messages import Kind, Via, cosmos_pb2, epochs_pb2
from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.phases.poc_version import PocVersion
from dapi.submission.settings import SubmitterSettings
from dapi.submission.submissions import Submissions
from dapi.submission.submitter import Submitter

HEIGHT = 10
BLOCK_BYTES = 22_020_096
SECOND_NS = 10**9


class Load(NamedTuple):
    """So many messages of so many nonces."""

    nonces: int
    messages: int


LOADS = [Load(1, 5000), Load(1000, 2000)]


def body(load: Load, number: int) -> bytes:
    """Return a message of its own for each number, without creator."""
    first = number * load.nonces
    return MsgSubmitPocBatch(
        poc_stage_start_block_height=HEIGHT,
        batch_id=f"{number:064x}",
        nonces=range(first, first + load.nonces),
        dist=[0.5] * load.nonces,
        node_id="node1",
    ).SerializeToString()


class TakingChain(ChainRpc):
    """A chain that takes all that it is offered; it has no socket, and makes a block when it is told to."""

    def __init__(self, reactor: Any) -> None:
        self.nodes = ChainNodes(reactor, ["http://127.0.0.1:26657"])
        self.height = HEIGHT
        self.waiting: dict[str, int] = {}
        self.results: dict[str, TxResult] = {}

    @property
    def head(self) -> ChainStatus:
        """The status of its only node."""
        return ChainStatus("bench", self.height, self.height * 5 * SECOND_NS, "", 1, False, True, "bench")

    def status(self) -> Deferred[ChainStatus]:
        """Fire with the head."""
        return succeed(self.head)

    def broadcast_tx_sync(self, raw: bytes, *, turn: int = 0) -> Deferred[Broadcast]:
        """Take a transaction; make the body of the request, as it would be sent."""
        encode_request(1, "broadcast_tx_sync", {"tx": raw})
        self.waiting[tx_hash_of(raw)] = len(raw)
        return succeed(Broadcast.ACCEPTED)

    def lookup_all(self, tx_hashes: Collection[str]) -> Deferred[TxLookups]:
        """Fire with those that are in a block."""
        return succeed(TxLookups(self.head, {each: self.results[each] for each in tx_hashes if each in self.results}))

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = 0
    ) -> Deferred[QueryResult]:
        """Fire with an account, or with no grant expiring."""
        if path.endswith("Grants"):
            return succeed(QueryResult(grants().SerializeToString(), 1))
        if path.endswith("EpochInfo"):
            epoch = epochs_pb2.QueryEpochInfoResponse(block_height=height or HEIGHT)
            return succeed(QueryResult(epoch.SerializeToString(), 1))
        info = cosmos_pb2.BaseAccount(address="a", account_number=7)
        return succeed(QueryResult(cosmos_pb2.QueryAccountInfoResponse(info=info).SerializeToString(), 1))

    def produce_block(self) -> None:
        """Take the first 22 MB into a block."""
        self.height += 1
        room = BLOCK_BYTES
        for tx_hash, size in list(self.waiting.items()):
            room -= size
            if room < 0:
                break
            del self.waiting[tx_hash]
            self.results[tx_hash] = TxResult(tx_hash, self.height, 0, "", "")


def grants() -> cosmos_pb2.QueryGrantsResponse:
    """Return a grant for batches that does not expire."""
    value = cosmos_pb2.GenericAuthorization(msg=BATCH_TYPE_URL).SerializeToString()
    authorization = cosmos_pb2.Any(type_url="/cosmos.authz.v1beta1.GenericAuthorization", value=value)
    return cosmos_pb2.QueryGrantsResponse(grants=[cosmos_pb2.Grant(authorization=authorization)])


class Result(NamedTuple):
    """Messages a second, the milliseconds of the reactor's thread for each, and the number of blocks."""

    rate: float
    thread_ms: float
    blocks: int


async def drain(reactor: Any, load: Load, folder: str) -> Result:
    """Store a backlog, then measure how it gets into blocks."""
    database = Database(reactor, str(Path(folder) / "outbox.db"), on_broken=sys.exit)
    database.startService()
    outbox = Outbox(reactor, database)
    for first in range(0, load.messages, 100):
        numbers = range(first, min(first + 100, load.messages))
        entries = [
            OutboxEntry(f"{n:064x}", Kind.GENERATED, "node1", HEIGHT, load.nonces, Via.HTTP, body(load, n))
            for n in numbers
        ]
        await gatherResults([outbox.put(entry) for entry in entries])
    key, participant = SigningKey(b"\7" * 32), SigningKey(b"\1" * 32).address
    chain = TakingChain(reactor)
    heads = Heads(chain.head)
    submitter = Submitter(
        reactor,
        Submissions(database, outbox),
        chain,
        heads,
        SameChain(),
        key=key,
        participant_address=participant,
        poc_version=PocVersion(chain),
        random=random.Random(1),
        settings=SubmitterSettings(kinds=frozenset({Kind.GENERATED})),
    )
    started, thread_started = time.perf_counter(), time.thread_time()
    submitter.startService()
    try:
        while (await outbox.counts())["confirmed"] < load.messages:
            before = -1
            # Until nothing more is sent without a block.
            while len(chain.waiting) != before or not chain.waiting:
                before = len(chain.waiting)
                await deferLater(reactor, 0.05)
                if (await outbox.counts())["confirmed"] == load.messages:
                    break
            chain.produce_block()
            heads.move(chain.head)
        seconds, thread_seconds = time.perf_counter() - started, time.thread_time() - thread_started
    finally:
        await submitter.stopService()
        await database.stopService()
    return Result(load.messages / seconds, 1000 * thread_seconds / load.messages, chain.height - HEIGHT)


def sign_only(load: Load) -> float:
    """Return the milliseconds for each message when all are signed and put into requests, and nothing else."""
    signer = TransactionSigner(SigningKey(b"\7" * 32), "bench", 7, SigningKey(b"\1" * 32).address)
    bodies = [(BATCH_TYPE_URL, body(load, number)) for number in range(load.messages)]
    together = min(500, SubmitterSettings().max_transaction_bytes // (len(bodies[-1][1]) + 256))
    started = time.thread_time()
    for first in range(0, load.messages, together):
        signed = signer.sign(bodies[first : first + together], SECOND_NS + first)
        encode_request(1, "broadcast_tx_sync", {"tx": signed.raw})
    return 1000 * (time.thread_time() - started) / load.messages


async def compare(reactor: Any, scale: float) -> None:
    """Print a line for each load."""
    print(
        f"{'nonces':>7} {'messages':>9} {'messages/s':>11} {'blocks':>7}"
        f" {'thread ms':>10} {'signing ms':>11} {'ratio':>6}"
    )
    section, results = Section("outbox_to_block"), {}
    for load in LOADS:
        load = load._replace(messages=max(1, round(load.messages * scale)))
        with folder() as path:
            result = await drain(reactor, load, path)
        least = sign_only(load)
        print(
            f"{load.nonces:>7} {load.messages:>9} {result.rate:>11.0f} {result.blocks:>7} {result.thread_ms:>10.3f}"
            f" {least:>11.3f} {result.thread_ms / least:>5.1f}x"
        )
        results[str(load.nonces)] = {**result._asdict(), "messages": load.messages, "signing_ms": least}
    section.write(results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of messages")
    arguments = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(compare(reactor, arguments.scale)))
