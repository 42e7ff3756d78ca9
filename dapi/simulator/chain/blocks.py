"""The simulated chain itself: mempool in, blocks out, and a ledger of all that was delivered. No socket, no timer."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import msgspec

from dapi.simulator.chain.mempool import Mempool, MempoolRefused
from dapi.simulator.chain.messages import PocMessage, SubmitPocBatch, TxRefused
from dapi.simulator.chain.state import ChainState
from dapi.simulator.chain.transactions import Transaction, decode_transaction, hash_of

_MAX_BLOCK_BYTES = 22_020_096
_BLOCKS_KEPT = 1000


class Switches(msgspec.Struct):
    """What can be made to go wrong; may be changed at any time."""

    is_halted: bool = False
    """No block comes by itself."""
    is_mempool_full: bool = False
    is_mempool_rechecking: bool = False
    drop_fraction: float = 0.0
    """This part of the accepted transactions never gets into a block; the node remembers their bytes all the same."""
    loses_confirmations: bool = False
    """Broadcasts work, and are answered with 'broadcast confirmation not received'."""
    index_delay_blocks: int = 0
    """A transaction can be looked up only this many blocks after its own."""
    is_indexing_off: bool = False
    is_catching_up: bool = False
    answers_500: bool = False
    answer_delay_seconds: float = 0.0
    hides_events: bool = False
    """WebSockets stay open, and nobody is told of new blocks."""


class CheckResult(msgspec.Struct, frozen=True):
    """What a broadcast is answered with."""

    hash: str
    code: int = 0
    codespace: str = ""
    log: str = ""


class TxRecord(msgspec.Struct, frozen=True):
    """A transaction in a block."""

    tx: Transaction
    height: int
    index: int
    code: int
    codespace: str
    log: str


class Delivered(msgspec.Struct, frozen=True):
    """One message in one block; it did something only when ``code``, its transaction's, is 0."""

    message: PocMessage
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
    """Takes transactions and makes blocks of them.

    ``ledger`` has every message ever delivered, in order, failed ones included. Blocks older than the last thousand are
    forgotten (their transactions can still be looked up).
    """

    def __init__(self, rng: random.Random, state: ChainState, first_time_ns: int, first_height: int = 1) -> None:
        self.state = state
        self.mempool = Mempool()
        self.switches = Switches()
        self.ledger: list[Delivered] = []
        self._random = rng
        self._records: dict[str, TxRecord] = {}
        self.blocks: dict[int, Block] = {}
        self.latest = Block(first_height - 1, first_time_ns - 1, "", ())
        self.produce_block(first_time_ns)

    def broadcast(self, raw: bytes) -> CheckResult:
        """Check a transaction and put it into the mempool; raises MempoolRefused with the words of the RPC error."""
        tx_hash = hash_of(raw)
        if self.switches.is_mempool_rechecking:
            raise MempoolRefused("mempool is still rechecking after a new committed block, so it is considered as full")
        self.mempool.admit(tx_hash, len(raw), is_full=self.switches.is_mempool_full)
        try:
            tx = decode_transaction(raw)
            self.state.check_tx(tx, self.latest.height, self.latest.time_ns, self._pending_nonces())
        except TxRefused as refusal:
            self.mempool.forget(tx_hash)
            return CheckResult(tx_hash, refusal.code, refusal.codespace, refusal.log)
        if self._random.random() >= self.switches.drop_fraction:
            self.mempool.put(tx)
        if self.switches.loses_confirmations:
            raise MempoolRefused("broadcast confirmation not received: context deadline exceeded")
        return CheckResult(tx_hash)

    def produce_block(self, time_ns: int) -> Block:
        """Make the next block of what is in the mempool; its time is ``time_ns`` or just after the latest one's."""
        height = self.latest.height + 1
        time_ns = max(time_ns, self.latest.time_ns + 1)
        txs = self.mempool.take(_MAX_BLOCK_BYTES)
        records = tuple(self._deliver(tx, height, index, time_ns) for index, tx in enumerate(txs))
        parts = f"{self.state.chain_id}/{height}/{time_ns}/{self.latest.hash}/{[tx.hash for tx in txs]}"
        block = Block(height, time_ns, hashlib.sha256(parts.encode()).hexdigest().upper(), records)
        self.latest = self.blocks[height] = block
        self.blocks.pop(height - _BLOCKS_KEPT, None)
        self.state.forget_expired_nonces(time_ns)
        self._recheck()
        return block

    def find(self, tx_hash: str) -> TxRecord | None:
        """Look a transaction up as the node's index does."""
        record = self._records.get(tx_hash)
        if record is None or record.height + self.switches.index_delay_blocks > self.latest.height:
            return None
        return record

    def batch_counts(self) -> Counter[str]:
        """How often each batch_id was delivered and taken: none should be above 1."""
        return Counter(
            delivered.message.batch_id
            for delivered in self.ledger
            if delivered.code == 0 and isinstance(delivered.message, SubmitPocBatch)
        )

    def doubles(self) -> dict[str, list[str]]:
        """Give the hashes of the transactions that brought each batch_id that was taken more than once."""
        return {
            batch_id: [d.tx_hash for d in self.deliveries_of(batch_id) if d.code == 0]
            for batch_id, count in self.batch_counts().items()
            if count > 1
        }

    def deliveries_of(self, batch_id: str) -> list[Delivered]:
        """Give every delivery of a batch, failed ones included."""
        return [
            delivered
            for delivered in self.ledger
            if isinstance(delivered.message, SubmitPocBatch) and delivered.message.batch_id == batch_id
        ]

    def _deliver(self, tx: Transaction, height: int, index: int, time_ns: int) -> TxRecord:
        code, codespace, log = 0, "", ""
        try:
            self.state.deliver_tx(tx, height, time_ns)
        except TxRefused as refusal:
            code, codespace, log = refusal.code, refusal.codespace, refusal.log
            self.mempool.forget(tx.hash)
        record = TxRecord(tx, height, index, code, codespace, log)
        self._records[tx.hash] = record
        self.ledger.extend(Delivered(message, tx.hash, height, code, codespace, log) for message in tx.poc_messages())
        return record

    def _recheck(self) -> None:
        """Drop from the mempool what the new block has made impossible, as CometBFT does after each."""
        kept: set[tuple[int, str]] = set()
        for tx in self.mempool.waiting():
            try:
                self.state.check_tx(tx, self.latest.height, self.latest.time_ns, kept)
            except TxRefused:
                self.mempool.forget(tx.hash)
            else:
                kept.add(_nonce(tx))

    def _pending_nonces(self) -> set[tuple[int, str]]:
        return {_nonce(tx) for tx in self.mempool.waiting()}


def _nonce(tx: Transaction) -> tuple[int, str]:
    return (tx.timeout_ns or 0, tx.messages[0].signer)
