"""The rehearsals of all nodes: begins one, and remembers the last one of each node."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from dapi.broker.broker import Broker
from dapi.broker.duties import Intention
from dapi.broker.node_worker import NodeWorker
from dapi.broker.node_worker_commands import CommandResult, InferenceUpCommand, InitValidateCommand, StartPocCommand
from dapi.broker.rehearsal import RehearsalState, RehearsalStatus, RehearsalTimes, RehearseCommand
from dapi.errors import NotReadyError, UnknownNodeError
from dapi.phases.duty import Duty
from dapi.poc.rehearsal import HEIGHT, PUBLIC_KEY, made_up_hash
from dapi.timing.clock import unix_seconds


class Rehearsals:
    """Rehearses PoC on single nodes.

    ``brings_back`` says that a node which served inference before is to be given the command for that afterwards: where
    the nodes follow the chain, that comes anyway.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactorTime, broker: Broker, *, brings_back: bool, times: RehearsalTimes | None = None
    ) -> None:
        self.times = times or RehearsalTimes()
        self._reactor = reactor
        self._broker = broker
        self._brings_back = brings_back
        self._last: dict[str, RehearseCommand] = {}

    def begin(self, node_id: str) -> RehearsalStatus:
        """Begin a rehearsal on a node, enabled or not; it goes on by itself.

        Raises UnknownNodeError, and NotReadyError when the node is rehearsing already, does proof of work, waits for
        other commands, or may be given no command now.
        """
        worker = self._worker(node_id)
        reason = self._broker.why_no_command() or _why_not_now(worker)
        last = self._last.get(node_id)
        if last is not None and last.state is RehearsalState.RUNNING:
            reason = "a test of it is under way already"
        if reason is not None:
            raise NotReadyError(f"{node_id}: not tested: {reason}")
        made_up = made_up_hash(int(unix_seconds(self._reactor) * 1000))
        intention = Intention(Duty.GENERATE, HEIGHT, made_up, PUBLIC_KEY, self._broker.node_count)
        init = self._broker.command_for(worker.node, intention)
        assert isinstance(init, StartPocCommand)  # noqa: S101 - what GENERATE means
        command = self._last[node_id] = RehearseCommand(self._reactor, init.request, worker.batch_handler, self.times)
        self.log.info("{node_id}: PoC is rehearsed", node_id=node_id)
        ended = worker.submit(command)
        ended.addCallback(self._ended, worker, command)
        ended.addErrback(lambda failure: self.log.failure("{node_id}: a test has a defect", failure, node_id=node_id))
        return command.status()

    def status(self, node_id: str) -> RehearsalStatus:
        """Return how far the last rehearsal on a node is; raises UnknownNodeError when there was none."""
        self._worker(node_id)
        if node_id not in self._last:
            raise UnknownNodeError(f"{node_id} was not tested since dapi started")
        return self._last[node_id].status()

    def _worker(self, node_id: str) -> NodeWorker:
        workers = {worker.node.id: worker for worker in self._broker.workers()}
        for gone in self._last.keys() - workers.keys():
            del self._last[gone]
        if node_id not in workers:
            raise UnknownNodeError(f"no node has the id {node_id!r}")
        return workers[node_id]

    def _ended(self, result: CommandResult, worker: NodeWorker, command: RehearseCommand) -> None:
        if command.state is RehearsalState.RUNNING:
            # It never began.
            command.turn(RehearsalState.CUT_SHORT)
        self.log.info(
            "{node_id}: the rehearsal has {state}{error}",
            node_id=worker.node.id,
            state=command.state.value,
            error=f": {result.error}" if result.error else "",
        )
        is_idle = command is worker.last_begun
        if self._brings_back and command.was_serving and is_idle and command.state is not RehearsalState.CUT_SHORT:
            worker.submit(InferenceUpCommand()).addErrback(
                lambda failure: self.log.failure("bringing inference up has a defect", failure)
            )


def _why_not_now(worker: NodeWorker) -> str | None:
    status = worker.status()
    if status.command is not None:
        return f"{status.command} is under way: try again later, or disable the node before"
    last = worker.last_begun
    if isinstance(last, StartPocCommand | InitValidateCommand):
        return "it does proof of compute: `dapi poc stop`, or wait for the end of PoC"
    return None
