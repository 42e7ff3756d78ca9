"""Has the nodes do what the chain's phase wants.

Level-triggered: at each block it asks 'which stage is it, and what has been done for it', and does what is missing. A
missed block, a failed query or a restart delays a step, and never skips it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dapi.broker.broker import Broker
from dapi.broker.duties import Intention
from dapi.broker.reconciler import Reconciler
from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.keyring import SigningKey
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainError, NotReadyError, StoreBusyError, StoreError
from dapi.orchestration.seed import seed_entry
from dapi.orchestration.stage_work import QUIET_SECONDS, StageWork
from dapi.orchestration.stages import StageBook
from dapi.outbox.ledger import by_node
from dapi.outbox.outbox import Outbox
from dapi.phases.duty import Duty
from dapi.phases.epoch_queries import epoch_info
from dapi.phases.phases import EpochInfo, Phase, PocStage, Window
from dapi.phases.stage_queries import PreservedNodes, preserved_nodes
from dapi.submission.deadlines import Deadlines
from dapi.timing.loop import LoopService, Wake
from dapi.timing.timer import Timer

_RETRY_MIN_SECONDS, _RETRY_MAX_SECONDS = 3.0, 5.0
_LOOK_AGAIN_SECONDS = 30.0
# What a restart of dapi and a failed command or two may take.
_BLOCKS_FOR_A_RESTART = 10


class Validation(Protocol):
    """The validation of one stage: hands its batches to the nodes, and follows their answers."""

    def start(self) -> Deferred[None]:
        """Begin; fires when all is answered, or when the window is over."""

    def stop(self) -> None:
        """Do nothing more; ``start``'s Deferred fires."""

    def answered(self, public_key: str, height: int) -> None:
        """Hear of a verdict on a participant (its key in hex) in a stage; any stage's may be told, and told twice."""

    def status(self) -> dict[str, Any]:
        """Tell how far it is."""


class Situation(msgspec.Struct, frozen=True):
    """Where the chain is, as of the last turn. ``blocks_left`` is counted to the end of the window that is open now.

    ``stage_height`` is what the stage's messages carry, None in the inference phase; then ``blocks_left`` is counted to
    the next PoC.
    """

    height: int
    epoch_index: int
    phase: Phase
    stage_height: int | None
    is_confirmation: bool
    blocks_left: int


