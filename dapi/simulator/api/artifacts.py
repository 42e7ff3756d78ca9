"""What the simulated api container keeps of one stage and model: in memory first, and on disk at the next flush. Pure.

Facts: docs/protocol/poc-v2.md, 'The store'.
"""

from __future__ import annotations

from collections.abc import Iterable


class Artifacts:
    """Artifacts by nonce; the first one of a nonce wins. ``flushed`` is in the order of arrival."""

    def __init__(self) -> None:
        self.ram: dict[int, int] = {}
        self.flushed: dict[int, int] = {}

    @property
    def count(self) -> int:
        """What ``artifacts/state`` tells: what is flushed."""
        return len(self.flushed)

    def add(self, nonces: Iterable[int], node_num: int) -> int:
        """Keep what is new in memory; return how many that were. A nonce is cut to 32 bits."""
        before = len(self.ram)
        for nonce in nonces:
            cut = (nonce + 2**31) % 2**32 - 2**31
            if cut not in self.flushed:
                self.ram.setdefault(cut, node_num)
        return len(self.ram) - before

    def flush(self) -> None:
        """Bring to disk what is in memory."""
        self.flushed |= self.ram
        self.ram = {}

    def crash(self) -> int:
        """Lose what is in memory, as a kill does, and a clean stop too; return how many artifacts that were."""
        lost, self.ram = len(self.ram), {}
        return lost

    def damage(self, kept: int) -> None:
        """Keep only the first ones, as a recovery from a torn file does."""
        self.flushed = dict(list(self.flushed.items())[:kept])
