"""The simulated node's mempool: a bounded queue, and a cache of what was seen.

Limits and words are CometBFT's (docs/protocol/chain.md, 'Limits' and 'Answers to a broadcast').
"""

from __future__ import annotations

from collections import OrderedDict

from dapi.simulator.chain.transactions import Transaction


class MempoolRefused(Exception):  # noqa: N818
    """It is not taken; the text is what the RPC passes on as ``error.data``."""


class Mempool:
    """Transactions that wait for a block, first come first served."""

    def __init__(self, *, max_txs: int = 5000, max_tx_bytes: int = 1_048_576, cache_size: int = 10_000) -> None:
        self.max_txs = max_txs
        self.max_tx_bytes = max_tx_bytes
        self._cache_size = cache_size
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._waiting: dict[str, Transaction] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def admit(self, tx_hash: str, size: int, *, is_full: bool = False) -> None:
        """Refuse what is too large, too much or known (MempoolRefused); otherwise know it from now on."""
        if is_full or len(self._waiting) >= self.max_txs:
            total = sum(len(tx.raw) for tx in self._waiting.values())
            raise MempoolRefused(
                f"mempool is full: number of txs {len(self._waiting)} (max: {self.max_txs}),"
                f" total txs bytes {total} (max: 1073741824)"
            )
        if size > self.max_tx_bytes:
            raise MempoolRefused(f"Tx too large. Max size is {self.max_tx_bytes}, but got {size}")
        if tx_hash in self._seen:
            raise MempoolRefused("tx already exists in cache")
        self._seen[tx_hash] = None
        if len(self._seen) > self._cache_size:
            self._seen.popitem(last=False)

    def forget(self, tx_hash: str) -> None:
        """Know it no more: it failed, so the same bytes may come again."""
        self._seen.pop(tx_hash, None)
        self._waiting.pop(tx_hash, None)

    def put(self, tx: Transaction) -> None:
        """Have an admitted and checked transaction wait for a block."""
        self._waiting[tx.hash] = tx

    def take(self, max_bytes: int) -> list[Transaction]:
        """Take what goes into the next block."""
        taken: list[Transaction] = []
        size = 0
        for tx in list(self._waiting.values()):
            size += len(tx.raw)
            if size > max_bytes:
                break
            taken.append(self._waiting.pop(tx.hash))
        return taken

    def waiting(self) -> list[Transaction]:
        """Give what waits, in order."""
        return list(self._waiting.values())

    def clear(self) -> None:
        """Lose everything, as a node that restarts does."""
        self._seen.clear()
        self._waiting.clear()
