"""The validation of one stage: every participant's sample to a node that validates, and its verdict back.

Facts: docs/protocol/chain.md, 'Validation', and docs/protocol/node.md, 'What a node loses'.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.broker.node_worker import NodeWorker
from dapi.errors import ChainError, MLNodeError
from dapi.messages import ProofBatch
from dapi.messages.addresses import address_of
from dapi.orchestration.validation_batches import Dropped, Samples, Sampling, sample_batches
from dapi.phases.phases import PocStage
from dapi.phases.stage_queries import ParticipantBatches
from dapi.timing.loop import Wake


@attrs.frozen
class ValidationSettings:
    """Times and bounds of one validation.

    A query that failed, and a participant that no node took, wait a random time between the two of ``retry``. A round
    asks ``tries`` nodes to take a participant, and as many may take it and then be silent. A node is asked for
    ``calls_at_once`` at most, is silent when no verdict came for ``silent_seconds``, and has lost what it took when it
    did not validate for ``absent_seconds``. The second query comes ``query_again_after_blocks`` after the first.
    """

    retry_min_seconds: float = 3.0
    retry_max_seconds: float = 5.0
    look_seconds: float = 1.0
    tries: int = 5
    calls_at_once: int = 2
    silent_seconds: float = 60.0
    absent_seconds: float = 10.0
    query_again_after_blocks: int = 2


@attrs.define(eq=False)
class _Task:
    """One participant's batch: who would not take it in this round, and who took it and did not answer."""

    batch: ProofBatch
    tried: set[str] = attrs.Factory(set)
    silent: set[str] = attrs.Factory(set)
    handings: int = 0
    not_before: float = 0.0


@attrs.define(eq=False)
class _Node:
    """What one node was given: ``held`` are the participants that it took and that nobody has answered yet."""

    held: dict[str, _Task] = attrs.Factory(dict)
    calls: int = 0
    last_turn: int = 0
    seen_at: float = 0.0
    heard_at: float = 0.0
    barred_until: float = 0.0
    is_examined: bool = False
    handed: int = 0
    answered: int = 0
    refused: int = 0
    silent: int = 0


