"""A simulated node's mempool: a bounded queue, and a cache of what was seen.

Limits and words: docs/protocol/chain.md, 'Limits' and 'Answers to a broadcast'.
"""

from __future__ import annotations

from collections import OrderedDict

from dapi.simulator.chain.transactions import Transaction


class MempoolRefused(Exception):  # noqa: N818
    """It is not taken; the text is what the RPC passes on as ``error.data``."""


class Mempool:
    """Transactions that wait for a block, first come first served; the limits may be changed at any time."""

    def __init__(
        self,
        *,
        max_txs: int = 5000,
        max_txs_bytes: int = 1 << 30,
        max_tx_bytes: int = 1 << 20,
        cache_size: int = 10_000,
    ) -> None:
        self.max_txs = max_txs
        self.max_txs_bytes = max_txs_bytes
        self.max_tx_bytes = max_tx_bytes
        self._cache_size = cache_size
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._waiting: dict[str, Transaction] = {}
        self._bytes = 0
        self.nonces: set[tuple[int, str]] = set()
        """What the waiting transactions use up."""

    def __len__(self) -> int:
        return len(self._waiting)

    def admit(self, tx_hash: str, size: int, *, is_full: bool = False) -> None:
        """Refuse what is too large, too much or known (MempoolRefused); otherwise know it from now on."""
        if is_full or len(self) >= self.max_txs or self._bytes + size > self.max_txs_bytes:
            raise MempoolRefused(
                f"mempool is full: number of txs {len(self)} (max: {self.max_txs}),"
                f" total txs bytes {self._bytes} (max: {self.max_txs_bytes})"
            )
        if size > self.max_tx_bytes:
            raise MempoolRefused(f"Tx too large. Max size is {self.max_tx_bytes}, but got {size}")
        if tx_hash in self._seen:
            raise MempoolRefused("tx already exists in cache")
        self.know(tx_hash)

    def know(self, tx_hash: str) -> None:
        """Know it from now on, as long as the cache has room."""
        self._seen[tx_hash] = None
        if len(self._seen) > self._cache_size:
            self._seen.popitem(last=False)

    def forget(self, tx_hash: str) -> None:
        """Know it no more: it failed, so the same bytes may come again."""
        self._seen.pop(tx_hash, None)
        self.remove(tx_hash)

    def put(self, tx: Transaction) -> None:
        """Have an admitted and checked transaction wait for a block."""
        self._waiting[tx.hash] = tx
        self._bytes += len(tx.raw)
        self.nonces.add(tx.nonce)

    def remove(self, tx_hash: str) -> None:
        """Have a transaction wait no more; its bytes stay known."""
        tx = self._waiting.pop(tx_hash, None)
        if tx is not None:
            self._bytes -= len(tx.raw)
            self.nonces.discard(tx.nonce)

    def take(self, max_bytes: int, max_gas: int | None = None) -> list[Transaction]:
        """Take what goes into the next block: the gas that its transactions may use counts, not what they will use."""
        taken: list[Transaction] = []
        size = gas = 0
        for tx in self.waiting():
            size += len(tx.raw)
            gas += tx.auth.fee.gas_limit
            if size > max_bytes or (max_gas is not None and gas > max_gas):
                break
            self.remove(tx.hash)
            taken.append(tx)
        return taken

    def waiting(self) -> list[Transaction]:
        """Return what waits, in order."""
        return list(self._waiting.values())

    def clear(self) -> None:
        """Lose everything, as a node that restarts does."""
        self._seen.clear()
        self._waiting.clear()
        self._bytes = 0
        self.nonces.clear()
