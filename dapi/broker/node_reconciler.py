"""Brings one node to its intention, and back to it whenever the node is found elsewhere.

The next step follows from the state, the intention and what the node says of itself, never from an event that may have
been missed. These are the states (``TRANSITIONS`` is the same as a table)::

    IDLE ──intention──▶ COMMANDED ──succeeded──▶ ON_DUTY ──time to ask──▶ ASKED
     ▲                   │     │                  │   ▲                    │ │
     │             replaced  failed               │   └──does its duty,────┘ │
     │                   ▼     ▼                  │      or no answer        │
     │           CANCELLING  RESTING              │                          │
     │                   │     │                  │                          │
     │               ended   time to retry, or  another intention,    found elsewhere, or
     │                   │   another intention  or command            another intention
     └───────────────────┴─────┴──────────────────┴──────────────────────────┘

In IDLE the next step follows at once, unless the node is to be left alone. COMMANDED returns to IDLE when the intention
was withdrawn meanwhile. IDLE leads to ON_DUTY when the node is intended again to do what it was brought to before. Each
state leads to LEFT, and LEFT to none.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.broker.duties import Intention
from dapi.broker.node_inspection import Inspection, NodeInspector
from dapi.broker.node_worker import NodeWorker
from dapi.broker.node_worker_commands import Command, CommandResult, NodeFailure
from dapi.broker.nodes import Node
from dapi.errors import MLNodeError
from dapi.messages import ProofBatch
from dapi.phases.duty import Duty
from dapi.timing.clock import unix_seconds
from dapi.timing.log_limits import OncePerMinute
from dapi.timing.steps import step
from dapi.timing.timer import Timer

ASK_SECONDS = 5.0
"""How long a node that does its duty is left alone at least, before it is asked again."""
# So long after the last batch of another run, it may be over.
_OTHER_RUN_SECONDS = 60.0
# A node answers nothing for 3 to 6 s while it switches. Fact: docs/protocol/node.md, 'Restarts'.
_AWAY_SECONDS = 10.0


class NodeReconcilerState(enum.Enum):
    """What a NodeReconciler waits for."""

    IDLE = "an intention"
    COMMANDED = "the end of the command"
    CANCELLING = "the end of a command that is not wanted any more"
    RESTING = "the next try, after a command that failed"
    ON_DUTY = "the time to ask the node whether it still does its duty"
    ASKED = "the node's answer"
    LEFT = "nothing: the node has another worker, or none"


_S = NodeReconcilerState
TRANSITIONS: Final[Mapping[NodeReconcilerState, set[NodeReconcilerState]]] = {
    _S.IDLE: {_S.COMMANDED, _S.ON_DUTY, _S.LEFT},
    _S.COMMANDED: {_S.ON_DUTY, _S.RESTING, _S.CANCELLING, _S.IDLE, _S.LEFT},
    _S.CANCELLING: {_S.IDLE, _S.LEFT},
    _S.RESTING: {_S.IDLE, _S.LEFT},
    _S.ON_DUTY: {_S.ASKED, _S.IDLE, _S.LEFT},
    _S.ASKED: {_S.ON_DUTY, _S.IDLE, _S.LEFT},
    _S.LEFT: set(),
}


class OtherRun(enum.StrEnum):
    """Of which other run a node's batch is."""

    STAGE = "stage"
    """Of another stage: its key is the participant's, its block hash is not the stage's."""
    OWNER = "owner"
    """Of another participant."""


class NodeStanding(msgspec.Struct, frozen=True):
    """Where a node stands.

    ``current`` is what the node last said that it does (None: not known), since the time ``since`` (unix seconds).
    ``under_way`` is the duty that a command is bringing it to. ``tries`` counts the commands that failed since one
    succeeded or the intention changed. ``problem`` says why the last command, or the last question, failed,
    and ``failure`` of which kind that is. ``found`` is what the node was found doing when it was asked last, if that is
    not its duty. ``batches_of_others`` counts the batches that came from another run than the one that is intended;
    ``other_run`` is which run that was, if one came within the last minute. ``silent_seconds`` is for how long a node
    that is to generate has sent no batch.
    """

    intended: Duty | None
    current: str | None
    under_way: Duty | None
    since: float
    problem: str | None
    tries: int
    batches_of_others: int = 0
    failure: NodeFailure | None = None
    found: str | None = None
    other_run: OtherRun | None = None
    silent_seconds: float | None = None


