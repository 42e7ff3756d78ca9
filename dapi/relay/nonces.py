"""A set of nonces of one stage and model: how many different ones there are, in a byte each."""

from __future__ import annotations

from collections.abc import Sequence

_MOST = 2**26


class NonceSet:
    """Distinct nonces from 0 on. ``is_exact`` is false once there was one that could not be remembered.

    One is too high, or comes after ``close``, which keeps the count and gives the memory back.
    """

    def __init__(self) -> None:
        self._flags = bytearray()
        self._is_closed = False
        self.count = 0
        self.is_exact = True

    def close(self) -> None:
        """Remember no nonce any more, and how many there were."""
        self._flags, self._is_closed = bytearray(), True

    def add(self, nonces: Sequence[int]) -> int:
        """Add nonces; return how many of them are new."""
        if not nonces:
            return 0
        # Of a range the last one, which costs no look at all the others.
        highest = nonces[-1] if isinstance(nonces, range) else max(nonces)
        if highest >= _MOST or self._is_closed:
            self.is_exact = False
            return 0
        if (missing := highest + 1 - len(self._flags)) > 0:
            # With room for the next ones, so that it is not copied for each.
            self._flags += bytes(missing + len(self._flags) // 8)
        before = self.count
        if isinstance(nonces, range):
            new = len(nonces) - self._flags[nonces.start : nonces.stop : nonces.step].count(1)
            self._flags[nonces.start : nonces.stop : nonces.step] = b"\1" * len(nonces)
            self.count += new
        else:
            for nonce in nonces:
                if not self._flags[nonce]:
                    self._flags[nonce] = 1
                    self.count += 1
        return self.count - before
