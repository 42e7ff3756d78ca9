"""Compares what comes with what dapi works on, and bounds what a node may keep here that is for nothing.

What is not of its stage is kept, and not sent: a batch of no stage that the chain has told of, of another run than its
stage or with nonces of other nodes, and a verdict that the node was not asked for. Whether a batch is of its stage may
turn out later, so the statement that chooses what is sent compares it
(``queries.NEXT_GROUP``). Here it is only counted.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import attrs
import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from dapi.database import Database, transaction
from dapi.errors import QuotaError
from dapi.messages import Kind
from dapi.messages.sizes import MIB
from dapi.outbox import queries
from dapi.outbox.outbox import OutboxEntry

_STAGES_HANDED_OUT = 2
_DAY_SECONDS = 86_400.0
# So many times what may be kept may come in a day.
_TIMES_A_DAY = 4


class NotOfTheirStage(msgspec.Struct, frozen=True, order=True):
    """Messages of one node and kind that are kept and not sent, with their bytes.

    ``height`` is the start of their stage, None: no stage that is known. ``node_id`` is None where no node is known.
    With ``has_others_nonces`` that is because other nodes would generate what is in them, whatever their stage.
    """

    height: int | None
    node_id: str | None
    kind: Kind
    messages: int
    bytes: int
    has_others_nonces: bool = False


class _Stage(NamedTuple):
    """A stage as the database has it: its run, and the last block of each kind's window; None: not known yet."""

    run: str | None
    last_batches: int | None
    last_verdicts: int | None

    def last(self, kind: Kind) -> int | None:
        return {Kind.GENERATED: self.last_batches, Kind.VALIDATED: self.last_verdicts}.get(kind)


_NEW_STAGE = _Stage(None, None, None)


class _Found(NamedTuple):
    stages: dict[int, _Stage]
    not_of_their_stage: list[NotOfTheirStage]


@attrs.define
class _Kept:
    messages: int = 0
    bytes: int = 0

    def add(self, messages: int, size: int) -> None:
        self.messages += messages
        self.bytes += size

    def has_room(self, size: int, max_messages: int, max_bytes: int) -> bool:
        return self.messages < max_messages and self.bytes + size <= max_bytes


