"""The validation of one stage: posts every participant's sample to a node, and follows the verdicts.

Assignments decides who gets what and who is silent, StageValidation does it, and Validations begins it in its time.
Facts: docs/protocol/chain.md, 'Validation', and docs/protocol/node.md, 'What a node loses'. The states of a validation:

    QUERYING ──second query──▶ COMPLETE ──all have a verdict──▶ OVER
       └───────────────────────────┴──stop(), or the window ends──▶ OVER
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.broker.node_worker import NodeWorker
from dapi.broker.reconciler import Reconciler
from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainError, MLNodeError
from dapi.messages.addresses import address_of
from dapi.orchestration.assignments import Assignments, Offer
from dapi.orchestration.samples import Dropped, Samples, Sampling, query_samples
from dapi.orchestration.stage_work import StageWork
from dapi.orchestration.stages import StageBook
from dapi.phases.duty import Duty
from dapi.phases.phases import PocStage
from dapi.timing.loop import Wake
from dapi.timing.retry import RetryDelay, retry

# A node of the chain that lags may have been without the batches of the last block at the first query.
_BLOCKS_TO_THE_SECOND_QUERY = 2


@attrs.frozen
class ValidationSettings:
    """Times of one validation, in seconds.

    After a failed query, and after a round in which no node took a participant, it waits for a random time between the
    two of ``retry_seconds``. It looks at everything every ``look_seconds``. For the others see Assignments.
    """

    retry_seconds: tuple[float, float] = (3.0, 5.0)
    look_seconds: float = 1.0
    silent_seconds: float = 60.0
    absent_seconds: float = 10.0


class ValidationState(enum.Enum):
    """Where a validation is."""

    QUERYING = "more participants may come"
    COMPLETE = "all participants are known"
    OVER = "nothing is posted any more"


@attrs.define(eq=False, kw_only=True)
class StageValidation:
    """Has a stage's participants validated, each by one node, from now until all are answered or the window is over.

    ``query(at_height)`` gives the stage's samples at a height (see ``query_samples``), ``height()`` the latest block's
    height, ``workers()`` those whose nodes validate now. ``on_silent_node`` is called with the id of a node that took
    batches and answers none, so that it is stopped and started anew; until it was seen to be away, it gets nothing
    more.

    Promises: a participant is handed to one node after the other until one takes it, for as long as the window is open,
    and to another one when the node that took it is silent or away; a participant on whom a verdict came is handed to
    nobody any more. Does not promise that no participant is validated twice: a node may answer late.
    """

    log = Logger()

    _reactor: Any
    _stage: PocStage
    _assignments: Assignments
    _query: Callable[[int], Awaitable[Samples]]
    _height: Callable[[], int]
    _workers: Callable[[], Sequence[NodeWorker]]
    _on_silent_node: Callable[[str], object]
    _retry_delay: Callable[[], float]
    _look_seconds: float
    _wake: Wake = attrs.field(init=False, default=attrs.Factory(lambda self: Wake(self._reactor), takes_self=True))
    _state: ValidationState = attrs.field(init=False, default=ValidationState.QUERYING)
    _steps: set[Deferred[None]] = attrs.field(init=False, factory=set)
    _dropped: Dropped = attrs.field(init=False, factory=Dropped)
    _problem: str | None = attrs.field(init=False, default="the batches are not queried yet")

    def start(self) -> Deferred[None]:
        """Begin; fires when all is answered, the window is over or ``stop`` was called, and nothing is left of it."""
        return Deferred.fromCoroutine(self._run())

    def stop(self) -> None:
        """Post nothing more, and let go of all calls; ``start``'s Deferred fires."""
        self._state = ValidationState.OVER
        self._wake.ring()

    def answered(self, public_key: str, height: int) -> None:
        """Record a verdict on a participant (its key in hex) in a stage; any stage's may be told, and told twice."""
        if height == self._stage.height:
            self._assignments.verdict(address_of(public_key), self._reactor.seconds())
            self._wake.ring()

    def status(self) -> dict[str, Any]:
        """Tell how far it is, in participants; see ``Assignments.status``."""
        return {
            "height": self._stage.height,
            "is_over": self._state is ValidationState.OVER,
            "problem": self._problem,
            "dropped": self._dropped,
            **self._assignments.status(),
        }

    async def _run(self) -> None:
        self._begin(self._query_twice())
        try:
            while not self._is_finished():
                self._act()
                await self._wake.wait(self._look_seconds)
        finally:
            self._state = ValidationState.OVER
            for step in self._steps.copy():
                step.cancel()
        while self._steps:
            await next(iter(self._steps))
        self.log.info(
            "validation of stage {height} is over: {done[answered]} of {done[participants]} participants answered",
            height=self._stage.height,
            done=self._assignments.status(),
        )

    def _is_finished(self) -> bool:
        # What comes at the last height of the window can be in no block of it any more.
        if self._state is ValidationState.OVER or self._height() >= self._stage.validations.last:
            return True
        return self._state is ValidationState.COMPLETE and self._assignments.unanswered == 0

    def _act(self) -> None:
        """Do what is decided for the nodes that validate now."""
        workers = {worker.node.id: worker for worker in self._workers()}
        decisions = self._assignments.decide(workers.keys(), self._reactor.seconds())
        for warning in decisions.warnings:
            self.log.warn("{lost}", lost=warning)
        for node_id in decisions.examine:
            self._begin(self._examine(workers[node_id]))
        for offer in decisions.offers:
            self._begin(self._post(offer, workers[offer.node_id]))

    async def _query_twice(self) -> None:
        await self._reach(self._stage.batches.last)
        await self._reach(await self._query_samples() + _BLOCKS_TO_THE_SECOND_QUERY)
        await self._query_samples()
        self._state = ValidationState.COMPLETE
        self._wake.ring()

    async def _reach(self, height: int) -> None:
        """Wait until the chain has come to a height."""
        while self._height() < height:
            await deferLater(self._reactor, self._look_seconds)

    async def _query_samples(self) -> int:
        """Take in what the chain has, as soon as it can be had; return the height that it was asked at."""

        async def query() -> tuple[Samples, int]:
            at_height = self._height()
            return await self._query(at_height), at_height

        samples, at_height = await retry(
            self._reactor, query, errors=ChainError, delay=self._retry_delay, on_error=self._query_failed
        )
        self._problem = None
        self._dropped = samples.dropped
        self._assignments.add(samples.batches)
        self.log.info(
            "stage {height}: {known[participants]} participants to validate; dropped: {dropped}",
            height=self._stage.height,
            known=self._assignments.status(),
            dropped=samples.dropped,
        )
        self._wake.ring()
        return at_height

    def _query_failed(self, error: Exception) -> None:
        if self._state is ValidationState.OVER:
            # A cancelled call may fail with any error.
            raise CancelledError from error
        if str(error) != self._problem:
            text = "the batches of stage {height} cannot be had now, trying again: {problem}"
            self.log.warn(text, height=self._stage.height, problem=str(error))
        self._problem = str(error)

    async def _post(self, offer: Offer, worker: NodeWorker) -> None:
        """Post one participant's batch to a node."""
        try:
            await worker.ml_client.validate(offer.batch)
        except (MLNodeError, CancelledError) as error:
            # A call is also cancelled when its worker is stopped.
            self._assignments.refused(offer)
            if self._state is not ValidationState.OVER:
                self.log.warn("{node_id}: took no batch to validate: {error}", node_id=offer.node_id, error=str(error))
        else:
            self._assignments.accepted(offer, self._reactor.seconds())
        self._wake.ring()

    async def _examine(self, worker: NodeWorker) -> None:
        """Report a node as silent, unless it cannot answer yet because its model is still loading."""
        # Should asking break, it asks again after as long a silence.
        is_loading = True
        try:
            is_loading = (await worker.ml_client.pow_status()).is_model_initialized is False
        except (MLNodeError, CancelledError):
            is_loading = False
        finally:
            warning = self._assignments.examined(worker.node.id, self._reactor.seconds(), is_loading=is_loading)
        if warning is not None and self._state is not ValidationState.OVER:
            self.log.warn("{lost}", lost=warning)
            self._on_silent_node(worker.node.id)
            self._wake.ring()

    def _begin(self, step: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do something in the background, to the end of the validation at the latest."""
        done = Deferred.fromCoroutine(step)
        self._steps.add(done)
        done.addErrback(self._step_failed).addBoth(lambda _: self._steps.discard(done))

    def _step_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("a step of the validation broke", failure)


@attrs.define(eq=False)
class Validations:
    """Runs the validation of the stage that is under way, in its time, unless that was done before.

    ``rpc`` has to give the chain the time for tens of megabytes. ``public_key`` is the participant's in hex, ``secret``
    makes the sampling unpredictable (see Sampling). ``settings`` hold for the validations that begin from now on.
    """

    log = Logger()

    _reactor: Any
    _rpc: ChainRpc
    _watcher: BlockWatcher
    _reconciler: Reconciler
    _stages: StageBook
    _public_key: str
    _secret: bytes = attrs.field(repr=False)
    _random: Random
    settings: ValidationSettings = attrs.field(init=False, factory=ValidationSettings)
    _current: StageValidation | None = attrs.field(init=False, default=None)
    _ended: Deferred[None] = attrs.field(init=False, factory=partial(succeed, None))

    async def begin(
        self, work: StageWork, height: int, sample_size: int, on_silent_node: Callable[[str], object]
    ) -> None:
        """Begin the validation of a stage in its time, unless it has begun or nothing is left to do.

        ``on_silent_node`` is called with the id of a node that has to be restarted. Raises StoreError.
        """
        stage = work.record.stage
        is_time = stage.validation_start <= height <= stage.validations.last
        if not is_time or work.record.is_handed_out or self._current is not None:
            return
        answered = await self._stages.participants_answered(stage.height)
        self._current = validation = self.make(work, sample_size, answered, on_silent_node)

        def over(_result: None) -> Deferred[None] | None:
            # Stopped before its end it is taken up again, by the next process or when the chain can be asked.
            return self._stages.handed_out(stage.height) if self._current is validation else None

        self._ended = validation.start().addCallback(over)
        self._ended.addErrback(
            lambda failure: self.log.failure("the validation of stage {height} ended", failure, height=stage.height)
        )

    def make(
        self, work: StageWork, sample_size: int, answered: set[str], on_silent_node: Callable[[str], object]
    ) -> StageValidation:
        """Make the validation of a stage; ``answered`` are the addresses of participants on whom there is a verdict."""
        stage, settings = work.record.stage, self.settings
        sampling = Sampling(
            public_key=self._public_key,
            block_hash=work.block_hash,
            block_height=stage.height,
            size=sample_size,
            secret=self._secret,
        )
        retry_delay = RetryDelay(self._random, *settings.retry_seconds)
        return StageValidation(
            reactor=self._reactor,
            stage=stage,
            assignments=Assignments(answered, retry_delay, settings.silent_seconds, settings.absent_seconds),
            query=partial(query_samples, self._reactor, self._rpc, sampling),
            height=lambda: self._watcher.head.height if self._watcher.head is not None else 0,
            workers=lambda: self._reconciler.workers_at(Duty.VALIDATE),
            on_silent_node=on_silent_node,
            retry_delay=retry_delay,
            look_seconds=settings.look_seconds,
        )

    def verdict_came(self, public_key: str, height: int) -> None:
        """Hear of a verdict that was stored: a participant's key in hex, and the stage's height."""
        if self._current is not None:
            self._current.answered(public_key, height)

    def leave(self) -> Deferred[None]:
        """End the validation that is under way, if there is one; fires when nothing is left of it."""
        validation, self._current = self._current, None
        if validation is not None:
            validation.stop()
        return self._ended

    def status(self) -> dict[str, Any] | None:
        """Tell how far the validation is that was begun last in this stage, None without one."""
        return self._current.status() if self._current is not None else None
