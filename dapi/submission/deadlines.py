"""Expires the messages whose window has ended, and tells of those whose window ends soon."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from twisted.internet.defer import Deferred

from dapi.messages import Kind, State
from dapi.phases.phases import PocStage
from dapi.submission.submissions import Submissions

_FEW_BLOCKS = 3
# What came later is likely to be in a block in time.
_SECONDS_TO_BE_CONFIRMED = 15.0
# The windows of older stages ended long ago, and nothing of them is left to expire.
_MAX_STAGES = 50


class LateMessages(msgspec.Struct, frozen=True):
    """Messages of a stage and kind that are unfinished for longer than usual, ``blocks_left`` before the window ends.

    Of a seed that is late at any time: without it the stage counts nothing.
    """

    stage_height: int
    kind: Kind
    blocks_left: int


class Deadlines:
    """Compares the unfinished messages with the windows of their stages.

    Only stored messages expire: one that is in a transaction may be on the chain, so the Submitter decides. A stage
    that the chain has never told of has no deadline here: the chain answers its messages.

    ``blocks_left`` is how many blocks the next window has left in which something is unfinished, as of the last check;
    None: nothing is, but for what has been in a transaction for a few seconds.
    """

    def __init__(self, submissions: Submissions) -> None:
        self._submissions = submissions
        self._stages: dict[int, PocStage] = {}
        self.blocks_left: int | None = None

    def remember(self, stages: Iterable[PocStage]) -> None:
        """Learn stages and their windows; of those that are known, the latest 50 are kept."""
        self._stages.update((stage.height, stage) for stage in stages)
        for height in sorted(self._stages)[:-_MAX_STAGES]:
            del self._stages[height]

    def end_without_stage(self, height: int) -> Deferred[int]:
        """Expire what no stage is for, nor can be, at the block ``height``; fires with the number of messages.

        To be called once the stage that is under way is in the database. Fails with StoreError.
        """
        return self._submissions.end_without_stage(height, self._stages.keys())

    def check(self, height: int) -> Deferred[list[LateMessages]]:
        """Expire messages whose window has ended at the block ``height``.

        Fires with each stage and kind of which messages are late while at most 3 blocks are left, and with each seed
        that is late. Fails with StoreError.
        """
        return Deferred.fromCoroutine(self._check(height))

    async def _check(self, height: int) -> list[LateMessages]:
        late = []
        blocks_left: int | None = None
        for stage_height, kind, state in await self._submissions.stages_unfinished(_SECONDS_TO_BE_CONFIRMED):
            stage = self._stages.get(stage_height)
            if stage is None:
                continue
            last = stage.window(kind).last
            left = last - height
            if left > 0 or state is not State.STORED:
                blocks_left = max(0, left) if blocks_left is None else min(max(0, left), blocks_left)
            if left <= 0:
                if state is State.STORED:
                    await self._submissions.expire(stage_height, kind, f"its window ended with block {last}")
            elif left <= _FEW_BLOCKS or kind is Kind.SEED:
                is_late = state is not State.STORED or await self._submissions.has_waited(
                    stage_height, kind, _SECONDS_TO_BE_CONFIRMED
                )
                if is_late:
                    late.append(LateMessages(stage_height, kind, left))
        self.blocks_left = blocks_left
        return late