class StageValidation:
    """Has a stage's participants validated, each by one node, from now until all are answered or the window is over.

    ``query(at_height)`` gives the stage's batches at a height (see ``poc_batches_for_stage``), ``height()`` the latest
    block's height, ``workers()`` those whose nodes validate now (best without those whose model is still loading: what
    they take has to wait for that). ``already_answered`` are the addresses of participants on whom there is a verdict
    from an earlier run. ``on_silent_node`` is called with the id of a node that took batches and answers none, so that
    it is stopped and started anew; until it was seen to be away, it gets nothing more. ``random`` spreads retries.

    Promises: a participant is handed to one node after the other until one takes it, for as long as the window is open,
    and to another one when the node that took it is silent or away; a participant on whom a verdict came is handed to
    nobody any more. Does not promise that no participant is validated twice: a node may answer late.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        stage: PocStage,
        sampling: Sampling,
        *,
        query: Callable[[int], Awaitable[list[ParticipantBatches]]],
        height: Callable[[], int],
        workers: Callable[[], Sequence[NodeWorker]],
        on_silent_node: Callable[[str], object],
        random: random.Random,
        already_answered: Collection[str] = (),
        settings: ValidationSettings | None = None,
    ) -> None:
        self._reactor = reactor
        self._stage = stage
        self._sampling = sampling
        self._query = query
        self._height = height
        self._workers = workers
        self._on_silent_node = on_silent_node
        self._random = random
        self._settings = settings or ValidationSettings()
        self._wake = Wake(reactor)
        self._participants: set[str] = set()
        self._already_answered = already_answered
        self._answered: set[str] = set()
        self._handed: set[str] = set()
        self._waiting: dict[str, _Task] = {}
        self._nodes: dict[str, _Node] = {}
        self._dropped = Dropped()
        self._turns = 0
        self._doing: set[Deferred[None]] = set()
        self._problem: str | None = "the batches are not queried yet"
        self._knows_all = False
        self._is_stopped = False
        self._is_over = False

    def start(self) -> Deferred[None]:
        """Begin; fires when all is answered, the window is over or ``stop`` was called, and nothing is left of it."""
        return Deferred.fromCoroutine(self._run())

    def stop(self) -> None:
        """Hand out nothing more, and let go of all calls; ``start``'s Deferred fires."""
        self._is_stopped = True
        self._wake.ring()

    def answered(self, public_key: str, height: int) -> None:
        """Note a verdict: ``public_key`` is the participant's in hex, ``height`` the stage's. May be told twice."""
        key = public_key.lower()
        if height != self._stage.height or key in self._answered:
            return
        self._answered.add(key)
        self._waiting.pop(key, None)
        for node in self._nodes.values():
            if node.held.pop(key, None) is not None:
                node.answered += 1
                node.heard_at = self._reactor.seconds()
        self._wake.ring()

    def status(self) -> dict[str, Any]:
        """Tell how far it is, in participants; ``handed`` are all whom a node took, ``waiting`` those for a node."""
        answered = len(self._participants & self._answered)
        return {
            "height": self._stage.height,
            "is_over": self._is_over,
            "problem": self._problem,
            "participants": len(self._participants),
            "waiting": len(self._waiting),
            "handed": len(self._handed),
            "answered": answered,
            "unanswered": len(self._participants) - answered,
            "dropped": self._dropped,
            "nodes": {
                node_id: {
                    "handed": node.handed,
                    "answered": node.answered,
                    "unanswered": len(node.held),
                    "refused": node.refused,
                    "silent": node.silent,
                }
                for node_id, node in self._nodes.items()
            },
        }

    async def _run(self) -> None:
        self._begin(self._learn())
        try:
            while not self._is_finished():
                self._look_at_nodes()
                self._hand_out()
                await self._wake.wait(self._settings.look_seconds)
        finally:
            self._is_over = True
            for doing in self._doing.copy():
                doing.cancel()
        while self._doing:
            await next(iter(self._doing))
        self.log.info(
            "validation of stage {height} is over: {answered} of {participants} participants answered",
            height=self._stage.height,
            answered=len(self._participants & self._answered),
            participants=len(self._participants),
        )

    def _is_finished(self) -> bool:
        # What comes at the last height of the window can be in no block of it any more.
        is_late = self._height() >= self._stage.validations.last
        return self._is_stopped or is_late or (self._knows_all and self._participants <= self._answered)

    # What is to be validated.

    async def _learn(self) -> None:
        """Query the batches, and once more later: a node that lags may have been without those of the last block."""
        await self._height_of(self._stage.batches.last)
        at_height = await self._query_batches()
        await self._height_of(at_height + self._settings.query_again_after_blocks)
        await self._query_batches()
        self._knows_all = True
        self._wake.ring()

    async def _height_of(self, height: int) -> None:
        while self._height() < height:
            await deferLater(self._reactor, self._settings.look_seconds)

    async def _query_batches(self) -> int:
        """Take up what the chain has, as soon as it can be had; return the height that it was asked at."""
        while True:
            at_height = self._height()
            try:
                found = await self._query(at_height)
            except ChainError as error:
                # A cancelled call may end as a failure of another kind: the end is the end.
                if self._is_over:
                    raise CancelledError from error
                self._note(str(error))
                await deferLater(self._reactor, self._retry_delay())
            else:
                self._problem = None
                pool = self._reactor.getThreadPool()
                self._take(await deferToThreadPool(self._reactor, pool, sample_batches, found, self._sampling))
                return at_height

    def _take(self, samples: Samples) -> None:
        self._dropped = samples.dropped
        for batch in samples.batches:
            key = batch.public_key.lower()
            if address_of(batch.public_key) in self._already_answered:
                self._answered.add(key)
            if key in self._waiting and not self._waiting[key].handings:
                self._waiting[key].batch = batch
            elif key not in self._participants and key not in self._answered:
                self._waiting[key] = _Task(batch)
            self._participants.add(key)
        self.log.info(
            "stage {height}: {participants} participants to validate; dropped: {dropped}",
            height=self._stage.height,
            participants=len(self._participants),
            dropped=samples.dropped,
        )
        self._wake.ring()

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            self.log.warn(
                "the batches of stage {height} cannot be had now, trying again: {problem}",
                height=self._stage.height,
                problem=problem,
            )
        self._problem = problem

    # Who gets it.

    def _hand_out(self) -> None:
        """Give what waits to the nodes in turn, as far as they are free."""
        now = self._reactor.seconds()
        workers = {worker.node.id: worker for worker in self._workers() if self._is_available(worker.node.id)}
        for key, task in list(self._waiting.items()):
            free = [node_id for node_id in workers if self._nodes[node_id].calls < self._settings.calls_at_once]
            if not free:
                return
            if task.not_before > now:
                continue
            if len(task.tried) >= self._settings.tries or workers.keys() <= task.tried:
                task.tried.clear()
                task.not_before = now + self._retry_delay()
                continue
            free = [node_id for node_id in free if node_id not in task.tried]
            if free:
                # Rather one that has not let this one down, and the one whose turn is the longest ago.
                chosen = min(free, key=lambda node_id: (node_id in task.silent, self._nodes[node_id].last_turn))
                del self._waiting[key]
                self._begin(self._give(key, task, workers[chosen]))

    def _is_available(self, node_id: str) -> bool:
        node = self._nodes.setdefault(node_id, _Node(seen_at=self._reactor.seconds()))
        return not node.is_examined and self._reactor.seconds() >= node.barred_until

    async def _give(self, key: str, task: _Task, worker: NodeWorker) -> None:
        node_id = worker.node.id
        node = self._nodes[node_id]
        self._turns += 1
        node.last_turn = self._turns
        node.calls += 1
        try:
            await worker.ml_client.validate(task.batch)
        except (MLNodeError, CancelledError) as error:
            # A call is also cancelled when its worker is stopped.
            node.refused += 1
            task.tried.add(node_id)
            if not self._is_over:
                self.log.warn("{node_id}: took no batch to validate: {error}", node_id=node_id, error=str(error))
                self._put_back(key, task)
        else:
            self._handed.add(key)
            node.handed += 1
            task.handings += 1
            if key not in self._answered:
                if not node.held:
                    node.heard_at = self._reactor.seconds()
                node.held[key] = task
        finally:
            node.calls -= 1
            self._wake.ring()

    def _put_back(self, key: str, task: _Task) -> None:
        if key not in self._answered:
            self._waiting[key] = task

    # Who does not answer.

    def _look_at_nodes(self) -> None:
        """Take back from nodes that are away, and look into those that are silent."""
        now = self._reactor.seconds()
        present = {worker.node.id: worker for worker in self._workers()}
        for node_id in present:
            self._nodes.setdefault(node_id, _Node()).seen_at = now
        for node_id, node in self._nodes.items():
            if node_id not in present:
                node.barred_until = 0.0
                if node.held and now - node.seen_at >= self._settings.absent_seconds:
                    self._take_back(node_id, node, "does not validate any more")
            elif node.held and not node.is_examined and now - node.heard_at >= self._settings.silent_seconds:
                self._begin(self._examine(node, present[node_id]))

    async def _examine(self, node: _Node, worker: NodeWorker) -> None:
        """Report a node as silent, unless it cannot answer yet because its model is still loading."""
        node.is_examined = True
        try:
            is_loading = await self._is_loading(worker)
        finally:
            node.is_examined = False
        now = self._reactor.seconds()
        if is_loading:
            node.heard_at = now
        elif node.held and now - node.heard_at >= self._settings.silent_seconds:
            node.silent += 1
            # In case it is back before anybody saw that it was away.
            node.barred_until = now + self._settings.silent_seconds
            self._take_back(worker.node.id, node, f"no verdict for {now - node.heard_at:.0f} s: has to be restarted")
            self._on_silent_node(worker.node.id)

    async def _is_loading(self, worker: NodeWorker) -> bool:
        try:
            return (await worker.ml_client.pow_status()).is_model_initialized is False
        except (MLNodeError, CancelledError):
            if self._is_over:
                raise
            return False

    def _take_back(self, node_id: str, node: _Node, reason: str) -> None:
        held, node.held = node.held, {}
        given_up = 0
        for key, task in held.items():
            task.silent.add(node_id)
            task.tried.clear()
            if task.handings < self._settings.tries:
                self._put_back(key, task)
            else:
                given_up += 1
        self.log.warn(
            "{node_id}: {reason}; {count} unanswered participants go to others, {given_up} were tried often enough",
            node_id=node_id,
            reason=reason,
            count=len(held) - given_up,
            given_up=given_up,
        )
        self._wake.ring()

    # The rest.

    def _retry_delay(self) -> float:
        return self._random.uniform(self._settings.retry_min_seconds, self._settings.retry_max_seconds)

    def _begin(self, doing: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do something in the background, to the end of the validation at the latest."""
        done = Deferred.fromCoroutine(doing)
        self._doing.add(done)

        def ended(result: Failure | None) -> None:
            self._doing.discard(done)
            if isinstance(result, Failure) and not (self._is_over and result.check(CancelledError, MLNodeError)):
                self.log.failure("a step of the validation broke", result)

        done.addBoth(ended)
