"""Compares what the container has on disk of one stage and model with what was handed on. Pure: no clock, no I/O.

200 means *in memory*. The container tells how many different nonces it has on disk, of all nodes together, and brings
everything to disk at once, each 5 s. So a payload is there for certain

- when the container counts at least all that was handed on before it was asked, or
- when it counts more than at the question before (it has written meanwhile), and at least all that was handed on before
  that question.

Where it counts more than at the question before, and less than was handed on before the question before that one, it
has written without what is missing: it has lost that, however it answered.

Where others, or an earlier dapi, put artifacts there of which nothing is known here, the numbers cannot be compared
(``is_exact``): then a payload counts as there when the container has run on for 15 s since its 200.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from dapi.relay.nonces import NonceSet


class Mark(NamedTuple):
    """What had been handed on when the container was asked: different nonces, and the rank of the last payload."""

    distinct: int
    rank: int


class Reading(NamedTuple):
    """What an answer says: payloads up to ``settled_rank`` are on disk; ``has_fallen``: it counts less than before.

    Of those up to ``lost_rank`` some are lost.
    """

    settled_rank: int
    has_fallen: bool
    lost_rank: int = 0


class StageLedger:
    """``count`` is what the container counted last, None while it does not know the stage.

    ``by_node`` counts the different nonces that were handed on by the number of the node that delivered them first.
    """

    def __init__(self) -> None:
        self.count: int | None = None
        self.by_node: Counter[int | None] = Counter()
        self.highest = 0
        self._nonces = NonceSet()
        self._is_shared = False
        self._rank = 0
        self._last: Mark | None = None
        self._last_but_one: Mark | None = None

    @property
    def is_exact(self) -> bool:
        """Whether the count can be compared with what was handed on."""
        return self._nonces.is_exact and not self._is_shared

    @property
    def handed_on(self) -> int:
        """How many different nonces were answered with 200."""
        return self._nonces.taken

    @property
    def missing(self) -> int:
        """How many of the nonces that were handed on the container does not count yet."""
        return max(0, self.handed_on - (self.count or 0))

    def sending(self, nonces: Sequence[int]) -> None:
        """Record that a payload is about to be sent: from here on the container may count it."""
        self._nonces.send(nonces)

    def took(self, nonces: Sequence[int], node_num: int | None = None) -> int:
        """Record that a payload was answered with 200, so that its node is a registered one; return its rank."""
        if new := self._nonces.take(nonces):
            self.by_node[node_num] += new
        self._rank += 1
        return self._rank

    def mark(self) -> Mark:
        """Return what has been handed on, right before the container is asked."""
        return Mark(self.handed_on, self._rank)

    def read(self, mark: Mark, count: int | None) -> Reading:
        """Take the answer to a question that was asked at ``mark``."""
        before, last, last_but_one = self.count, self._last, self._last_but_one
        self.count, self._last, self._last_but_one = count, mark, last
        if count is None:
            # Unknown is not zero.
            self.count = before
            return Reading(0, False)
        if count > self._nonces.sent:
            self._is_shared = True
        has_fallen = count < self.highest
        self.highest = count if has_fallen else max(self.highest, count)
        if has_fallen or not self.is_exact:
            return Reading(0, has_fallen)
        if count >= mark.distinct:
            return Reading(mark.rank, False)
        has_written = before is not None and count > before
        if has_written and last is not None and count >= last.distinct:
            return Reading(last.rank, False)
        if has_written and last_but_one is not None and count < last_but_one.distinct:
            return Reading(0, False, last_but_one.rank)
        return Reading(0, False)

    def look(self, mark: Mark, count: int | None) -> None:
        """Take the answer to a question between two readings, which was asked at ``mark``, right after a 200.

        While the count is what it was, the container has not written since, so that what it writes next has all of
        that. Otherwise a payload that comes right before each write would make up for one of its size that was lost.
        """
        if self._last is not None and count is not None and count == self.count:
            self._last = mark

    def close(self) -> None:
        """Keep the numbers alone, once no artifact is taken any more: the nonces take a byte each."""
        self._nonces.close()

    def started_anew(self) -> None:
        """Record that the container was started anew: what it counted on a question before says nothing."""
        self._last = self._last_but_one = None
