"""What is seen of one stage and model, and what is wrong with it, in words. Pure: no clock, no I/O."""

from __future__ import annotations

import enum
from collections import deque
from typing import Any, NamedTuple

from dapi.relay.api_answers import StageWindow

_SILENT_SECONDS = 30.0
# From a 200 to the disk, and from there into a block.
_LAG_SECONDS = 15.0
_UNCOMMITTED_SECONDS = 30.0
_BLOCKS_LEFT = 12


class Trouble(enum.StrEnum):
    """What can be wrong with a stage."""

    SILENT = "silent"
    NOT_COMMITTED = "not_committed"
    NOTHING_COMMITTED = "nothing_committed"
    TAIL = "tail"
    WEIGHTS = "weights"
    RESTARTED = "restarted"


class Seen(NamedTuple):
    """What was seen at one moment; ``now`` in seconds. None: not known.

    ``generating`` is how many nodes of the model say that they generate.
    """

    now: float
    height: int
    stored: int | None
    committed: int | None
    has_weights: bool | None
    generating: int
    restarts: int


class StageWatch:
    """One stage and model; ``first_restarts`` is how often the api container had been started anew when it began."""

    def __init__(self, stage: StageWindow, model: str, first_restarts: int) -> None:
        self.stage = stage
        self.model = model
        self._first_restarts = first_restarts
        self._seen: Seen | None = None
        self._grown_at: float | None = None
        self._began_at: float | None = None
        self._first_stored_at: float | None = None
        self._stored_at_a_third: int | None = None
        self._stored_at_the_end: int | None = None
        # What was stored when, for as long as a commit may take.
        self._history: deque[tuple[float, int]] = deque()

    def see(self, seen: Seen) -> None:
        """Take what is seen now."""
        before, self._seen = self._seen, seen
        if self._began_at is None:
            self._began_at = self._grown_at = seen.now
        if seen.stored is not None and (before is None or seen.stored != before.stored):
            self._grown_at = seen.now
        if seen.stored and self._first_stored_at is None:
            self._first_stored_at = seen.now
        if seen.stored is not None:
            third = self.stage.start + (self.stage.end - self.stage.start) // 3
            if seen.height <= third:
                self._stored_at_a_third = seen.stored
            if seen.height <= self.stage.end:
                self._stored_at_the_end = seen.stored
                self._history.append((seen.now, seen.stored))
        while len(self._history) > 1 and self._history[1][0] <= seen.now - _LAG_SECONDS:
            self._history.popleft()

    def troubles(self) -> dict[Trouble, str]:
        """Say what is wrong now."""
        seen = self._seen
        if seen is None:
            return {}
        found = self._while_generating(seen) if seen.height <= self.stage.end else self._after_the_end(seen)
        if seen.restarts > self._first_restarts:
            times = seen.restarts - self._first_restarts
            found[Trouble.RESTARTED] = (
                f"the api container was started anew {times} times in stage {self.stage.height}: what it had in memory "
                "is lost, unless the relay sends it again"
            )
        return found

    def _while_generating(self, seen: Seen) -> dict[Trouble, str]:
        found: dict[Trouble, str] = {}
        where = f"stage {self.stage.height}, {self.model}"
        silent = seen.now - (self._grown_at if self._grown_at is not None else seen.now)
        if seen.generating and silent >= _SILENT_SECONDS:
            found[Trouble.SILENT] = (
                f"{where}: no artifact was stored for {silent:.0f} s while {seen.generating} nodes generate"
            )
        if seen.committed is None or not seen.stored:
            return found
        left = self.stage.end - seen.height
        due_at = self._first_stored_at
        if not seen.committed and due_at is not None and seen.now - due_at >= _UNCOMMITTED_SECONDS:
            found[Trouble.NOTHING_COMMITTED] = (
                f"{where}: nothing was committed although {seen.stored} are stored, {left} blocks left: the fee grant "
                "of the cold account may be missing, a model may not be in governance, or the commits are refused"
            )
        elif left <= _BLOCKS_LEFT and seen.committed < self._history[0][1] <= seen.stored and self._is_old(seen):
            found[Trouble.NOT_COMMITTED] = (
                f"{where}: stored {seen.stored}, committed {seen.committed}, {left} blocks left"
            )
        return found

    def _is_old(self, seen: Seen) -> bool:
        return self._history[0][0] <= seen.now - _LAG_SECONDS

    def _after_the_end(self, seen: Seen) -> dict[Trouble, str]:
        found: dict[Trouble, str] = {}
        where = f"stage {self.stage.height}, {self.model}"
        stored = self._stored_at_the_end
        if seen.committed is not None and stored is not None and seen.committed < stored:
            found[Trouble.TAIL] = (
                f"{where}: the last flush before the end was not committed: {seen.committed} of {stored}"
            )
        left = self.stage.validation_end - seen.height
        if seen.has_weights is False and seen.committed and left > 0 and seen.height >= self.stage.validation_start:
            found[Trouble.WEIGHTS] = f"{where}: the weight distribution is missing, {left} blocks left"
        return found

    def status(self) -> dict[str, Any]:
        """Return what is known of it, as JSON data."""
        seen = self._seen
        at_a_third, at_the_end = self._stored_at_a_third, self._stored_at_the_end
        return {
            "height": self.stage.height,
            "model": self.model,
            "kind": self.stage.kind,
            "end": self.stage.end,
            "stored": seen.stored if seen is not None else None,
            "committed": seen.committed if seen is not None else None,
            "share_at_a_third": round(at_a_third / at_the_end, 3) if at_a_third is not None and at_the_end else None,
            "stored_at_the_end": at_the_end,
            "restarts": seen.restarts - self._first_restarts if seen is not None else 0,
        }