class _Given(NamedTuple):
    """A command that was given to the worker, and the intention that it is to fulfil."""

    intention: Intention
    command: Command


class NodeReconciler:
    """Does for one node, as long as it has this worker, what Reconciler promises for each.

    ``make_command`` makes the command that an intention asks for. ``retry_delay`` returns the seconds to the next try.
    ``on_switched`` is called with the node's id and the intention to which a command has brought it. ``ask_seconds``
    returns after how long a node that does its duty is asked again.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        worker: NodeWorker,
        make_command: Callable[[Node, Intention], Command],
        retry_delay: Callable[[], float],
        on_switched: Callable[[str, Intention], object] = lambda node_id, intention: None,
        ask_seconds: Callable[[], float] = lambda: ASK_SECONDS,
    ) -> None:
        self.worker = worker
        self.state = NodeReconcilerState.IDLE
        self._reactor = reactor
        self._make_command = make_command
        self._retry_delay = retry_delay
        self._on_switched = on_switched
        self._ask_seconds = ask_seconds
        self._log_limit = OncePerMinute(reactor)
        self._intention: Intention | None = None
        # The last command, under way or ended; None after a command that failed or did not last.
        self._given: _Given | None = None
        self._timer = Timer(reactor, 0, self._on_timer)
        self._inspector = NodeInspector(worker)
        self._answer: Deferred[Any] = succeed(None)
        self._asked_at = 0.0
        self._current: str | None = None
        self._since = reactor.seconds()
        self._problem: str | None = None
        self._failure: NodeFailure | None = None
        self._found: str | None = None
        self._tries = 0
        self._begun_at = 0.0
        self._batches_of_others = 0
        self._other_run: OtherRun | None = None
        self._other_run_at = 0.0
        worker.batch_handler.observe_generated(self._look_at)
        self._batches = worker.batch_handler.counts.generated
        self._silent_since = reactor.seconds()

    def reconcile(self, intention: Intention | None) -> None:
        """Do what is due for this intention; None: leave the node alone."""
        self._count_batches()
        if not self.worker.node.enabled:
            intention = None
        if intention != self._intention:
            self._change_to(intention)
        self._proceed()

    def leave(self) -> Deferred[None]:
        """Do nothing any more; fires when nothing is left on the reactor."""
        self._enter(NodeReconcilerState.LEFT)
        left: Deferred[None] = Deferred()
        self._answer.addCallback(left.callback)
        self._answer.cancel()
        return left

    def standing(self) -> NodeStanding:
        """Return where the node stands."""
        now = self._reactor.seconds()
        is_under_way = self.state in (NodeReconcilerState.COMMANDED, NodeReconcilerState.CANCELLING)
        return NodeStanding(
            intended=self._intention.duty if self._intention is not None else None,
            current=self._current,
            under_way=self._given.intention.duty if self._given is not None and is_under_way else None,
            since=unix_seconds(self._reactor, self._since),
            problem=self._problem,
            tries=self._tries,
            batches_of_others=self._batches_of_others,
            failure=self._failure,
            found=self._found,
            other_run=self._other_run if now - self._other_run_at < _OTHER_RUN_SECONDS else None,
            silent_seconds=self._silent_seconds(),
        )

    def is_at(self, duty: Duty) -> bool:
        """Tell whether the node was brought to its intention, which is this duty, and was told nothing else since."""
        is_on_duty = self.state in (NodeReconcilerState.ON_DUTY, NodeReconcilerState.ASKED)
        return is_on_duty and self._is_fulfilled() and self._intention is not None and self._intention.duty is duty

    def is_away(self) -> bool:
        """Tell whether it has not been known for 10 s what the node does."""
        return self._current is None and self._reactor.seconds() - self._since >= _AWAY_SECONDS

    def _silent_seconds(self) -> float | None:
        self._count_batches()
        is_to_generate = self._intention is not None and self._intention.duty is Duty.GENERATE
        return round(self._reactor.seconds() - self._silent_since, 3) if is_to_generate else None

    def _look_at(self, batch: ProofBatch) -> None:
        """Give a node its init again that computes with another block hash or key: its status does not tell.

        An init may have been answered by a proof of work that was about to end, and somebody else may have sent one. A
        node that works in the right run is not disturbed. Facts: docs/protocol/node.md, 'Status of PoW' and 'Restarts'.
        """
        intention = self._intention
        if self.state is NodeReconcilerState.LEFT or intention is None or not intention.block_hash:
            return
        if (batch.block_hash, batch.public_key) == (intention.block_hash, intention.public_key):
            return
        self._batches_of_others += 1
        if self._log_limit.is_due("others"):
            text = "{node_id}: a batch of stage {height} has not the block hash or the public key of stage {intended}"
            intended = intention.block_height
            self.log.warn(text, node_id=self.worker.node.id, height=batch.block_height, intended=intended)
        # What was computed before the init may be delivered after it.
        is_late = self._reactor.seconds() - self._begun_at >= ASK_SECONDS
        if is_late:
            is_ours = batch.public_key == intention.public_key
            self._other_run, self._other_run_at = OtherRun.STAGE if is_ours else OtherRun.OWNER, self._reactor.seconds()
        if self.state is NodeReconcilerState.ON_DUTY and self._is_fulfilled() and is_late:
            self._given = None
            self._enter(NodeReconcilerState.IDLE)
            self._proceed()

    def _count_batches(self) -> None:
        batches = self.worker.batch_handler.counts.generated
        if batches != self._batches:
            self._batches, self._silent_since = batches, self._reactor.seconds()

    def _enter(self, state: NodeReconcilerState) -> None:
        self.state = step(TRANSITIONS, self.state, state, self.worker.node.id)
        self._timer.cancel()

    def _change_to(self, intention: Intention | None) -> None:
        self._intention = intention
        self._tries = 0
        self._problem = self._failure = self._found = self._other_run = None
        self._log_limit = OncePerMinute(self._reactor)
        self._silent_since = self._reactor.seconds()
        if self.state is NodeReconcilerState.RESTING:
            self._enter(NodeReconcilerState.IDLE)
        elif self.state is NodeReconcilerState.ASKED:
            self._answer.cancel()
        elif self.state is NodeReconcilerState.COMMANDED and self._given is not None:
            # A node that is left alone may finish its command; a disabled one is about to be stopped.
            is_wanted = intention is None and self.worker.node.enabled
            if not is_wanted and self._given.intention != intention:
                self._enter(NodeReconcilerState.CANCELLING)
                self.worker.cancel(self._given.command, "superseded")

    def _is_fulfilled(self) -> bool:
        """Tell whether the last command was given for this intention, and nobody gave another one since."""
        given = self._given
        return given is not None and given.intention == self._intention and given.command is self.worker.last_begun

    def _proceed(self, *, is_time_to_ask: bool = False) -> None:
        """Take the next step, unless its time has not come yet."""
        if self.state is NodeReconcilerState.ON_DUTY and not self._is_fulfilled():
            self._enter(NodeReconcilerState.IDLE)
        if self._intention is None or self.state not in (NodeReconcilerState.IDLE, NodeReconcilerState.ON_DUTY):
            return
        if not self._is_fulfilled():
            self._give(self._intention)
            return
        if self.state is NodeReconcilerState.IDLE:
            self._enter(NodeReconcilerState.ON_DUTY)
        if is_time_to_ask or self._reactor.seconds() - self._asked_at >= self._ask_seconds():
            self._ask(self._intention.duty)

    def _give(self, intention: Intention) -> None:
        command = self._make_command(self.worker.node, intention)
        self._given = _Given(intention, command)
        self._enter(NodeReconcilerState.COMMANDED)
        self.worker.submit(command).addCallback(self._on_result).addErrback(self._log_defect)

    def _on_result(self, result: CommandResult) -> None:
        if self.state is NodeReconcilerState.LEFT:
            return
        is_cancelled = self.state is NodeReconcilerState.CANCELLING
        self._set_current(result.status if result.succeeded else None)
        if result.succeeded:
            self._inspector = NodeInspector(self.worker, is_model_initialized=result.is_model_initialized)
            self._asked_at = self._begun_at = self._reactor.seconds()
            self._tries = 0
            self._problem = self._failure = None
            if not is_cancelled and self._given is not None:
                self._on_switched(self.worker.node.id, self._given.intention)
        else:
            self._given = None
            if not is_cancelled:
                self._tries += 1
                self._problem, self._failure = result.error, result.failure
        if is_cancelled or self._intention is None:
            self._enter(NodeReconcilerState.IDLE)
            self._proceed()
        else:
            self._enter(NodeReconcilerState.ON_DUTY if result.succeeded else NodeReconcilerState.RESTING)
            self._timer.start(self._retry_delay())

    def _ask(self, duty: Duty) -> None:
        self._enter(NodeReconcilerState.ASKED)
        self._answer = answer = Deferred.fromCoroutine(self._inspector.inspect(duty))
        answer.addBoth(self._on_answer, duty).addErrback(self._log_defect)

    def _on_answer(self, answer: Inspection | Failure, duty: Duty) -> None:
        if self.state is NodeReconcilerState.LEFT:
            return
        self._asked_at = self._reactor.seconds()
        if not self._is_fulfilled():
            self._enter(NodeReconcilerState.IDLE)
        elif isinstance(answer, Failure):
            self._enter(NodeReconcilerState.ON_DUTY)
            self._record_failure(answer)
        else:
            self._set_current(answer.current)
            self._problem = self._failure = None
            self._found = None if answer.does_its_duty else answer.current
            if answer.does_its_duty:
                self._enter(NodeReconcilerState.ON_DUTY)
            else:
                text = "{node_id}: found {current}, where it is to {duty}"
                # Another API node may have it do something else again and again.
                log = self.log.warn if self._log_limit.is_due("found elsewhere") else self.log.debug
                log(text, node_id=self.worker.node.id, current=answer.current, duty=duty)
                self._given = None
                self._enter(NodeReconcilerState.IDLE)
        self._proceed()

    def _record_failure(self, failure: Failure) -> None:
        """Have the node asked again soon; until then it is not known what the node does."""
        if failure.check(CancelledError):
            # The intention changed, and changed back.
            return
        problem = failure.getErrorMessage()
        if not failure.check(MLNodeError):
            self._log_defect(failure)
        elif problem != self._problem:
            text = "{node_id}: not known whether it still does what it is to: {error}"
            self.log.warn(text, node_id=self.worker.node.id, error=problem)
        self._set_current(None)
        self._problem = problem
        self._failure = NodeFailure.of(failure.value) if isinstance(failure.value, MLNodeError) else NodeFailure.DEFECT
        self._timer.start(self._retry_delay())

    def _log_defect(self, failure: Failure) -> None:
        self.log.failure("{node_id}: reconciling has a defect", failure, node_id=self.worker.node.id)

    def _set_current(self, current: str | None) -> None:
        if current != self._current:
            self._current, self._since = current, self._reactor.seconds()

    def _on_timer(self) -> None:
        if self.state is NodeReconcilerState.RESTING:
            self._enter(NodeReconcilerState.IDLE)
        self._proceed(is_time_to_ask=True)
