"""What each node should do in the stage that is under way: pure, but for what it remembers of deliveries."""

from __future__ import annotations

from collections.abc import Iterable

from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Node
from dapi.broker.reconciler import Intention, NodeDuty
from dapi.chain.phases import Duty
from dapi.chain.stage_queries import PreservedNodes
from dapi.chain.stages import StageRecord

_INFERENCE = Intention(NodeDuty.INFERENCE)
_STOPPED = Intention(NodeDuty.STOPPED)


class StageWork:
    """The nodes' part in one stage.

    ``preserved`` are the nodes that serve inference all the time (POC_SLOT), ``block_hash`` is the text that the nodes
    seed their computation with.
    """

    def __init__(self, record: StageRecord, block_hash: str, public_key: str, preserved: PreservedNodes) -> None:
        self.record = record
        self.block_hash = block_hash
        self._public_key = public_key
        self._preserved = preserved
        self._delivered_at_the_end: dict[str, int] = {}
        self._to_stop: set[str] = set()

    def stop_once(self, node_id: str) -> None:
        """Have a node stopped, and then do its duty again: it took batches to validate, and answers nothing."""
        self._to_stop.add(node_id)

    def stopped(self, node_id: str) -> None:
        """Note that a node was stopped."""
        self._to_stop.discard(node_id)

    def intentions(self, workers: Iterable[NodeWorker], height: int) -> dict[str, Intention]:
        """Return what each node should do when the latest block is ``height``, by node id."""
        duty = self.record.stage.duty(height)
        return {worker.node.id: self._intention(worker, duty) for worker in workers}

    def warnings(self, nodes: Iterable[Node]) -> dict[object, str]:
        """Say in words which nodes work for nothing: the chain tells nodes apart by their ids alone, whosever they are.

        Fact: trap T17 of ``chain-details.md``.
        """
        height = self.record.stage.height
        return {
            (node.id, height): (
                f"{node.id}: another participant's node of this id serves inference during PoC (POC_SLOT), so the chain"
                f" drops all batches of ours in stage {height} without a word: give it an id that nobody else has"
            )
            for node in nodes
            if node.enabled and self._takes_part(node) and node.id in self._preserved.others
        }

    def _takes_part(self, node: Node) -> bool:
        # Another node count would restart the nodes that work already: who came later joins at the next stage.
        return node.id not in self._preserved.own and node.num < self.record.node_count

    def _intention(self, worker: NodeWorker, duty: Duty) -> Intention:
        node = worker.node
        if not self._takes_part(node) or duty is Duty.INFERENCE:
            return _INFERENCE
        if node.id in self._to_stop:
            return _STOPPED
        if duty is Duty.SWITCH:
            duty = Duty.VALIDATE if self._has_delivered_since_the_end(worker) else Duty.GENERATE
        return Intention(
            NodeDuty.VALIDATE if duty is Duty.VALIDATE else NodeDuty.GENERATE,
            block_height=self.record.stage.height,
            block_hash=self.block_hash,
            public_key=self._public_key,
            node_count=self.record.node_count,
        )

    def _has_delivered_since_the_end(self, worker: NodeWorker) -> bool:
        # A batch that was refused comes again, and a double of an older one is not the node's last.
        delivered = worker.batch_handler.counts.stored
        return delivered > self._delivered_at_the_end.setdefault(worker.node.id, delivered)
