"""All workers, by the id of their node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.logger import Logger

from dapi.broker.node_worker import NodeWorker
from dapi.broker.node_worker_commands import Command, CommandResult
from dapi.broker.nodes import Node


class NodeWorkGroup(MultiService):
    """Owns the workers: one for each node, side by side.

    A change is effective when its call returns: the worker in the books is the new one and takes commands. What is
    left to do for it goes on in the background: the old worker of a node stops, and only when nothing is left of it
    does the new one start, since a node knows one WebSocket client at a time.
    """

    log = Logger()

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._workers: dict[str, NodeWorker] = {}
        self._turns: defaultdict[str, DeferredLock] = defaultdict(DeferredLock)
        self._in_background: set[Deferred[None]] = set()

    def stopService(self) -> Deferred[None]:
        """Stop all workers, side by side; fires when nothing of them is left, older ones included."""
        # Not left to MultiService: it knows nothing of workers that wait for their start, and hides failures.
        self.running = False
        return Deferred.fromCoroutine(self._stop())

    def workers(self) -> list[NodeWorker]:
        """Return the workers, by the number of their node."""
        return sorted(self._workers.values(), key=lambda worker: worker.node.num)

    def get(self, node_id: str) -> NodeWorker | None:
        """Return a node's worker."""
        return self._workers.get(node_id)

    def get_by_num(self, num: int) -> NodeWorker | None:
        """Return the worker of the node with this number; every callback asks for one."""
        return next((worker for worker in self._workers.values() if worker.node.num == num), None)

    def put(self, worker: NodeWorker) -> None:
        """Make a worker its node's, in place of an older one."""
        self.remove(worker.node.id)
        self._workers[worker.node.id] = worker
        self._go_on(worker.node.id, self._start(worker))

    def remove(self, node_id: str) -> None:
        """Let go of a node's worker, if it has one."""
        worker = self._workers.pop(node_id, None)
        if worker is not None:
            self._go_on(node_id, self._retire(worker))

    def submit_all(self, make_command: Callable[[Node], Command]) -> Deferred[dict[str, CommandResult]]:
        """Give each enabled node a command; fires with all results, by node id, when the last is there."""
        answers = {
            worker.node.id: worker.submit(make_command(worker.node)) for worker in self.workers() if worker.node.enabled
        }
        return Deferred.fromCoroutine(_gathered(answers))

    async def _start(self, worker: NodeWorker) -> None:
        if self._workers.get(worker.node.id) is worker:
            worker.setServiceParent(self)  # type: ignore[no-untyped-call]

    async def _retire(self, worker: NodeWorker) -> None:
        if worker.parent is not None:
            self.services.remove(worker)
            worker.parent = None
        await maybeDeferred(worker.stopService)

    async def _stop(self) -> None:
        stopping = {worker.node.id: maybeDeferred(worker.stopService) for worker in self.workers()}
        for node_id, stopped in stopping.items():
            try:
                await stopped
            except Exception:  # noqa: BLE001 - the others have to be stopped all the same
                self.log.failure("{node_id}: the worker did not stop properly", node_id=node_id)
        while self._in_background:
            await next(iter(self._in_background))

    def _go_on(self, node_id: str, doing: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do something in the background, after all that was begun for the same node before."""

        async def in_turn() -> None:
            async with self._turns[node_id]:
                await doing

        done = Deferred.fromCoroutine(in_turn())
        done.addErrback(
            lambda failure: self.log.failure("{node_id}: changing the worker failed", failure, node_id=node_id)
        )
        self._in_background.add(done)
        done.addCallback(lambda _: self._in_background.discard(done))


async def _gathered(answers: dict[str, Deferred[CommandResult]]) -> dict[str, CommandResult]:
    return {node_id: await answer for node_id, answer in answers.items()}
