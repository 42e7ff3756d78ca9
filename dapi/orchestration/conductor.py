"""Gives each node the duty that the chain's phase asks for.

Level-triggered: each block makes a turn, which asks 'which stage is it, and what has been done for it', and does what
is missing. A missed block, a failed query or a restart delays a step, and never skips it. While the network runs PoC v2
nothing is done at all: see ``dapi.phases.poc_version``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from dapi.broker.broker import Broker
from dapi.broker.duties import Intention
from dapi.broker.reconciler import Reconciler
from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainError, NotReadyError, StoreError
from dapi.messages import Kind
from dapi.messages.content_id import run_id
from dapi.orchestration.model_arguments import ArgumentsFollowing
from dapi.orchestration.seed import Seeds
from dapi.orchestration.stage_work import QUIET_SECONDS, StageWork, begin_work
from dapi.orchestration.stages import StageBook
from dapi.orchestration.validation import StageValidation
from dapi.outbox.comparison import Comparison
from dapi.phases.duty import Duty
from dapi.phases.epoch_queries import epoch_info
from dapi.phases.phases import EpochInfo, PocStage, Situation
from dapi.phases.poc_version import PocVersion
from dapi.submission.chain_identity import ChainIdentity
from dapi.submission.deadlines import Deadlines, LateMessages
from dapi.timing.loop import LoopService, Wake
from dapi.timing.retry import RetryDelay, retry
from dapi.timing.timer import Timer

_LOOK_AGAIN_SECONDS = 30.0


class StageStanding(msgspec.Struct, frozen=True):
    """What was urgent at a turn, in the stage that starts at ``height`` (None: none is under way) and in earlier ones.

    ``late`` messages may miss the end of their window. ``seed_problem`` says why the seed is not stored,
    ``preserved_problem`` why it is not known which nodes stay in inference, so that all take part. The chain drops the
    batches of ``nodes_in_vain`` (see StageWork). ``open_kinds`` are the kinds of messages whose window has not ended.
    """

    height: int | None = None
    late: list[LateMessages] = []
    seed_problem: str | None = None
    preserved_problem: str | None = None
    nodes_in_vain: list[str] = []
    open_kinds: list[Kind] = []


class Conductor(LoopService):
    """Follows the chain's phases with all enabled nodes, for as long as it runs.

    ``public_key`` is the participant's, in hex. ``make_validation`` makes the validation of a stage: it gets a sample
    size, and a function that takes the id of a node that has to be restarted. ``situation`` is where the chain was at
    the last turn (None before the first), ``standing`` what was urgent then, and ``validation`` is that of the stage
    that is under way (None before it begins). ``comparison`` has what batches and verdicts are compared with,
    and ``arguments`` learn with what nodes are to begin to serve.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        rpc: ChainRpc,
        watcher: BlockWatcher,
        identity: ChainIdentity,
        broker: Broker,
        reconciler: Reconciler,
        stages: StageBook,
        seeds: Seeds,
        deadlines: Deadlines,
        comparison: Comparison,
        arguments: ArgumentsFollowing,
        *,
        poc_version: PocVersion,
        public_key: str,
        make_validation: Callable[[StageWork, int, Callable[[str], object]], StageValidation],
        random: Random,
    ) -> None:
        super().__init__(reactor)
        self.situation: Situation | None = None
        self.standing = StageStanding()
        self.validation: StageValidation | None = None
        self._validated: Deferred[None] = succeed(None)
        self._rpc = rpc
        self._watcher = watcher
        self._identity = identity
        self._broker = broker
        self._reconciler = reconciler
        self._stages = stages
        self._seeds = seeds
        self._deadlines = deadlines
        self._poc_version = poc_version
        self.comparison = comparison
        self._arguments = arguments
        self._public_key = public_key
        self._make_validation = make_validation
        self._retry_delay = RetryDelay(random)
        self._wake = Wake(reactor)
        # The pause after a delivery may be all that a switch waits for.
        self._pause = Timer(reactor, QUIET_SECONDS, self._switch_early)
        self._work: StageWork | None = None
        self._problem: str | None = None
        watcher.observe(self._wake.ring)
        poc_version.observe(self._wake.ring)

    @property
    def blocks_left(self) -> int | None:
        """How many blocks are left for what is unfinished; see Deadlines."""
        return self._deadlines.blocks_left

    @property
    def problem(self) -> str | None:
        """What keeps the phases from being followed now, so that ``situation`` is that of an earlier turn."""
        # The chain's own problem goes first: while it lasts, nobody finds out whether the other one is over.
        return self.loop_problem or self._watcher.problem or self._problem

    @property
    def is_moved(self) -> bool:
        """Whether the network runs PoC v2, and nothing else is wrong: so nothing is done for any node."""
        reason = self._poc_version.moved_reason
        return reason is not None and self.problem == reason

    def stopService(self) -> Deferred[None]:
        """Stop following; the nodes go on with what they do. Fires when nothing is left of it."""
        self._leave_stage()
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, loop_ended: Deferred[None]) -> None:
        await loop_ended
        await self._validated

    def verdict_stored(self, public_key: str, height: int) -> None:
        """Hear of a verdict that was stored: a participant's key in hex, and the stage's height."""
        if self.validation is not None:
            self.validation.record_verdict(public_key, height)

    def batch_stored(self) -> None:
        """Hear that a batch was stored: it may be the last one that its node had to deliver before it validates."""
        if self._switch_early():
            self._pause.start()

    def _switch_early(self) -> bool:
        """Have the nodes validate that have delivered all their batches; return whether it is the time for that."""
        work, situation = self._work, self.situation
        if work is None or situation is None or not work.record.stage.is_time_to_switch(situation.height):
            return False
        self._intend(work, situation.height)
        return True

    def _intend(self, work: StageWork, height: int) -> None:
        self._reconciler.intend(work.intentions(self._broker.workers(), height, self._reactor.seconds()))

    async def loop(self) -> None:
        """Make a turn at each block, and every 30 seconds without one; a failed one is made again after 3 to 5 s."""
        until_it_works = partial(
            retry,
            self._reactor,
            errors=(ChainError, NotReadyError, StoreError),
            delay=self._retry_delay,
            on_error=self._turn_failed,
        )
        await until_it_works(self._enter_chain)
        await until_it_works(self._take_turns)

    def _turn_failed(self, error: Exception) -> None:
        # A stop in the middle of a turn may end as the failure of one of its steps.
        if not self.running:
            raise error
        if str(error) != self._problem:
            self.log.warn("the nodes are left as they are for now: {problem}", problem=str(error))
        self._problem = str(error)

    async def _enter_chain(self) -> None:
        """Wait for the chain, and remember its stages; if it is another one than before, none is left."""
        while (head := self._watcher.head) is None or self._watcher.problem is not None:
            await self._wake.wait(_LOOK_AGAIN_SECONDS)
        await self._identity.enter(head)
        self._deadlines.remember(record.stage for record in await self._stages.latest())

    async def _take_turns(self) -> None:
        while self.running:
            await self._turn()
            if self.running:
                await self._wake.wait(_LOOK_AGAIN_SECONDS)

    async def _turn(self) -> None:
        head = self._watcher.head
        if head is None or self._watcher.problem is not None:
            # A chain that stands still, or a node of it that lags behind, says nothing about what to do.
            return
        await self._identity.enter(head)
        info = await epoch_info(self._rpc, head.height)
        self._poc_version.learn(info)
        if not self._poc_version.is_v1:
            self._leave_nodes_alone(info)
            return
        stage = info.stage_under_way()
        if self._work is not None and (stage is None or stage.height != self._work.record.stage.height):
            self._leave_stage()
        await self._arguments.learn(info)
        if stage is None:
            self._reconciler.intend({node.id: Intention(Duty.INFERENCE) for node in self._broker.nodes()})
        seed_problem = await self._do_stage(stage, info) if stage is not None else None
        # Without waiting for anything before: a batch that is stored from here on is judged by it.
        self.situation = info.situation()
        if self._work is not None:
            self._validate(self._work, info)
        self._deadlines.remember(info.stages())
        late = await self._deadlines.check(info.block_height)
        kept = await self.comparison.look(info.block_height)
        if any(each.height is None for each in kept) and await self._deadlines.end_without_stage(info.block_height):
            await self.comparison.look(info.block_height)
        work = self._work
        self.standing = StageStanding(
            height=stage.height if stage is not None else None,
            late=late,
            seed_problem=seed_problem,
            preserved_problem=work.preserved_problem if work is not None else None,
            nodes_in_vain=work.nodes_in_vain(self._broker.nodes()) if work is not None else [],
            open_kinds=_open_kinds(stage, info.block_height) if stage is not None else [],
        )
        self._problem = None

    def _leave_nodes_alone(self, info: EpochInfo) -> None:
        """Do nothing in a network with PoC v2: each command would stop what the network's own software has nodes do."""
        self._leave_stage()
        self._reconciler.intend({})
        self.situation = info.situation()
        self.standing = StageStanding()
        self._problem = self._poc_version.moved_reason

    async def _do_stage(self, stage: PocStage, info: EpochInfo) -> str | None:
        """Give the nodes their duties in the stage that is under way; return why its seed is not stored, or None."""
        record = await self._stages.begin(stage, self._broker.node_count)
        await self._broker.begin_stage(stage.height, record.node_count)
        if self._work is None:
            self.comparison.expect(stage.height)
        seed_problem = await self._seeds.store(stage)
        if self._work is None:
            work = await begin_work(self._rpc, record, info, self._public_key)
            if work is not None:
                run = run_id(work.block_hash, self._public_key)
                await self._stages.record_run(stage.height, run, work.block_hash)
            self._work = work
        if self._work is not None:
            self._work.record = record
            await self._work.learn_preserved(self._rpc, info.block_height)
            for worker in self._reconciler.workers_at(Duty.STOPPED):
                self._work.record_stop(worker.node.id)
            self._intend(self._work, info.block_height)
        return seed_problem

    def _validate(self, work: StageWork, info: EpochInfo) -> None:
        """Begin the validation of a stage in its time, unless it has begun or nothing is left to do."""
        stage = work.record.stage
        is_time = stage.validation_start <= info.block_height <= stage.validations.last
        if is_time and self.validation is None and not work.record.is_handed_out:
            self.validation = self._make_validation(work, info.sample_size, self._restart_node)
            self._validated = self.validation.start().addErrback(
                lambda failure: self.log.failure("the validation of stage {height} ended", failure, height=stage.height)
            )

    def _restart_node(self, node_id: str) -> None:
        if self._work is not None:
            self._work.stop_once(node_id)
            self._wake.ring()

    def _leave_stage(self) -> None:
        self._work = None
        self._pause.cancel()
        if self.validation is not None:
            self.validation.stop()
            self.validation = None


def _open_kinds(stage: PocStage, height: int) -> list[Kind]:
    return [kind for kind in (Kind.GENERATED, Kind.VALIDATED, Kind.SEED) if stage.window(kind).last > height]
