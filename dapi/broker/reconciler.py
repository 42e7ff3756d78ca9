"""Where each node is intended to be, and the one that brings it there."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from dapi.broker.broker import Broker
from dapi.broker.duties import Intention
from dapi.broker.node_reconciler import NodeReconciler, NodeStanding
from dapi.broker.node_worker import NodeWorker
from dapi.errors import NotReadyError
from dapi.phases.duty import Duty


class Reconciler(Service):
    """Gives each enabled node the command that its intention asks for, and looks whether the node stays there.

    Nothing is sent twice while one is under way; a newer intention cancels the older one's command; what failed is
    tried again after ``retry_seconds`` (uniform between the two), for ever. A node that is where it belongs is asked so
    a few seconds after it got there, then at each ``reconcile``, though not more often than every 5 s, and every
    ``poll_seconds``; one found elsewhere gets its command anew. So does one that anybody else gave a command to.

    What was achieved is not kept over a restart: the commands are given again, and an equal init disturbs no node.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        broker: Broker,
        *,
        random: Random,
        poll_seconds: float = 30.0,
        retry_seconds: tuple[float, float] = (3.0, 5.0),
    ) -> None:
        self._reactor = reactor
        self._broker = broker
        self._random = random
        self._retry_seconds = retry_seconds
        self._poll_seconds = poll_seconds
        self._polling = LoopingCall(self.reconcile)
        self._polling.clock = reactor
        self._intentions: dict[str, Intention] = {}
        self._nodes: dict[str, NodeReconciler] = {}
        broker.observe_changes(self.reconcile)

    def startService(self) -> None:
        """Begin with what is intended."""
        if not self.running:
            super().startService()  # type: ignore[no-untyped-call]
            self._polling.start(self._poll_seconds).addErrback(
                lambda failure: self.log.failure("reconciling has a defect", failure)
            )

    def stopService(self) -> Deferred[None]:
        """Give no command any more; those under way are left to the nodes' workers. Fires when nothing is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._polling.running:
            self._polling.stop()
        leaving = [node.leave() for node in self._nodes.values()]
        self._nodes.clear()
        return Deferred.fromCoroutine(_all_of(leaving))

    def intend(self, intentions: Mapping[str, Intention]) -> None:
        """Replace all intentions, by node id, and act on them at once; nodes that are not named are left alone."""
        self._intentions = dict(intentions)
        self.reconcile()

    def reconcile(self) -> None:
        """Do what is due for each node; called at each block, and harmless at any time."""
        if not self.running:
            return
        try:
            workers = {worker.node.id: worker for worker in self._broker.workers()}
        except NotReadyError:
            # The broker calls when it has loaded them.
            return
        for node_id, node in list(self._nodes.items()):
            if workers.get(node_id) is not node.worker:
                self._nodes.pop(node_id).leave()
        for node_id, worker in workers.items():
            if node_id not in self._nodes:
                self._nodes[node_id] = NodeReconciler(
                    self._reactor, worker, self._broker.command_for, self._retry_delay
                )
        for node_id, node in list(self._nodes.items()):
            node.reconcile(self._intentions.get(node_id))

    def status(self) -> dict[str, NodeStanding]:
        """Tell where each node stands, by node id."""
        return {node_id: node.standing() for node_id, node in self._nodes.items()}

    def workers_at(self, duty: Duty) -> list[NodeWorker]:
        """Return the workers of the nodes that are where they are intended to be, with this duty."""
        return [node.worker for node in self._nodes.values() if node.is_at(duty)]

    def warnings(self) -> dict[str, str]:
        """Say in words, by node id, which nodes were to generate for the last 60 s without a batch from them."""
        return {node_id: said for node_id, node in self._nodes.items() if (said := node.warning()) is not None}

    def _retry_delay(self) -> float:
        return self._random.uniform(*self._retry_seconds)


async def _all_of(leaving: list[Deferred[None]]) -> None:
    for left in leaving:
        await left