class Conductor(LoopService):
    """Follows the chain's phases with all enabled nodes, for as long as it runs.

    ``public_key`` is the participant's, in hex, and ``address`` its address. ``make_validation`` is given a stage, its
    block hash, the sample size, the addresses of participants on whom there is a verdict already, and a function that
    is to be called with the id of a node that answers nothing.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        rpc: ChainRpc,
        watcher: BlockWatcher,
        broker: Broker,
        reconciler: Reconciler,
        stages: StageBook,
        outbox: Outbox,
        deadlines: Deadlines,
        *,
        key: SigningKey,
        public_key: str,
        address: str,
        make_validation: Callable[[PocStage, str, int, set[str], Callable[[str], None]], Validation],
        random: random.Random,
    ) -> None:
        super().__init__(reactor)
        self._rpc = rpc
        self._watcher = watcher
        self._broker = broker
        self._reconciler = reconciler
        self._stages = stages
        self._outbox = outbox
        self._deadlines = deadlines
        self._key = key
        self._public_key = public_key
        self._address = address
        self._make_validation = make_validation
        self._random = random
        self._wake = Wake(reactor)
        # The pause after a delivery may be all that a switch waits for.
        self._pause = Timer(reactor, QUIET_SECONDS, self._look_at_the_switch)
        self._work: StageWork | None = None
        self._validation: Validation | None = None
        self._validated: Deferred[None] = succeed(None)
        self._seeded: int | None = None
        # Why the seed of the stage that is under way is not kept yet.
        self._unseeded: str | None = None
        self._warnings: dict[object, str] = {}
        self._problem: str | None = None
        self.situation: Situation | None = None
        watcher.observe(self._wake.ring)
        outbox.observe(self._batch_stored)

    def stopService(self) -> Deferred[None]:
        """Stop following; the nodes go on with what they do. Fires when nothing is left of it."""
        self._leave_stage()
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, loop_ended: Deferred[None]) -> None:
        await loop_ended
        await self._validated

    def verdict_came(self, public_key: str, height: int) -> None:
        """Hear of a verdict that was stored: a participant's key in hex, and the stage's height."""
        if self._validation is not None:
            self._validation.answered(public_key, height)

    def _batch_stored(self) -> None:
        if self._look_at_the_switch():
            self._pause.start()

    def _look_at_the_switch(self) -> bool:
        """Switch the nodes that have delivered all, if it is the time between the end of generation and the switch."""
        work, situation = self._work, self.situation
        if work is None or situation is None or not work.record.stage.is_time_to_switch(situation.height):
            return False
        self._intend(work, situation.height)
        return True

    def _intend(self, work: StageWork, height: int) -> None:
        self._reconciler.intend(work.intentions(self._broker.workers(), height, self._reactor.seconds()))

    async def loop(self) -> None:
        """Follow the phases from what the database says was done, until the service stops."""
        has_read = False
        # A stop in the middle of a turn may end as the failure of one of its steps.
        while self.running:
            try:
                if not has_read:
                    self._deadlines.remember(record.stage for record in await self._stages.latest())
                    has_read = True
                await self._turn()
                if self.running:
                    await self._wake.wait(_LOOK_AGAIN_SECONDS)
            except (ChainError, StoreError, NotReadyError) as error:
                self._note(str(error))
                if self.running:
                    await deferLater(self._reactor, self._random.uniform(_RETRY_MIN_SECONDS, _RETRY_MAX_SECONDS))

    async def _turn(self) -> None:
        head = self._watcher.head
        if head is None or self._watcher.problem is not None:
            # A chain that stands still, or a node of it that lags behind, says nothing about what to do.
            return
        info = await epoch_info(self._rpc, head.height)
        stage = info.stage_under_way()
        self._unseeded = None
        if self._work is not None and (stage is None or stage.height != self._work.record.stage.height):
            self._leave_stage()
        if stage is not None:
            await self._do_stage(stage, info, head.height)
        else:
            self._reconciler.intend({node.id: Intention(Duty.INFERENCE) for node in self._broker.nodes()})
        # At once: a batch that is stored in the middle of a turn is judged by it.
        self.situation = _situation(info, stage, head.height)
        if self._work is not None:
            await self._validate(self._work, head.height, info.sample_size)
        self._deadlines.remember(info.stages())
        self._warn(await self._deadlines.check(head.height))
        self._problem = None

    async def _do_stage(self, stage: PocStage, info: EpochInfo, height: int) -> None:
        record = await self._stages.begin(stage, self._broker.node_count)
        if not stage.is_confirmation and self._seeded != stage.epoch_index:
            await self._keep_seed(stage)
        if self._work is None:
            block_hash = await self._block_hash(stage, info)
            if not block_hash:
                # The chain tells a confirmation's seed at the end of the block in which its generation starts.
                return
            # In a regular PoC the latest epoch is the one to come: who serves inference is said by the one before.
            current_epoch = stage.epoch_index if stage.is_confirmation else stage.epoch_index - 1
            preserved = PreservedNodes()
            if current_epoch > 0:
                preserved = await preserved_nodes(self._rpc, current_epoch, self._address)
            self._work = StageWork(record, block_hash, self._public_key, preserved)
            self.log.info(
                "{what} of epoch {epoch} is under way: stage {height}, {preserved} nodes stay in inference",
                what="confirmation PoC" if stage.is_confirmation else "PoC",
                epoch=stage.epoch_index,
                height=stage.height,
                preserved=len(preserved.own),
            )
        self._work.record = record
        self._note_stopped(self._work)
        self._intend(self._work, height)

    async def _keep_seed(self, stage: PocStage) -> None:
        try:
            await self._outbox.put(seed_entry(self._key, stage.epoch_index, stage.height))
        except StoreBusyError as error:
            # A full disk takes nothing new. The nodes need not wait: they keep what they cannot deliver yet.
            self._unseeded = f"the seed of epoch {stage.epoch_index} is not kept yet: {error}"
        else:
            self._seeded = stage.epoch_index

    async def _block_hash(self, stage: PocStage, info: EpochInfo) -> str:
        """Return the text that nodes seed their computation with, to the letter as the chain wrote it."""
        if stage.is_confirmation:
            return info.confirmation.seed_block_hash if info.confirmation is not None else ""
        return (await self._rpc.block(stage.height)).hash

    def _note_stopped(self, work: StageWork) -> None:
        for worker in self._reconciler.workers_at(Duty.STOPPED):
            work.stopped(worker.node.id)

    async def _validate(self, work: StageWork, height: int, sample_size: int) -> None:
        """Begin the validation of a stage in its time, unless it has begun or nothing is left to do."""
        stage = work.record.stage
        is_time = stage.validation_start <= height <= stage.validations.last
        if not is_time or work.record.is_handed_out or self._validation is not None:
            return
        answered = await self._stages.participants_answered(stage.height)
        validation = self._make_validation(stage, work.block_hash, sample_size, answered, self._stop_silent_node)

        def over(_result: None) -> Deferred[None] | None:
            # Stopped before its end it is taken up again, by the next process or when the chain can be asked.
            return self._stages.handed_out(stage.height) if self._validation is validation else None

        self._validation = validation
        self._validated = validation.start().addCallback(over)
        self._validated.addErrback(
            lambda failure: self.log.failure("the validation of stage {height} ended", failure, height=stage.height)
        )

    def _stop_silent_node(self, node_id: str) -> None:
        if self._work is not None:
            self._work.stop_once(node_id)
            self._wake.ring()

    def _leave_stage(self) -> None:
        self._work = None
        self._pause.cancel()
        if self._validation is not None:
            validation, self._validation = self._validation, None
            validation.stop()

    def _warn(self, closing: dict[object, str]) -> None:
        """Log what has become urgent since the last turn; the rest was logged before."""
        warnings = closing | self._reconciler.warnings()
        if self._work is not None:
            warnings |= self._work.warnings(self._broker.nodes())
        if self._unseeded is not None:
            warnings["seed"] = self._unseeded
        for cause in warnings.keys() - self._warnings.keys():
            # Not as 'warning': twisted's older observers take an event with that field for one of Python's warnings.
            self.log.warn("{urgent}", urgent=warnings[cause])
        self._warnings = warnings

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            self.log.warn("the nodes are left as they are for now: {problem}", problem=problem)
        self._problem = problem

    # What it tells.

    @property
    def _obstacle(self) -> str | None:
        """What keeps the phases from being followed now, and makes the situation that of an earlier turn."""
        # What failed last may be over, and is not tried again while the chain has a problem of its own.
        return self.defect or self._watcher.problem or self._problem

    def status(self) -> dict[str, Any]:
        """Tell the phase, what keeps it from being followed, what is urgent, and how far validation is."""
        situation = self.situation
        return {
            "situation": situation,
            "problem": self._obstacle,
            "warnings": list(self._warnings.values()),
            "nodes": self._reconciler.status(),
            "validation": self._validation.status() if self._validation is not None else None,
        }

    def epochs(self, limit: int) -> Deferred[list[dict[str, Any]]]:
        """Fire with the latest stages, the newest first, each with what became of each node's work in it."""
        return Deferred.fromCoroutine(self._epochs(limit))

    async def _epochs(self, limit: int) -> list[dict[str, Any]]:
        return [
            {
                **msgspec.structs.asdict(record.stage),
                "node_count": record.node_count,
                "is_handed_out": record.is_handed_out,
                "nodes": by_node(await self._stages.ledger(record.stage.height)),
            }
            for record in await self._stages.latest(limit)
        ]

    def restart_advice(self) -> dict[str, Any]:
        """Tell whether dapi may be restarted now without harm (``safe``), why not, and for how many blocks it may."""
        situation, problem = self.situation, self._obstacle
        if situation is None or problem is not None:
            reason = "where the chain is, is not known now" + (f": {problem}" if problem is not None else "")
            return {"safe": False, "reason": reason, "blocks_left": None}
        if situation.phase is not Phase.INFERENCE:
            return {"safe": False, "reason": f"the chain is in {situation.phase}", "blocks_left": 0}
        left = situation.blocks_left
        if left < _BLOCKS_FOR_A_RESTART:
            return {"safe": False, "reason": f"PoC starts in {left} blocks", "blocks_left": left}
        return {"safe": True, "reason": None, "blocks_left": left}


def _situation(info: EpochInfo, stage: PocStage | None, height: int) -> Situation:
    if stage is None:
        starts = [stage.start for stage in info.stages() if stage.start > height]
        left = min([*starts, info.next_poc_start()]) - height
        return Situation(height, info.index, Phase.INFERENCE, None, False, max(0, left))
    window: Window = stage.batches if height < stage.batches.last else stage.validations
    left = window.last - height
    return Situation(height, stage.epoch_index, stage.phase(height), stage.height, stage.is_confirmation, left)
