"""One node of the simulated chain: how far it is, its mempool, and what its operator has set. No socket, no timer.

Facts: docs/protocol/measured.md, 'Queries on a real chain' and 'Chain nodes that fail'.
"""

from __future__ import annotations

import random

import msgspec

from dapi.simulator.chain.blocks import Block, Blockchain, TxRecord
from dapi.simulator.chain.checks import check_tx, recheck
from dapi.simulator.chain.mempool import Mempool, MempoolRefused
from dapi.simulator.chain.queries import query
from dapi.simulator.chain.requests import HEIGHT_IN_FUTURE, QueryRefused
from dapi.simulator.chain.rules import TxRefused
from dapi.simulator.chain.state import StateView
from dapi.simulator.chain.transactions import Transaction, decode_transaction, hash_of


class NodeSettings(msgspec.Struct):
    """What a node's operator sets; may be changed at any time. The limits of the mempool are the mempool's own."""

    minimum_gas_price: float = 0.0
    """In the chain's smallest coin, per gas; asked in CheckTx only."""
    kept_states: int | None = None
    """So many latest heights can be queried; None: all. With pruning 'everything' a real node has 4."""
    kept_blocks: int | None = None
    """So many latest blocks can be had; None: as many as the simulation keeps."""
    blocks_per_second: float = 2.0
    """How fast the node follows once it is behind."""


class Switches(msgspec.Struct):
    """What can be made to go wrong with a node; may be changed at any time."""

    is_mempool_full: bool = False
    is_mempool_rechecking: bool = False
    drop_fraction: float = 0.0
    """This part of the accepted transactions never gets into a block; the node remembers their bytes all the same."""
    loses_confirmations: bool = False
    """Broadcasts work, and are answered with 'broadcast confirmation not received'."""
    is_indexing_off: bool = False
    """No transaction can be looked up."""
    invents_inclusions: bool = False
    """The node passes no transaction on, and says of each that it takes that it is in the next block with code 0."""
    hides_inclusions: bool = False
    """The node says of each transaction that it is in no block."""
    index_delay_blocks: int = 0
    """A transaction can be looked up only this many blocks after its own."""
    is_state_late: bool = False
    """The first query for the height of a new block is told, once, that the height is in the future."""
    lag_blocks: int = 0
    """The node stays this many blocks behind, and does not say so."""
    is_catching_up: bool = False
    """The node says that it is catching up, and passes no transaction on."""
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


