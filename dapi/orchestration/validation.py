"""The validation of one stage: posts every participant's sample to a node, and follows the verdicts.

Assignments decides who gets what and who is silent; StageValidation does it. Facts: docs/protocol/chain.md,
'Validation', and docs/protocol/node.md, 'What a node loses'. The states of a validation:

    QUERYING ──the batches are here──▶ COMPLETE ──all have a verdict──▶ OVER
       ├───────────────────────────────────┴──────the window ends───────▶ OVER
       └───stop(), at any time──▶ STOPPED

One query is enough: it names a height that is not before the end of the batches' window, and a node of the chain that
does not have that height yet refuses to answer (docs/protocol/measured.md, 'Chain nodes that fail').
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.broker.node_worker import NodeWorker
from dapi.errors import ChainError, MLNodeError, StoreError
from dapi.messages.addresses import address_of
from dapi.orchestration.assignments import Assignments, Offer
from dapi.orchestration.samples import Dropped, Samples, Sampling
from dapi.orchestration.stage_work import StageWork
from dapi.orchestration.stages import StageBook
from dapi.timing.loop import Wake
from dapi.timing.retry import retry

T = TypeVar("T")


class ValidationState(enum.Enum):
    """Where a validation is."""

    QUERYING = "its participants are not known yet"
    COMPLETE = "all participants are known"
    STOPPED = "was stopped before its end, and may be taken up again"
    OVER = "has ended"


@attrs.define
class ValidationTools:
    """What all validations work with.

    ``query(sampling, at_height)`` gives the samples of a stage (see ``query_samples``), ``height()`` the latest block's
    height, ``workers()`` the workers whose nodes validate now, ``retry_delay()`` the seconds to wait after a failed
    query and after a round in which no node took a participant. ``hand_out(height, pairs)`` records which participants'
    addresses are given to which nodes' ids (see ``Comparison``). ``public_key`` is the participant's in hex; ``secret``
    is for Sampling, ``silent_seconds`` for Assignments.
    """

    reactor: Any
    stages: StageBook
    query: Callable[[Sampling, int], Awaitable[Samples]]
    height: Callable[[], int]
    workers: Callable[[], Sequence[NodeWorker]]
    retry_delay: Callable[[], float]
    hand_out: Callable[[int, Sequence[tuple[str, str]]], Deferred[None]]
    public_key: str
    secret: bytes = attrs.field(repr=False)
    look_seconds: float = 1.0
    silent_seconds: float = 60.0


class StageValidation:
    """Has a stage's participants validated, each by one node, until all have a verdict or the window is over.

    ``on_silent_node`` is called with the id of a node that takes batches and gives no verdicts, so that it is stopped
    and started anew; the node gets nothing more until it was seen to be away.

    Promises: a participant is posted to one node after the other until one takes it, for as long as the window is open,
    and to another one when the node that took it is silent, is away or begins to validate anew; a participant with a
    verdict is posted to nobody.
    Does not promise that no participant is validated twice: a node may answer late.
    """

    log = Logger()

    def __init__(
        self, tools: ValidationTools, work: StageWork, sample_size: int, on_silent_node: Callable[[str], object]
    ) -> None:
        self._tools = tools
        self._stage = work.record.stage
        self._sampling = Sampling(
            public_key=tools.public_key,
            block_hash=work.block_hash,
            block_height=self._stage.height,
            size=sample_size,
            secret=tools.secret,
        )
        self._on_silent_node = on_silent_node
        self._assignments = Assignments(tools.retry_delay, tools.silent_seconds)
        self._state = ValidationState.QUERYING
        self._problem: str | None = "the batches are not queried yet"
        self._is_failing = False
        self._dropped = Dropped()
        self._steps: set[Deferred[None]] = set()
        self._wake = Wake(tools.reactor)

    def start(self) -> Deferred[None]:
        """Begin; fires when it is over or stopped, and nothing is left of it."""
        return Deferred.fromCoroutine(self._run())

    def stop(self) -> None:
        """Post nothing more, and let go of all calls; ``start``'s Deferred fires."""
        if not self._is_finished():
            self._state = ValidationState.STOPPED
        self._wake.ring()

    def record_verdict(self, public_key: str, height: int) -> None:
        """Record a verdict on a participant (its key in hex) in the stage ``height``; ignore it in other stages."""
        if height == self._stage.height:
            self._assignments.record_verdict(address_of(public_key), self._tools.reactor.seconds())
            self._wake.ring()

    def counts(self) -> dict[str, int]:
        """Tell how many participants there are, have been handed out, and have a verdict."""
        status = self._assignments.status()
        return {name: status[name] for name in ("participants", "handed", "answered")}

    def status(self) -> dict[str, Any]:
        """Tell how far it is, in participants; see ``Assignments.status``.

        ``is_failing`` says that the batches were asked for in vain, and ``problem`` why there are none yet.
        """
        return {
            "height": self._stage.height,
            "is_over": self._has_ended,
            "problem": self._problem,
            "is_failing": self._is_failing,
            "dropped": self._dropped,
            **self._assignments.status(),
        }

    @property
    def _has_ended(self) -> bool:
        return self._state in (ValidationState.STOPPED, ValidationState.OVER)

    async def _run(self) -> None:
        self._begin(self._learn())
        try:
            while not self._is_finished():
                self._act()
                await self._wake.wait(self._tools.look_seconds)
        finally:
            if self._state is not ValidationState.STOPPED:
                self._state = ValidationState.OVER
            for step in self._steps.copy():
                step.cancel()
        while self._steps:
            await next(iter(self._steps))
        self._log_end()
        if self._state is ValidationState.OVER:
            await self._record_end()

    async def _record_end(self) -> None:
        try:
            await self._tools.stages.record_handed_out(self._stage.height)
        except StoreError as error:
            # Only a start before the end of the window looks for it, and then finds a verdict on everybody.
            text = "that the validation of stage {height} is over is not on disk: {error}"
            self.log.warn(text, height=self._stage.height, error=str(error))

    def _log_end(self) -> None:
        height, count = self._stage.height, self._assignments.status()
        reasons = [self._problem] if self._problem is not None else []
        reasons += self._assignments.reasons()
        if self._state is ValidationState.OVER and reasons:
            text = (
                "the window of stage {height} ended with {count[unanswered]} of {count[participants]} "
                "participants unanswered: {reason}"
            )
            self.log.warn(text, height=height, count=count, reason="; ".join(reasons))
        else:
            text = "the validation of stage {height} {state}: {count[answered]} of {count[participants]} have a verdict"
            self.log.info(text, height=height, count=count, state=self._state.value)

    def _is_finished(self) -> bool:
        # A verdict that comes at the last height of the window is too late for every block of it.
        if self._has_ended or self._tools.height() >= self._stage.validations.last:
            return True
        return self._state is ValidationState.COMPLETE and self._assignments.unanswered == 0

    def _act(self) -> None:
        """Do what Assignments decides for the nodes that validate now."""
        workers = {worker.node.id: worker for worker in self._tools.workers()}
        # Whatever brings a node anew into validation is a command of its worker.
        beginnings = {node_id: worker.last_begun for node_id, worker in workers.items()}
        decisions = self._assignments.decide(beginnings, self._tools.reactor.seconds())
        for warning in decisions.warnings:
            self.log.warn("{lost}", lost=warning)
        for node_id in decisions.examine:
            self._begin(self._examine(workers[node_id]))
        if decisions.offers:
            self._begin(self._hand_out(decisions.offers, workers))

    async def _learn(self) -> None:
        """Learn who has a verdict from an earlier run, and who is to be validated."""
        now = self._tools.reactor.seconds()
        for address in await self._retry(partial(self._tools.stages.participants_answered, self._stage.height)):
            self._assignments.record_verdict(address, now)
        await self._reach(self._stage.batches.last)
        await self._retry(self._query_samples)
        self._state = ValidationState.COMPLETE
        self._wake.ring()

    async def _reach(self, height: int) -> None:
        """Wait until the chain has come to a height; raises CancelledError if the validation has ended by then."""
        while self._tools.height() < height:
            await deferLater(self._tools.reactor, self._tools.look_seconds)
        if self._has_ended:
            raise CancelledError

    async def _query_samples(self) -> None:
        """Add the participants with batches in the stage."""
        samples = await self._tools.query(self._sampling, self._tools.height())
        self._problem, self._is_failing = None, False
        self._dropped = samples.dropped
        self._assignments.add(samples.batches)
        self.log.info(
            "stage {height}: {count[participants]} participants to validate; dropped: {dropped.nonces} distances, "
            "{dropped.batches} batches and all of {dropped.participants} participants",
            height=self._stage.height,
            count=self._assignments.status(),
            dropped=samples.dropped,
        )

    async def _retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        # After any error: without this step nobody is validated in the whole stage.
        delay = self._tools.retry_delay
        return await retry(self._tools.reactor, attempt, errors=Exception, delay=delay, on_error=self._attempt_failed)

    def _attempt_failed(self, error: Exception) -> None:
        if self._has_ended:
            # A call that is cancelled may fail with any error.
            raise CancelledError from error
        is_foreseen = isinstance(error, ChainError | StoreError)
        problem = str(error) if is_foreseen else f"{type(error).__name__}: {error}"
        if problem != self._problem:
            log = self.log.warn if is_foreseen else self.log.failure
            text = "the batches of stage {height} cannot be had now, trying again: {problem}"
            log(text, height=self._stage.height, problem=problem)
        self._problem, self._is_failing = problem, True

    async def _hand_out(self, offers: Sequence[Offer], workers: Mapping[str, NodeWorker]) -> None:
        """Post offers, once it is on disk which node gets whom: a verdict on anybody else is not sent."""
        try:
            await self._tools.hand_out(self._stage.height, [(offer.address, offer.node_id) for offer in offers])
        except (StoreError, CancelledError) as error:
            for offer in offers:
                self._assignments.refused(offer)
            if not self._has_ended:
                text = "{number} participants cannot be handed out now: {error}"
                self.log.warn(text, number=len(offers), error=str(error))
        else:
            for offer in offers:
                self._begin(self._post(offer, workers[offer.node_id]))

    async def _post(self, offer: Offer, worker: NodeWorker) -> None:
        """Post one participant's batch to a node."""
        try:
            await worker.ml_client.validate(offer.batch)
        except (MLNodeError, CancelledError) as error:
            # The call is also cancelled when its worker is stopped.
            self._assignments.refused(offer)
            if not self._has_ended:
                self.log.warn("{node_id}: took no batch to validate: {error}", node_id=offer.node_id, error=str(error))
        else:
            self._assignments.accepted(offer, self._tools.reactor.seconds())
        self._wake.ring()

    async def _examine(self, worker: NodeWorker) -> None:
        """Report a node as silent, unless it cannot answer yet because its model is still loading."""
        # If asking breaks, the node counts as loading, and is asked again after as long a silence.
        is_loading = True
        try:
            is_loading = (await worker.ml_client.pow_status()).is_model_initialized is False
        except (MLNodeError, CancelledError):
            is_loading = False
        finally:
            now = self._tools.reactor.seconds()
            warning = self._assignments.examined(worker.node.id, now, is_loading=is_loading)
        if warning is not None and not self._has_ended:
            self.log.warn("{lost}", lost=warning)
            self._on_silent_node(worker.node.id)
            self._wake.ring()

    def _begin(self, step: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do something in the background, until the validation ends at the latest."""
        done = Deferred.fromCoroutine(step)
        self._steps.add(done)
        done.addErrback(self._step_failed).addBoth(lambda _: self._steps.discard(done))

    def _step_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("a step of the validation broke", failure)
