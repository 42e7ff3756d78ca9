"""A bounded amount that is shared out, so that no holder can have so much that nothing is left for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable


class Shares:
    """Shares ``limit`` out, of whatever it is (connections, bytes).

    Who has nothing may begin as long as anything is left. Who has something may take more as long as that is at most
    half of what is left: a single holder comes to a third of the limit, the next one to a third of the rest, and so on.
    So the more there are, the less each may have, and no number of them that is at hand uses up all.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[Hashable] = Counter()
        self.total = 0

    def held_by(self, holder: Hashable) -> int:
        """Return how much a holder has."""
        return self._held[holder]

    @property
    def holders(self) -> int:
        """How many have something."""
        return len(self._held)

    def may_take(self, holder: Hashable, amount: int = 1) -> bool:
        """Tell whether a holder may have so much more."""
        left, held = self._limit - self.total, self._held[holder]
        return amount <= left and 2 * held <= left

    def take(self, holder: Hashable, amount: int = 1) -> None:
        """Record that a holder has so much more, whether it may or not."""
        self._held[holder] += amount
        self.total += amount

    def give_back(self, holder: Hashable, amount: int = 1) -> None:
        """Record that a holder has so much less; who has nothing is forgotten."""
        self.total -= amount
        self._held[holder] -= amount
        if self._held[holder] <= 0:
            del self._held[holder]
