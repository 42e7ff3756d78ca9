"""Holds what each node is intended to do, and one NodeReconciler for each node, which brings it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from dapi.broker.broker import Broker
from dapi.broker.command_round import NODES_A_TURN
from dapi.broker.duties import Intention
from dapi.broker.node_reconciler import ASK_SECONDS, NodeReconciler, NodeStanding
from dapi.broker.node_worker import NodeWorker
from dapi.broker.switch_log import SwitchLog
from dapi.errors import NotReadyError
from dapi.phases.duty import Duty
from dapi.timing.timer import Timer

# To ask a node what it does, by two calls, takes a millisecond: this is a tenth of the reactor's time at most.
_ASKED_A_SECOND = 100


class Reconciler(Service):
    """Gives each enabled node the command for its intention, and asks the node whether it still does its duty.

    One command is under way for a node at a time; a newer intention cancels the older one's command. A command that
    failed is given again after ``retry_delay()`` seconds, for ever. A node that does its duty is asked again a few
    seconds after it began, at each ``reconcile`` (not more often than every 5 s; where there are more than 500 nodes,
    100 of them a second) and every ``poll_seconds``. A node that does something else, or was given another command,
    gets its command again. Of many nodes, 8 are looked at in one turn of the reactor, and the others in the next ones.

    What was achieved is not stored: after a restart each command is given again, and an equal init disturbs no node.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        broker: Broker,
        retry_delay: Callable[[], float],
        *,
        poll_seconds: float = 30.0,
    ) -> None:
        self._reactor = reactor
        self._broker = broker
        self._retry_delay = retry_delay
        self._poll_seconds = poll_seconds
        self._polling = LoopingCall(self.reconcile)
        self._polling.clock = reactor
        self._intentions: dict[str, Intention] = {}
        self._nodes: dict[str, NodeReconciler] = {}
        # The ids of those that are still to be looked at, in their order.
        self._due: dict[str, None] = {}
        self._next_turn = Timer(reactor, 0, self._look_at_some)
        self._switch_log = SwitchLog(reactor)
        broker.observe_changes(self.reconcile)

    def startService(self) -> None:
        """Begin with the intentions that were set before."""
        if not self.running:
            super().startService()  # type: ignore[no-untyped-call]
            self._polling.start(self._poll_seconds).addErrback(
                lambda failure: self.log.failure("reconciling has a defect", failure)
            )

    def stopService(self) -> Deferred[None]:
        """Give no more commands; those under way are left to the workers. Fires when nothing is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._polling.running:
            self._polling.stop()
        self._next_turn.cancel()
        self._due.clear()
        self._switch_log.flush()
        leaving = DeferredList([node.leave() for node in self._nodes.values()])
        self._nodes.clear()
        return leaving.addCallback(lambda _results: None)

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
            # The broker calls again when it has loaded them.
            return
        for node_id, node in list(self._nodes.items()):
            if workers.get(node_id) is not node.worker:
                self._nodes.pop(node_id).leave()
                self._switch_log.forget(node_id)
        for node_id, worker in workers.items():
            if node_id not in self._nodes:
                self._nodes[node_id] = NodeReconciler(
                    self._reactor,
                    worker,
                    self._broker.command_for,
                    self._retry_delay,
                    self._switch_log.switched,
                    self._ask_seconds,
                )
        # Those that wait keep their place, however often this is called.
        self._due.update(dict.fromkeys(self._nodes))
        if not self._next_turn.is_running:
            self._look_at_some()

    def _ask_seconds(self) -> float:
        return max(ASK_SECONDS, len(self._nodes) / _ASKED_A_SECOND)

    def _look_at_some(self) -> None:
        for node_id in list(islice(self._due, NODES_A_TURN)):
            del self._due[node_id]
            node = self._nodes.get(node_id)
            try:
                if node is not None:
                    node.reconcile(self._intentions.get(node_id))
            except Exception:  # noqa: BLE001 - a defect in one must not keep the other nodes from their duties
                self.log.failure("{node_id}: reconciling has a defect", node_id=node_id)
        if self._due and self.running:
            self._next_turn.start()

    def status(self) -> dict[str, NodeStanding]:
        """Return where each node stands, by node id."""
        return {node_id: node.standing() for node_id, node in self._nodes.items()}

    def workers_at(self, duty: Duty) -> list[NodeWorker]:
        """Return the workers of the nodes that were brought to this duty, and are intended to do it."""
        return [node.worker for node in self._nodes.values() if node.is_at(duty)]

    def validators(self) -> list[NodeWorker]:
        """Return the workers of the nodes that validate, without those of which that has not been known for 10 s."""
        nodes = self._nodes.values()
        return [node.worker for node in nodes if node.is_at(Duty.VALIDATE) and not node.is_away()]
