"""Which nodes say that they generate, and deliver nothing to the relay."""

from __future__ import annotations

from typing import Any

from dapi.relay.facts import Facts
from dapi.relay.knowledge import Knowledge

# A node delivers every 5 s.
_SILENT_SECONDS = 30.0


class Hearing:
    """Remembers when each registered node delivered last."""

    def __init__(self, reactor: Any, knowledge: Knowledge) -> None:
        self._reactor = reactor
        self._knowledge = knowledge
        self._heard: dict[int, float] = {}

    def hear(self, facts: Facts) -> None:
        """Remember that a callback came; one of no registered node is nobody's."""
        nodes = self._knowledge.nodes or ()
        if facts.node_num is not None and any(facts.node_num == node.node_num for node in nodes):
            self._heard[facts.node_num] = self._reactor.seconds()
            if len(self._heard) > 2 * len(nodes):
                numbers = {node.node_num for node in nodes}
                self._heard = {num: at for num, at in self._heard.items() if num in numbers}

    def silent(self) -> dict[str, float]:
        """Return for how many seconds each node has delivered nothing that says it generates, from 30 s on."""
        knowledge, now = self._knowledge, self._reactor.seconds()
        if not knowledge.is_generating_time or "nodes" in knowledge.problems:
            return {}
        silent = {}
        for node in knowledge.nodes or ():
            since = knowledge.generating.get(node.node_id)
            seconds = now - max(since, self._heard.get(node.node_num, since)) if since is not None else 0.0
            if seconds >= _SILENT_SECONDS:
                silent[node.node_id] = round(seconds, 1)
        return silent