class ChainNode:
    """What one node knows of the chain.

    ``latest`` is the latest block that it has. A node that is partitioned looks healthy: it stands still, answers, and
    takes transactions into its own mempool; they reach the validators once it is connected again, if they can still be
    taken. ``rng`` decides which transactions are dropped.
    """

    def __init__(self, blockchain: Blockchain, rng: random.Random, settings: NodeSettings | None = None) -> None:
        self.blockchain = blockchain
        self.mempool = Mempool()
        self.settings = settings or NodeSettings()
        self.switches = Switches()
        self.latest = blockchain.latest
        self.is_partitioned = False
        self._random = rng
        self._has_kept_back = False
        self._queried_height = 0
        self._invented: dict[str, TxRecord] = {}

    @property
    def height(self) -> int:
        """The height of the latest block that the node has; one below the first while it has none."""
        return self.latest.height

    @property
    def has_block(self) -> bool:
        """Whether the node has a block at all."""
        return self.height >= self.blockchain.first_height

    @property
    def lowest_height(self) -> int:
        """The oldest block that the node still has; 0 when it has none."""
        kept = self.settings.kept_blocks
        lowest = min(self.blockchain.blocks, default=0)
        return lowest if kept is None else max(lowest, self.height - kept + 1)

    @property
    def is_behind(self) -> bool:
        """Whether there are blocks that the node could have and has not."""
        return not self.is_partitioned and self.height < self.blockchain.latest.height - self.switches.lag_blocks

    def block(self, height: int) -> Block | None:
        """Return a block that the node has."""
        return self.blockchain.blocks.get(height) if self.lowest_height <= height <= self.height else None

    def broadcast(self, raw: bytes) -> CheckResult:
        """Check a transaction and put it into the mempool; raises MempoolRefused with the words of the RPC error."""
        tx_hash = hash_of(raw)
        if self.switches.is_mempool_rechecking:
            raise MempoolRefused("mempool is still rechecking after a new committed block, so it is considered as full")
        self.mempool.admit(tx_hash, len(raw), is_full=self.switches.is_mempool_full)
        try:
            tx = decode_transaction(raw)
            self._check(tx)
        except TxRefused as refusal:
            self.mempool.forget(tx_hash)
            return CheckResult(tx_hash, refusal.code, refusal.codespace, refusal.log)
        if self.switches.invents_inclusions:
            self._invented[tx_hash] = TxRecord(tx, self.height + 1, 0, 0, "", "", b"")
        elif self._random.random() >= self.switches.drop_fraction:
            self.mempool.put(tx)
            self._pass_on(tx)
        if self.switches.loses_confirmations:
            raise MempoolRefused("broadcast confirmation not received: context deadline exceeded")
        return CheckResult(tx_hash)

    def query(self, path: str, data: bytes, height: int) -> bytes:
        """Answer a query about the state at ``height`` (0: the latest); raises QueryRefused."""
        if not self.has_block:
            raise QueryRefused(18, "inference is not ready; please wait for first block")
        if self.switches.is_state_late and height == self.height > self._queried_height:
            self._queried_height = height
            raise QueryRefused(26, HEIGHT_IN_FUTURE)
        kept = self.settings.kept_states
        if height and kept is not None and height <= self.height - kept:
            log = f"failed to load state at height {height}; version does not exist (latest height: {self.height})"
            raise QueryRefused(38, f"{log}: not found")
        return query(self.blockchain.state, path, data, height, self.height)

    def find(self, tx_hash: str) -> TxRecord | None:
        """Look a transaction up as the node's index does, or lie about it."""
        record = self.blockchain.find(tx_hash)
        if self.switches.invents_inclusions:
            record = record or self._invented.get(tx_hash)
        if record is None or self.switches.hides_inclusions:
            return None
        return record if record.height + self.switches.index_delay_blocks <= self.height else None

    def partition(self) -> None:
        """Cut the node off from all others."""
        self.is_partitioned = True

    def reconnect(self) -> None:
        """Connect the node again: what it took meanwhile goes to the validators; it follows with ``step``."""
        self.is_partitioned = False
        self._pass_all_on()

    def follow(self) -> bool:
        """Take over the block that was just made, unless the node is further behind; return whether it did."""
        goal = self.blockchain.latest.height - self.switches.lag_blocks
        return self.height == goal - 1 and self.step() is not None

    def step(self) -> Block | None:
        """Take over the next block, if there is one for the node."""
        if not self.is_behind:
            return None
        blocks = self.blockchain.blocks
        block = self.latest = blocks[max(self.height + 1, min(blocks))]
        for record in block.records:
            self.mempool.remove(record.tx.hash)
            if record.code:
                self.mempool.forget(record.tx.hash)
            else:
                self.mempool.know(record.tx.hash)
        recheck(self.blockchain.state, self._view, self.mempool)
        if self._has_kept_back:
            self._pass_all_on()
        return block

    def join(self, blockchain: Blockchain) -> None:
        """Become a node of another chain, at its latest block."""
        self.blockchain = blockchain
        self.latest = blockchain.latest
        self.is_partitioned = False
        self.mempool.clear()

    @property
    def _view(self) -> StateView:
        return self.blockchain.state.at(self.height)

    def _check(self, tx: Transaction) -> None:
        if not self.has_block:
            # Its block time is that of no block at all.
            raise TxRefused("sdk", 18, "unordered tx ttl exceeds 10m0s: invalid request")
        price = self.settings.minimum_gas_price
        check_tx(self.blockchain.state, self._view, tx, self.mempool.nonces, minimum_gas_price=price)

    def _pass_all_on(self) -> None:
        self._has_kept_back = False
        for tx in self.mempool.waiting():
            self._pass_on(tx)

    def _pass_on(self, tx: Transaction) -> None:
        if self.is_partitioned or self.switches.is_catching_up:
            self._has_kept_back = True
        else:
            self.blockchain.offer(tx)