class Comparison:
    """Knows the stages, and who was handed out to which node, as the database has them.

    Each node may have ``max_messages``, of ``max_bytes`` together, kept and not sent; that is more than a node makes in
    a stage. Of what is for nothing it may bring four times that in a day, including what comes when the window of its
    stage has ended: what expires gives its place back, and the disk is to last all the same. The bounds hold
    from the first ``look`` on, which comes after the chain has told of its stages: until then any height may be that of
    a stage that has begun while dapi was away, and the batch a real one. After that a real batch is never counted,
    however many others are: dapi has its nodes begin a stage only when it knows that stage.

    Nothing is asked of the database when a message comes: ``look`` counts at each block, and what comes in between is
    added.
    """

    def __init__(
        self, clock: IReactorTime, database: Database, *, max_messages: int = 1000, max_bytes: int = 64 * MIB
    ) -> None:
        self._clock = clock
        self._database = database
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # By their heights, None before the first look.
        self._stages: dict[int, _Stage] | None = None
        self._height = 0
        self._kept: defaultdict[str | None, _Kept] = defaultdict(_Kept)
        # What has come since the latest look began.
        self._new: defaultdict[str | None, _Kept] = defaultdict(_Kept)
        # What has come in the day that began then; the clock's times are not those of the calendar.
        self._of_day: defaultdict[str | None, _Kept] = defaultdict(_Kept)
        self._day_began = clock.seconds()
        self._not_of_their_stage: list[NotOfTheirStage] = []
        # By stage and address the ids of the nodes.
        self._handed_out: dict[int, dict[str, set[str]]] = {}
        self._is_loaded = False
        self._refused = 0
        self._not_asked_for = 0

    def status(self) -> dict[str, Any]:
        """Return what is ``kept`` and not sent, and how many messages were ``refused`` because that was too much.

        ``not_asked_for`` counts the verdicts that came and were not asked for.
        """
        return {"kept": self._not_of_their_stage, "refused": self._refused, "not_asked_for": self._not_asked_for}

    # The bound of what is for nothing.

    def expect(self, height: int) -> None:
        """Hear that the stage ``height`` is in the database, and begins."""
        if self._stages is not None:
            self._stages[height] = _NEW_STAGE

    def look(self, height: int = 0) -> Deferred[list[NotOfTheirStage]]:
        """Count what is kept and not sent; fires with that, fails with StoreError.

        ``height`` is the latest block's: a window that has ended by then is over.
        """
        self._height = height
        new: defaultdict[str | None, _Kept] = defaultdict(_Kept)
        self._new = new
        return self._database.read(_look).addCallback(self._looked, new)

    def _looked(self, found: _Found, new: defaultdict[str | None, _Kept]) -> list[NotOfTheirStage]:
        self._stages, self._not_of_their_stage = found
        self._kept = defaultdict(_Kept)
        for each in self._not_of_their_stage:
            self._kept[each.node_id].add(each.messages, each.bytes)
        for node_id, kept in new.items():
            self._kept[node_id].add(kept.messages, kept.bytes)
        return self._not_of_their_stage

    def admit(self, entry: OutboxEntry) -> None:
        """Count an entry that is to be put into the outbox, if it is for nothing; raises QuotaError at too many."""
        if self._stages is None or self._may_be_sent(entry, self._stages):
            return
        now = self._clock.seconds()
        if now - self._day_began >= _DAY_SECONDS:
            self._day_began = now
            self._of_day.clear()
        size, whose = len(entry.message), entry.node_id
        counted = (("are kept", self._kept[whose], 1), ("came within a day", self._of_day[whose], _TIMES_A_DAY))
        for what, kept, times in counted:
            if not kept.has_room(size, times * self._max_messages, times * self._max_bytes):
                self._refused += 1
                raise QuotaError(
                    f"{kept.messages} messages ({kept.bytes} bytes) of {whose or 'HTTP callbacks'} {what} that no PoC "
                    "stage of this host is for, or that were too late, and no more are taken: see that the node was "
                    f"given the block height (in this message {entry.height}), the block hash and the public key of a "
                    "stage whose window is open"
                )
        for each in (self._kept[whose], self._of_day[whose], self._new[whose]):
            each.add(1, size)

    def _may_be_sent(self, entry: OutboxEntry, stages: dict[int, _Stage]) -> bool:
        stage = stages.get(entry.height)
        if stage is None or entry.run in (queries.NOT_HANDED_OUT, queries.OTHERS_NONCES):
            return False
        last = stage.last(entry.kind)
        if last is not None and self._height >= last:
            return False
        return entry.run == queries.ANY_RUN or stage.run in (entry.run, None)

    # What was handed out.

    def hand_out(self, height: int, pairs: Sequence[tuple[str, str]]) -> Deferred[None]:
        """Record that participants are given to nodes to validate in the stage ``height``, before they are given.

        ``pairs`` are each a participant's address and a node's id. Fires when that is on disk; fails with StoreError.
        """
        return Deferred.fromCoroutine(self._hand_out(height, pairs))

    async def _hand_out(self, height: int, pairs: Sequence[tuple[str, str]]) -> None:
        await self.load()
        await self._database.write(partial(_hand_out, height, pairs))
        self._add_handed_out([(height, *pair) for pair in pairs])

    def load(self) -> Deferred[None]:
        """Read what was handed out before dapi was started, unless that is done; fails with StoreError."""
        return succeed(None) if self._is_loaded else self._database.read(_handed_out).addCallback(self._loaded)

    def _loaded(self, handed_out: Sequence[tuple[int, str, str]]) -> None:
        self._is_loaded = True
        self._add_handed_out(handed_out)

    def _add_handed_out(self, handed_out: Sequence[tuple[int, str, str]]) -> None:
        stages = self._handed_out
        for height, address, node_id in handed_out:
            stages.setdefault(height, {}).setdefault(address, set()).add(node_id)
        # As in the database: the verdicts on a stage come before the next one is handed out.
        for height in sorted(stages)[:-_STAGES_HANDED_OUT]:
            del stages[height]

    def is_asked_for(self, height: int, address: str, node_id: str | None) -> Deferred[bool]:
        """Fire with whether a participant was handed out to a node, None: to any, and count a verdict that was not.

        Fails with StoreError.
        """
        return self.load().addCallback(lambda _: self._is_asked_for(height, address, node_id))

    def _is_asked_for(self, height: int, address: str, node_id: str | None) -> bool:
        nodes = self._handed_out.get(height, {}).get(address, set())
        is_asked_for = bool(nodes) if node_id is None else node_id in nodes
        self._not_asked_for += not is_asked_for
        return is_asked_for


# The reader's and the writer's threads.


def _look(connection: sqlite3.Connection) -> _Found:
    stages = {height: _Stage(*rest) for height, *rest in connection.execute(queries.STAGE_RUNS).fetchall()}
    kept = [
        NotOfTheirStage(height, node_id, Kind(kind), messages, size, bool(has_others_nonces))
        for height, node_id, kind, messages, size, has_others_nonces in connection.execute(queries.NOT_OF_THEIR_STAGE)
    ]
    return _Found(stages, kept)


def _hand_out(height: int, pairs: Sequence[tuple[str, str]], connection: sqlite3.Connection) -> None:
    with transaction(connection):
        connection.execute(queries.HAND_OUT, {"height": height, "pairs": msgspec.json.encode(pairs).decode()})
        connection.execute(queries.FORGET_HANDED_OUT, {"height": height})


def _handed_out(connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
    (found,) = connection.execute(queries.HANDED_OUT).fetchone()
    return msgspec.json.decode(found, type=list[tuple[int, str, str]])
