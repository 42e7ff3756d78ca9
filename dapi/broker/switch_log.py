"""Says once which nodes were brought to a duty, and not node by node: a stage may begin on a thousand of them."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from dapi.broker.duties import Intention
from dapi.phases.duty import Duty
from dapi.timing.timer import Timer

_COLLECT_SECONDS = 5.0
_SHOWN_NODES = 20
_WORDS = {
    Duty.GENERATE: "generation",
    Duty.VALIDATE: "validation",
    Duty.INFERENCE: "inference",
    Duty.STOPPED: "rest",
}


class SwitchLog:
    """Collects the nodes for 5 s after the first one; those that come later get a line of their own.

    A node that is brought to the same again, since it was found elsewhere, is not told again.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._last: dict[str, Intention] = {}
        self._switched: dict[tuple[Duty, int], list[str]] = {}
        self._collected: set[str] = set()
        self._timer = Timer(clock, _COLLECT_SECONDS, self.flush)

    def switched(self, node_id: str, intention: Intention) -> None:
        """Hear that a node was brought to its intention."""
        if self._last.get(node_id) == intention:
            return
        if node_id in self._collected:
            # It goes on to something else already.
            self.flush()
        self._collected.add(node_id)
        self._last[node_id] = intention
        self._switched.setdefault((intention.duty, intention.block_height), []).append(node_id)
        if not self._timer.is_running:
            self._timer.start()

    def forget(self, node_id: str) -> None:
        """Hear that a node was removed or has another worker."""
        self._last.pop(node_id, None)

    def flush(self) -> None:
        """Log what was collected, now."""
        self._timer.cancel()
        switched, self._switched = self._switched, {}
        self._collected.clear()
        for (duty, height), node_ids in switched.items():
            shown = ", ".join(node_ids[:_SHOWN_NODES])
            more = len(node_ids) - _SHOWN_NODES
            self.log.info(
                "{stage}switched to {what}: {count} {nodes} ({shown})",
                stage=f"stage {height}: " if height else "",
                count=len(node_ids),
                nodes="node" if len(node_ids) == 1 else "nodes",
                what=_WORDS[duty],
                shown=f"{shown} and {more} more" if more > 0 else shown,
            )
