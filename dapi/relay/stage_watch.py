"""What is seen of one stage and model, and what is wrong with it, in words. Pure: no clock, no I/O."""

from __future__ import annotations

import enum
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from dapi.relay.api_answers import StageKind, StageWindow
from dapi.relay.chain_questions import Votes
from dapi.relay.watched_stage import WatchedStage

_SILENT_SECONDS = 30.0
# From a 200 to the disk, and from there into a block.
_LAG_SECONDS = 15.0
_UNCOMMITTED_SECONDS = 30.0
_BLOCKS_LEFT = 12
# The container writes each 5 s: over a minute that is a twelfth, so the share of one node of six can be seen.
_GROWTH_SECONDS = 60.0
_MOST_NODES = 6
_SHARE_OF_A_NODE = 0.75
_ENOUGH_GROWTHS = 10
_MAX_GROWTHS = 1000


class Trouble(enum.StrEnum):
    """What can be wrong with a stage."""

    SILENT = "silent"
    SLOWER = "slower"
    STOPPED = "stopped"
    NOT_COMMITTED = "not_committed"
    NOTHING_COMMITTED = "nothing_committed"
    TAIL = "tail"
    WEIGHTS = "weights"
    VOTES = "votes"
    RESTARTED = "restarted"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at one moment; ``now`` in seconds. None: not known.

    ``generating`` are the nodes of the model that say that they generate; ``failures`` says of the others what the
    container says of them. ``handed_on`` is what the relay has delivered, by node.
    """

    now: float
    height: int
    stored: int | None = None
    committed: int | None = None
    has_weights: bool | None = None
    votes: Votes | None = None
    generating: frozenset[str] = frozenset()
    failures: Mapping[str, str] = {}
    restarts: int = 0
    handed_on: Mapping[str, int] | None = None


class StageWatch:
    """One stage and model; ``record`` is what is kept of it, and may be from before a restart of dapi.

    ``first_restarts`` is how often the api container had been started anew when the watching began.
    """

    def __init__(self, record: WatchedStage, first_restarts: int) -> None:
        self.record = record
        self._first_restarts = first_restarts - self.record.restarts
        self._seen: Seen | None = None
        self._grown_at: float | None = None
        self._first_stored_at: float | None = None
        self._generated: set[str] = set()
        # What was stored when: for as long as a commit may take, and over a minute.
        self._history: deque[tuple[float, int]] = deque()
        self._minute: deque[tuple[float, int]] = deque()
        self._growths: deque[float] = deque(maxlen=_MAX_GROWTHS)

    def move(self, stage: StageWindow) -> None:
        """Take over where the stage ends: a challenge's end may move."""
        self.record.end = stage.end
        self.record.validation_start, self.record.validation_end = stage.validation_start, stage.validation_end

    def see(self, seen: Seen) -> None:
        """Take what is seen now."""
        before, self._seen, record = self._seen, seen, self.record
        if self._grown_at is None:
            self._grown_at = seen.now
        if seen.stored is not None and (before is None or seen.stored != before.stored):
            self._grown_at = seen.now
        if seen.stored and self._first_stored_at is None:
            self._first_stored_at = seen.now
        self._generated |= seen.generating
        record.restarts = seen.restarts - self._first_restarts
        for name in ("stored", "committed", "has_weights"):
            if (value := getattr(seen, name)) is not None:
                setattr(record, name, value)
        if seen.votes is not None:
            record.participants, record.votes = seen.votes
        if seen.handed_on is not None:
            record.handed_on = dict(seen.handed_on)
        if seen.stored is not None:
            self._see_stored(seen, seen.stored)
        while len(self._history) > 1 and self._history[1][0] <= seen.now - _LAG_SECONDS:
            self._history.popleft()

    def _see_stored(self, seen: Seen, stored: int) -> None:
        record = self.record
        if seen.height <= record.start + (record.end - record.start) // 3:
            record.stored_at_a_third = stored
        if seen.height > record.end:
            return
        record.stored_at_the_end = stored
        self._history.append((seen.now, stored))
        self._minute.append((seen.now, stored))
        while len(self._minute) > 1 and self._minute[1][0] <= seen.now - _GROWTH_SECONDS:
            self._minute.popleft()
        if seen.now - self._minute[0][0] >= _GROWTH_SECONDS and (growth := self.growth_per_second) is not None:
            self._growths.append(growth)

    @property
    def growth_per_second(self) -> float | None:
        """How many artifacts a second were stored over the last minute, None while less than two looks are known."""
        if len(self._minute) < 2 or self._minute[-1][0] <= self._minute[0][0]:
            return None
        (began, before), (ended, after) = self._minute[0], self._minute[-1]
        return max(0.0, (after - before) / (ended - began))

    def troubles(self) -> dict[Trouble, str]:
        """Say what is wrong now."""
        seen, record = self._seen, self.record
        if seen is None:
            return {}
        is_generating = seen.height <= record.end
        found = {**self._of_nodes(seen), **self._of_commits(seen)} if is_generating else self._after_the_end(seen)
        if record.restarts > 0:
            found[Trouble.RESTARTED] = (
                f"the api container was started anew {record.restarts} times in stage {record.height}: what it had in "
                "memory is lost, unless the relay sends it again"
            )
        return found

    @property
    def _where(self) -> str:
        kind = "" if self.record.kind is StageKind.REGULAR else f" ({self.record.kind})"
        return f"stage {self.record.height}{kind}, {self.record.model}"

    def _of_nodes(self, seen: Seen) -> dict[Trouble, str]:
        found: dict[Trouble, str] = {}
        silent = seen.now - (self._grown_at if self._grown_at is not None else seen.now)
        if seen.generating and silent >= _SILENT_SECONDS:
            found[Trouble.SILENT] = (
                f"{self._where}: no artifact was stored for {silent:.0f} s while {len(seen.generating)} nodes generate"
            )
        elif (text := self._slower(seen)) is not None:
            found[Trouble.SLOWER] = text
        if stopped := sorted(self._generated - seen.generating):
            reasons = "; ".join(sorted({seen.failures[name] for name in stopped if seen.failures.get(name)}))
            found[Trouble.STOPPED] = (
                f"{self._where}: {', '.join(stopped[:5])} ({len(stopped)} in all) generated in this stage and does not "
                f"any more, {self.record.end - seen.height} blocks left" + (f": {reasons}" if reasons else "")
            )
        return found

    def _slower(self, seen: Seen) -> str | None:
        """Say that the growth has fallen by so much that one of the nodes may deliver nothing any more."""
        nodes, now = len(seen.generating), self.growth_per_second
        if not 1 < nodes <= _MOST_NODES or len(self._growths) < _ENOUGH_GROWTHS or now is None:
            return None
        usual = statistics.median(self._growths)
        if now >= usual * (1 - _SHARE_OF_A_NODE / nodes):
            return None
        return (
            f"{self._where}: {now:.0f} artifacts a second are stored, and {usual:.0f} were usual: one of the {nodes} "
            "nodes may deliver nothing any more"
        )

    def _of_commits(self, seen: Seen) -> dict[Trouble, str]:
        found: dict[Trouble, str] = {}
        if seen.committed is None or not seen.stored or self.record.kind is StageKind.CHALLENGE:
            return found
        left = self.record.end - seen.height
        due_at = self._first_stored_at
        if not seen.committed and due_at is not None and seen.now - due_at >= _UNCOMMITTED_SECONDS:
            found[Trouble.NOTHING_COMMITTED] = (
                f"{self._where}: nothing was committed although {seen.stored} are stored, {left} blocks left: the fee "
                "grant of the cold account for the warm key may be missing, a model may not be in governance, or the "
                "commits are refused"
            )
        elif left <= _BLOCKS_LEFT and seen.committed < self._history[0][1] <= seen.stored and self._is_old(seen):
            found[Trouble.NOT_COMMITTED] = (
                f"{self._where}: stored {seen.stored}, committed {seen.committed}, {left} blocks left"
            )
        return found

    def _is_old(self, seen: Seen) -> bool:
        return self._history[0][0] <= seen.now - _LAG_SECONDS

    def _after_the_end(self, seen: Seen) -> dict[Trouble, str]:
        found: dict[Trouble, str] = {}
        record, stored = self.record, self.record.stored_at_the_end
        if record.kind is StageKind.CHALLENGE:
            return found
        if seen.committed is not None and stored is not None and seen.committed < stored:
            found[Trouble.TAIL] = (
                f"{self._where}: the last flush before the end was not committed: {seen.committed} of {stored}"
            )
        left = record.validation_end - seen.height
        if left <= 0 or seen.height < record.validation_start:
            return found
        if seen.has_weights is False and seen.committed:
            found[Trouble.WEIGHTS] = f"{self._where}: the weight distribution is missing, {left} blocks left"
        # Votes wait for half a minute in the container.
        is_half_over = 2 * left <= record.validation_end - record.validation_start
        if is_half_over and record.votes == 0 and record.participants:
            found[Trouble.VOTES] = (
                f"{self._where}: no vote of ours is on the chain, {record.participants} participants have committed, "
                f"{left} blocks left"
            )
        return found

    def status(self) -> dict[str, Any]:
        """Return what is known of it, as JSON data."""
        growth = self.growth_per_second
        return {**self.record.shown(), "growth_per_second": None if growth is None else round(growth, 1)}
