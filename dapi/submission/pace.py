"""How much is sent: how many transactions are in flight, and how large one is. Pure.

Both follow what the chain takes. Each transaction that comes into a block makes room for two others, so that the number
doubles with each block until a bound is reached; a full mempool brings it back to what the mempools have. A transaction
that is refused as a whole halves the size of the next ones, or brings it down to what the node says; each one that is
confirmed lets it grow a little again. Facts: docs/protocol/measured.md, 'Transactions on a real chain' and 'Chain nodes
that fail'.
"""

from __future__ import annotations

import re

from dapi.submission.settings import SubmitterSettings

# As many as fill a block.
_FIRST_TRANSACTIONS = 32
_MIN_TRANSACTIONS = 4
# A signed transaction with one message of one nonce has about 600 bytes.
_MIN_BYTES = 1_500
_MAX_MESSAGES = 500
_GROWTH = 1.02

_MAX_SIZE = re.compile(r"Max size is (\d+)|total txs bytes \d+ \(max: (\d+)\)")


class Pace:
    """How much may be sent now: ``transactions`` in flight, each of ``max_bytes`` and ``max_messages`` at most."""

    def __init__(self, limits: SubmitterSettings) -> None:
        self._limits = limits
        self.transactions = min(_FIRST_TRANSACTIONS, limits.max_in_flight)
        self.max_bytes = limits.max_transaction_bytes
        self.max_messages = _MAX_MESSAGES

    def has_room(self, transactions: int, size: int) -> bool:
        """Tell whether one more may be sent beside so many, of ``size`` bytes together, that are in flight."""
        if transactions == 0:
            return True
        return transactions < self.transactions and size + self.max_bytes <= self._limits.max_in_flight_bytes

    def confirmed(self) -> None:
        """Hear that a transaction is in a block."""
        self.transactions = min(self.transactions + 1, self._limits.max_in_flight)
        self.max_bytes = min(round(self.max_bytes * _GROWTH) + 1, self._limits.max_transaction_bytes)
        self.max_messages = min(round(self.max_messages * 1.25) + 1, _MAX_MESSAGES)

    def mempool_is_full(self, taken: int) -> None:
        """Hear that no mempool has room for more than the ``taken`` transactions that they have of ours."""
        self.transactions = min(self.transactions, max(taken, _MIN_TRANSACTIONS))

    def too_large(self, size: int, log: str) -> bool:
        """Hear that a transaction of ``size`` bytes was too large; ``log`` may say how many bytes are allowed.

        Returns whether the next ones are smaller than that: they cannot be arbitrarily small.
        """
        self.max_bytes = max(_MIN_BYTES, min(self.max_bytes, max_size(log) or size // 2))
        return self.max_bytes < size

    def too_many(self, messages: int) -> None:
        """Hear that a transaction with so many messages could not be read, or used too much gas."""
        self.max_messages = max(1, min(self.max_messages, messages // 2))


def max_size(log: str) -> int | None:
    """Return how many bytes a transaction may have, if a refusal says so; also a full mempool says what it holds."""
    found = _MAX_SIZE.search(log)
    return int(found.group(1) or found.group(2)) if found is not None else None
