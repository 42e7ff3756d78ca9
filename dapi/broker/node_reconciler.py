"""Brings one node to where it is intended to be, and back there whenever it is found elsewhere.

Level-triggered: what is done follows from what is intended, what was last achieved and what the node says of itself,
never from what happened to be seen or missed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.broker.duties import MEANINGS, Intention
from dapi.broker.node_worker import NodeWorker
from dapi.broker.node_worker_commands import Command, CommandResult
from dapi.broker.nodes import Node
from dapi.errors import MLNodeError
from dapi.mlnode.client import MLNodeState
from dapi.phases.duty import Duty
from dapi.timing.timer import Timer

_LOOK_SECONDS = 5.0
_SILENT_SECONDS = 60.0
_SICK_LOOKS = 3


class NodeStanding(msgspec.Struct, frozen=True):
    """Where a node stands.

    ``current`` is what it said last of what it does (None: not known), ``since`` when that was new (seconds since the
    epoch). ``under_way`` is what a command is to bring it to now; ``tries`` counts the commands that failed since one
    succeeded or another thing was intended, ``last_error`` says why the last command, or the last look at the node,
    failed.
    """

    intended: Duty | None
    current: str | None
    under_way: Duty | None
    since: float
    last_error: str | None
    tries: int


class _Given(NamedTuple):
    """A command that was given, and what for."""

    intention: Intention
    command: Command


class NodeReconciler:
    """Does for one node, as long as it has this worker, what Reconciler promises for each.

    ``make_command`` makes the command that an intention asks for, ``retry_delay`` chooses the seconds to the next try.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        worker: NodeWorker,
        make_command: Callable[[Node, Intention], Command],
        retry_delay: Callable[[], float],
    ) -> None:
        self.worker = worker
        self._reactor = reactor
        self._make_command = make_command
        self._retry_delay = retry_delay
        self._has_left = False
        self._intention: Intention | None = None
        self._under_way: _Given | None = None
        self._is_cancelled = False
        self._achieved: _Given | None = None
        # A command failed, and the next one waits for the timer.
        self._is_resting = False
        self._timer = Timer(reactor, 0, self._timer_fired)
        self._looking: Deferred[Any] | None = None
        self._looked_at = float("-inf")
        # In a row, at the inference that it serves now.
        self._sick_looks = 0
        self._current: str | None = None
        self._since = reactor.seconds()
        self._last_error: str | None = None
        self._tries = 0
        self._batches = worker.batch_handler.counts.generated
        self._silent_since = reactor.seconds()

    def reconcile(self, intention: Intention | None) -> None:
        """Do what is due for this intention; None: leave the node alone."""
        self._count_batches()
        if not self.worker.node.enabled:
            intention = None
        if intention != self._intention:
            self._change_to(intention)
        self._act()

    def leave(self) -> Deferred[None]:
        """Do nothing any more; fires when nothing is left."""
        self._has_left = True
        self._timer.cancel()
        if self._looking is None:
            return succeed(None)
        left: Deferred[None] = Deferred()
        self._looking.addCallback(left.callback)
        self._looking.cancel()
        return left

    def standing(self) -> NodeStanding:
        """Tell where the node stands."""
        return NodeStanding(
            intended=self._intention.duty if self._intention is not None else None,
            current=self._current,
            under_way=self._under_way.intention.duty if self._under_way is not None else None,
            since=self._since,
            last_error=self._last_error,
            tries=self._tries,
        )

    def is_at(self, duty: Duty) -> bool:
        """Tell whether the node is where it is intended to be, with this duty."""
        return self._intention is not None and self._intention.duty is duty and self._is_there()

    def warning(self) -> str | None:
        """Say in words that the node was to generate for some time without a batch from it."""
        self._count_batches()
        silent_seconds = self._reactor.seconds() - self._silent_since
        if self._intention is None or self._intention.duty is not Duty.GENERATE:
            return None
        if silent_seconds < _SILENT_SECONDS:
            return None
        reason = f" ({self._last_error})" if self._last_error is not None else ""
        return f"{self.worker.node.id}: is to generate, and no batch came from it for {silent_seconds:.0f} s{reason}"

    def _count_batches(self) -> None:
        batches = self.worker.batch_handler.counts.generated
        if batches != self._batches:
            self._batches, self._silent_since = batches, self._reactor.seconds()

    def _change_to(self, intention: Intention | None) -> None:
        self._intention = intention
        self._tries = 0
        self._last_error = None
        self._silent_since = self._reactor.seconds()
        self._is_resting = False
        self._timer.cancel()
        given = self._under_way
        if given is not None and given.intention != intention:
            # A node that is left alone may finish what it was told; a disabled one is about to be stopped.
            if intention is not None or not self.worker.node.enabled:
                self._is_cancelled = True
                self.worker.cancel(given.command, "superseded")
        elif self._looking is not None:
            self._looking.cancel()

    def _is_there(self) -> bool:
        """Tell whether the node was brought to where it is intended to be, and told nothing else since."""
        achieved = self._achieved
        return (
            achieved is not None
            and achieved.intention == self._intention
            and achieved.command is self.worker.last_begun
        )

    def _act(self) -> None:
        """Do what is due now."""
        if self._has_left or self._intention is None or self._under_way is not None or self._looking is not None:
            return
        if not self._is_there():
            if not self._is_resting:
                self._give(self._intention)
        elif self._reactor.seconds() - self._looked_at >= _LOOK_SECONDS:
            looking = Deferred.fromCoroutine(self._look(self._intention.duty))
            self._looking = looking
            looking.addBoth(self._looked)

    def _give(self, intention: Intention) -> None:
        command = self._make_command(self.worker.node, intention)
        self._under_way = _Given(intention, command)
        self._is_cancelled = False
        self.worker.submit(command).addCallback(self._ended, self._under_way).addErrback(
            lambda failure: self.log.failure(
                "{node_id}: reconciling has a defect", failure, node_id=self.worker.node.id
            )
        )

    def _ended(self, result: CommandResult, given: _Given) -> None:
        self._under_way = None
        if self._has_left:
            return
        self._say(result.status if result.succeeded else None)
        self._achieved = given if result.succeeded else None
        if result.succeeded:
            self._tries = self._sick_looks = 0
            self._last_error = None
            self._looked_at = self._reactor.seconds()
            self._timer.start(self._retry_delay())
        elif not self._is_cancelled:
            self._tries += 1
            self._last_error = result.error
            self._is_resting = True
            self._timer.start(self._retry_delay())
        self._act()

    async def _look(self, duty: Duty) -> tuple[str, bool]:
        """Ask the node what it does; return that, and whether it is what it is there for."""
        client = self.worker.ml_client
        state = await client.state()
        if state is not MEANINGS[duty].node_state:
            return state, False
        if state is MLNodeState.POW:
            status = (await client.pow_status()).status
            return status, status in MEANINGS[duty].pow_states
        if state is MLNodeState.INFERENCE:
            return await self._look_at_inference()
        return state, True

    async def _look_at_inference(self) -> tuple[str, bool]:
        """Ask for its health.

        To stop a node that is only busy would cost minutes, so one bad answer is not enough; and none at all may be a
        port that cannot be reached from here.
        """
        try:
            await self.worker.ml_client.inference_health(self.worker.node.inference_url)
        except MLNodeError as error:
            if error.status is None:
                raise
            self._sick_looks += 1
            if self._sick_looks < _SICK_LOOKS:
                raise
            return "INFERENCE, not healthy", False
        self._sick_looks = 0
        return MLNodeState.INFERENCE, True

    def _looked(self, result: tuple[str, bool] | Failure) -> None:
        self._looking = None
        self._looked_at = self._reactor.seconds()
        if not self._is_there():
            # Somebody wants something else meanwhile, or did.
            self._act()
        elif isinstance(result, Failure):
            self._could_not_look(result)
        else:
            current, is_there = result
            self._say(current)
            self._last_error = None
            if not is_there:
                self.log.warn(
                    "{node_id}: found {current}, where it is to {duty}",
                    node_id=self.worker.node.id,
                    current=current,
                    duty=self._intention.duty if self._intention is not None else None,
                )
                self._achieved = None
                self._act()

    def _could_not_look(self, failure: Failure) -> None:
        if self._has_left or failure.check(CancelledError):
            return
        error = failure.getErrorMessage()
        if not failure.check(MLNodeError):
            self.log.failure("{node_id}: looking at it has a defect", failure, node_id=self.worker.node.id)
        elif error != self._last_error:
            self.log.warn(
                "{node_id}: not known whether it still does what it is to: {error}",
                node_id=self.worker.node.id,
                error=error,
            )
        self._say(None)
        self._last_error = error
        self._timer.start(self._retry_delay())

    def _say(self, current: str | None) -> None:
        if current != self._current:
            self._current, self._since = current, self._reactor.seconds()

    def _timer_fired(self) -> None:
        self._is_resting = False
        self._looked_at = float("-inf")
        self._act()
