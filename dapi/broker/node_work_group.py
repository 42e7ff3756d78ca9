"""All workers, by the id of their node."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger

from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Address


class NodeWorkGroup(MultiService):
    """Owns the workers: one for each node, side by side.

    ``put`` and ``remove`` take effect when they return: from then on the node's worker is the new one, and accepts
    commands. The rest follows in the background: the old worker stops, and the new one starts when nothing is left of
    the old one, since a node knows one WebSocket client at a time.
    """

    log = Logger()

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._workers: dict[str, NodeWorker] = {}
        # Every callback asks for a number, every new node whether its address is free.
        self._by_num: dict[int, NodeWorker] = {}
        self._by_address: dict[Address, NodeWorker] = {}
        # By node, the last that was begun for it; each waits for the one before it.
        self._in_background: dict[str, Deferred[None]] = {}

    def stopService(self) -> Deferred[None]:
        """Stop all workers, side by side; fires when nothing is left of them, nor of older ones."""
        # MultiService would not know of workers that wait for their start, and would hide failures.
        self.running = False
        return Deferred.fromCoroutine(self._stop())

    def workers(self) -> list[NodeWorker]:
        """Return the workers, by the number of their node."""
        return sorted(self._workers.values(), key=lambda worker: worker.node.num)

    def get(self, node_id: str) -> NodeWorker | None:
        """Return a node's worker."""
        return self._workers.get(node_id)

    def get_by_num(self, num: int) -> NodeWorker | None:
        """Return the worker of the node with this number."""
        return self._by_num.get(num)

    def get_by_address(self, address: Address) -> NodeWorker | None:
        """Return the worker of the node that is reached there."""
        return self._by_address.get(address)

    def put(self, worker: NodeWorker) -> None:
        """Make a worker its node's, in place of an older one."""
        self.remove(worker.node.id)
        self._workers[worker.node.id] = worker
        self._by_num[worker.node.num] = worker
        self._by_address[worker.node.config.address] = worker
        self._do_in_turn(worker.node.id, self._start(worker))

    def remove(self, node_id: str) -> None:
        """Let go of a node's worker, if it has one."""
        worker = self._workers.pop(node_id, None)
        if worker is not None:
            del self._by_num[worker.node.num]
            self._by_address.pop(worker.node.config.address, None)
            self._do_in_turn(node_id, self._retire(worker))

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
            await next(iter(self._in_background.values()))

    def _do_in_turn(self, node_id: str, doing: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do something in the background, after all that was begun for the same node before."""
        before = self._in_background.get(node_id, succeed(None))

        async def do_in_turn() -> None:
            await before
            await doing

        def forget(_result: None) -> None:
            if self._in_background[node_id] is done:
                del self._in_background[node_id]

        done = Deferred.fromCoroutine(do_in_turn())
        done.addErrback(
            lambda failure: self.log.failure("{node_id}: changing the worker failed", failure, node_id=node_id)
        )
        self._in_background[node_id] = done
        done.addCallback(forget)
