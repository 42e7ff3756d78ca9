"""By how many numbers the nonces of each of the latest stages are shared out among the nodes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

_STAGES = 8


class NodeCounts:
    """Remembers the node counts of the 8 latest stages; a stage that is begun again by hand may have several."""

    def __init__(self) -> None:
        self._counts: OrderedDict[int, set[int]] = OrderedDict()

    def record_all(self, counts: Mapping[int, int]) -> None:
        """Record stages of an earlier start, by height."""
        for height in sorted(counts):
            self.record(height, counts[height])

    def record(self, height: int, node_count: int) -> None:
        """Record that a stage began with this count."""
        self._counts.setdefault(height, set()).add(node_count)
        self._counts.move_to_end(height)
        if len(self._counts) > _STAGES:
            self._counts.popitem(last=False)

    def of(self, height: int) -> frozenset[int]:
        """Return the counts of a stage, none when it is not known."""
        return frozenset(self._counts.get(height, ()))
