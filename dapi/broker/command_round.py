"""One command by hand to all nodes that are enabled: given to some in each turn of the reactor, followed to its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from dapi.broker.node_worker import NodeWorker
from dapi.broker.node_worker_commands import Command, CommandResult, NodeFailure
from dapi.broker.nodes import Node
from dapi.errors import DapiError
from dapi.phases.duty import Duty
from dapi.timing.clock import unix_seconds
from dapi.timing.timer import Timer
from dapi.timing.waiters import Waiters

# To begin a call to a node takes about a millisecond.
NODES_A_TURN = 8


class RoundProgress(msgspec.Struct, frozen=True):
    """How far a command to all nodes is: at how many it ``succeeded``, ``failed``, or is ``pending``.

    ``began_at`` is in unix seconds.
    """

    duty: Duty
    began_at: float
    nodes: int
    succeeded: int
    failed: int
    pending: int


class CommandRound:
    """Gives the nodes of ``workers`` the command for a duty, which ``make_command`` makes when a node's turn has come.

    Thousands of nodes take longer than anybody waits for an answer, so the reactor turns in between. An error of ours
    that ``make_command`` raises is the result of this node: the command is not executed.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        duty: Duty,
        workers: Iterable[NodeWorker],
        make_command: Callable[[Node], Command],
    ) -> None:
        self._duty = duty
        self._make_command = make_command
        self._left = deque(workers)
        self._began_at = unix_seconds(clock)
        # By node, in their order; None where the command has not ended yet.
        self._results: dict[str, CommandResult | None] = {worker.node.id: None for worker in self._left}
        self._succeeded = self._failed = 0
        self._next_turn = Timer(clock, 0, self._give_some)
        self._when_ended: Waiters[dict[str, CommandResult]] = Waiters()

    def begin(self) -> None:
        """Give the command to the first nodes, and to the others in the next turns of the reactor."""
        self._give_some()

    def end(self, reason: str) -> None:
        """Give the command to no more nodes: at those that do not have it yet it has failed, with this reason."""
        self._next_turn.cancel()
        while self._left:
            self._not_executed(self._left.popleft().node.id, reason)

    def ended(self) -> Deferred[dict[str, CommandResult]]:
        """Fire with the results by node id when the command has ended everywhere."""
        return self._when_ended.wait() if self._pending else succeed(self._ended_results())

    def results(self) -> dict[str, CommandResult | None]:
        """Return how the command has ended, by node id; None where it has not ended yet."""
        return dict(self._results)

    def progress(self) -> RoundProgress:
        """Return how far it is."""
        return RoundProgress(
            self._duty, self._began_at, len(self._results), self._succeeded, self._failed, self._pending
        )

    @property
    def _pending(self) -> int:
        return len(self._results) - self._succeeded - self._failed

    def _give_some(self) -> None:
        for _ in range(min(NODES_A_TURN, len(self._left))):
            worker = self._left.popleft()
            node_id = worker.node.id
            try:
                given = worker.submit(self._make_command(worker.node))
            except DapiError as error:
                self._not_executed(node_id, str(error))
                continue
            except Exception as error:  # noqa: BLE001 - a defect in one must not keep the command from the other nodes
                self.log.failure("{node_id}: giving a command has a defect", node_id=node_id)
                self._end(node_id, CommandResult.failed(f"{node_id}: {error}", NodeFailure.DEFECT))
                continue
            given.addCallback(partial(self._end, node_id))
            given.addErrback(lambda failure: self.log.failure("following a command has a defect", failure))
        if self._left:
            self._next_turn.start()

    def _not_executed(self, node_id: str, reason: str) -> None:
        self._end(node_id, CommandResult.failed(f"{node_id}: not executed: {reason}", NodeFailure.NOT_EXECUTED))

    def _end(self, node_id: str, result: CommandResult) -> None:
        self._results[node_id] = result
        if result.succeeded:
            self._succeeded += 1
        else:
            self._failed += 1
        if not self._pending:
            self._when_ended.fire(self._ended_results())

    def _ended_results(self) -> dict[str, CommandResult]:
        return {node_id: result for node_id, result in self._results.items() if result is not None}


class CommandRounds:
    """Has one command by hand follow the other; ``last`` is that which began last."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.last: CommandRound | None = None

    def begin(self, duty: Duty, workers: Iterable[NodeWorker], make_command: Callable[[Node], Command]) -> CommandRound:
        """Begin a round; the one before it comes to no node any more, or a node would get the older command later."""
        self.end("superseded by a later command")
        self.last = CommandRound(self._clock, duty, workers, make_command)
        self.last.begin()
        return self.last

    def end(self, reason: str) -> None:
        """End the giving, for this reason."""
        if self.last is not None:
            self.last.end(reason)
