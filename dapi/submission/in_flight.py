"""The transactions that are in flight, in memory: what was put in flight on disk, and is not decided yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dapi.messages import Kind
from dapi.submission.rows import TransactionInFlight


class InFlight:
    """Transactions by their hash; ``size`` is their bytes together. ``removed`` is called when one is decided."""

    def __init__(self, removed: Callable[[], object]) -> None:
        self._removed = removed
        self._by_hash: dict[str, TransactionInFlight] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._by_hash)

    def __contains__(self, transaction: TransactionInFlight) -> bool:
        return transaction.hash in self._by_hash

    def all(self) -> list[TransactionInFlight]:
        """Return all of them."""
        return list(self._by_hash.values())

    def replace(self, transactions: Iterable[TransactionInFlight]) -> None:
        """Begin anew with what the database says."""
        self._by_hash = {}
        self.size = 0
        for transaction in transactions:
            self.add(transaction)

    def add(self, transaction: TransactionInFlight) -> None:
        """Add one that was put in flight on disk."""
        self._by_hash[transaction.hash] = transaction
        self.size += transaction.size

    def remove(self, transaction: TransactionInFlight) -> None:
        """Forget one that is decided."""
        del self._by_hash[transaction.hash]
        self.size -= transaction.size
        self._removed()

    def has_kind(self, kind: Kind) -> bool:
        """Tell whether messages of a kind are in flight."""
        return any(message.kind is kind for each in self._by_hash.values() for message in each.messages[:1])

    @property
    def known(self) -> int:
        """How many of them a mempool has taken, as far as is known."""
        return sum(transaction.is_taken for transaction in self._by_hash.values())
