"""Whose messages go next: a node that had much of a stage sent lets the others go first. Work of the writer's thread.

What is stored goes in the order in which it came, so a node that brings a gigabyte would have the others wait behind
it until their window has ended. So what was sent of each node is counted, in steps of 16 MiB, which is more than a
node makes in a stage: of the nodes that have something stored, those on the lowest step go first. Nothing is left
unsent for that: the others follow where there is room.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from typing import TypeAlias

from dapi.messages.sizes import MIB

STEP_BYTES = 16 * MIB
_STAGES = 8

Group: TypeAlias = tuple[int, str]
"""The height of a stage, and a kind."""


class NodeShares:
    """Counts the bytes that were begun of each node, for the 8 stages and kinds that were sent last.

    What a former process has sent is not counted, and what goes again is counted again. A message of no node has the
    name ''.
    """

    def __init__(self) -> None:
        self._sent: OrderedDict[Group, Counter[str]] = OrderedDict()
        # In this round, by stage, kind, run, and the list of nodes that wait.
        self._first: defaultdict[tuple[Group, str, str], int] = defaultdict(int)

    def begin_round(self) -> None:
        """Hear that other messages may be stored than before."""
        self._first.clear()

    def record(self, group: Group, node_id: str | None, size: int) -> None:
        """Count bytes of a node that are being sent."""
        sent = self._sent.setdefault(group, Counter())
        self._sent.move_to_end(group)
        if len(self._sent) > _STAGES:
            self._sent.popitem(last=False)
        sent[node_id or ""] += size

    def to_let_wait(self, group: Group) -> Iterator[str]:
        """Yield the nodes that wait while others have something, as JSON lists: each has fewer, the last one none."""
        steps = {node: size // STEP_BYTES for node, size in self._sent.get(group, {}).items()}
        for step in sorted({0, *steps.values()}):
            yield json.dumps(sorted(node for node, its_step in steps.items() if its_step > step))

    def first(self, group: Group, run: str, waiting: str) -> int:
        """Return the first row to look at of a run, for messages of others than the ``waiting`` nodes."""
        return self._first[group, run, waiting]

    def found(self, group: Group, run: str, waiting: str, first: int) -> None:
        """Hear that no row before this one is stored of a run, of others than the ``waiting`` nodes."""
        self._first[group, run, waiting] = first
