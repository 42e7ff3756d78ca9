"""The chain that all nodes agree on: blocks out of the validators' mempool, and a ledger of all that was delivered."""

from __future__ import annotations

import hashlib
from collections import Counter

import msgspec

from dapi.simulator.chain.checks import check_tx, recheck
from dapi.simulator.chain.execution import deliver_tx
from dapi.simulator.chain.mempool import Mempool, MempoolRefused
from dapi.simulator.chain.messages import HostMessage, SubmitPocBatch
from dapi.simulator.chain.rules import TxRefused
from dapi.simulator.chain.state import ChainState
from dapi.simulator.chain.transactions import Transaction
from dapi.simulator.chain.weights import end_block

MAX_BLOCK_BYTES = 22_020_096

_BLOCKS_KEPT = 1000


class TxRecord(msgspec.Struct, frozen=True):
    """A transaction in a block; ``data`` is its encoded TxMsgData, empty when it failed."""

    tx: Transaction
    height: int
    index: int
    code: int
    codespace: str
    log: str
    data: bytes


class Delivered(msgspec.Struct, frozen=True):
    """One message in one block; it did something only when ``code``, its transaction's, is 0."""

    message: HostMessage
    tx_hash: str
    height: int
    code: int
    codespace: str
    log: str


class Block(msgspec.Struct, frozen=True):
    """``hash`` is upper-case hex."""

    height: int
    time_ns: int
    hash: str
    records: tuple[TxRecord, ...]


class Blockchain:
    """Makes blocks of what waits in ``mempool``, the validators' own.

    ``ledger`` has every message ever delivered, in order, failed ones included. Blocks older than the last thousand are
    forgotten; ``find`` still finds their transactions. With ``has_first_block`` false the first block is still to come.
    """

    def __init__(
        self, state: ChainState, first_time_ns: int, first_height: int = 1, *, has_first_block: bool = True
    ) -> None:
        self.state = state
        self.mempool = Mempool()
        self.ledger: list[Delivered] = []
        self.blocks: dict[int, Block] = {}
        self.first_height = first_height
        self.latest = Block(first_height - 1, first_time_ns - 1, "", ())
        self._records: dict[str, TxRecord] = {}
        state.begin_block(first_height - 1, first_time_ns - 1)
        if has_first_block:
            self.produce_block(first_time_ns)

    def offer(self, tx: Transaction) -> None:
        """Put a transaction that a node passes on into the validators' mempool; a refusal is told to nobody."""
        try:
            self.mempool.admit(tx.hash, len(tx.raw))
        except MempoolRefused:
            return
        try:
            now = self.state.at(self.latest.height)
            check_tx(self.state, now, tx, self.mempool.nonces, is_recheck=True)
        except TxRefused:
            self.mempool.forget(tx.hash)
        else:
            self.mempool.put(tx)

    def produce_block(self, time_ns: int) -> Block:
        """Make the next block of what is in the mempool; its time is ``time_ns`` or just after the latest one's."""
        height = self.latest.height + 1
        time_ns = max(time_ns, self.latest.time_ns + 1)
        self.state.begin_block(height, time_ns)
        txs = self.mempool.take(MAX_BLOCK_BYTES, self.state.rules.max_gas)
        records = tuple(self._deliver(tx, height, index) for index, tx in enumerate(txs))
        end_block(self.state)
        parts = f"{self.state.chain_id}/{height}/{time_ns}/{self.latest.hash}/{[tx.hash for tx in txs]}"
        block = Block(height, time_ns, hashlib.sha256(parts.encode()).hexdigest().upper(), records)
        self.latest = self.blocks[height] = block
        self.blocks.pop(height - _BLOCKS_KEPT, None)
        recheck(self.state, self.state.at(height), self.mempool)
        return block

    def find(self, tx_hash: str) -> TxRecord | None:
        """Return what became of a transaction, None when it is in no block."""
        return self._records.get(tx_hash)

    def batch_counts(self) -> Counter[str]:
        """Return how often each batch_id was delivered and taken: none should be above 1."""
        return Counter(
            delivered.message.batch_id
            for delivered in self.ledger
            if delivered.code == 0 and isinstance(delivered.message, SubmitPocBatch)
        )

    def doubles(self) -> dict[str, list[str]]:
        """Return the hashes of the transactions that brought each batch_id that was taken more than once."""
        return {
            batch_id: [d.tx_hash for d in self.deliveries_of(batch_id) if d.code == 0]
            for batch_id, count in self.batch_counts().items()
            if count > 1
        }

    def deliveries_of(self, batch_id: str) -> list[Delivered]:
        """Return every delivery of a batch, failed ones included."""
        return [
            delivered
            for delivered in self.ledger
            if isinstance(delivered.message, SubmitPocBatch) and delivered.message.batch_id == batch_id
        ]

    def _deliver(self, tx: Transaction, height: int, index: int) -> TxRecord:
        code, codespace, log, data = 0, "", "", b""
        try:
            data = deliver_tx(self.state, tx)
        except TxRefused as refusal:
            code, codespace, log = refusal.code, refusal.codespace, refusal.log
            self.mempool.forget(tx.hash)
        record = TxRecord(tx, height, index, code, codespace, log, data)
        self._records[tx.hash] = record
        self.ledger.extend(Delivered(message, tx.hash, height, code, codespace, log) for message in tx.host_messages())
        return record
