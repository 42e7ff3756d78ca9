"""What each node does in the stage that is under way: a function of the height, and of what was seen of the node."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from twisted.logger import Logger

from dapi.broker.duties import Intention
from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Node
from dapi.chain.rpc import ChainRpc
from dapi.messages.addresses import address_of
from dapi.orchestration.stages import StageRecord
from dapi.phases.duty import Duty
from dapi.phases.phases import EpochInfo
from dapi.phases.stage_queries import PreservedNodes, preserved_nodes

# A node delivers one batch right after the other, every 5 s: after so long a pause it has delivered all.
QUIET_SECONDS = 2.0

_log = Logger()


@attrs.define
class _Deliveries:
    """How many batches of a node were stored when generation ended, how many are now, and since when."""

    at_the_end: int
    now: int
    since: float
    are_complete: bool = False


class StageWork:
    """The nodes' part in one stage; ``record`` may be replaced by a newer one of the same stage.

    ``block_hash`` is the text that the nodes seed their computation with, ``public_key`` the participant's in hex. The
    ``preserved`` nodes serve inference during PoC, too (POC_SLOT).
    """

    def __init__(self, record: StageRecord, block_hash: str, public_key: str, preserved: PreservedNodes) -> None:
        self.record = record
        self.block_hash = block_hash
        self._preserved = preserved
        self._public_key = public_key
        self._deliveries: dict[str, _Deliveries] = {}
        self._to_stop: set[str] = set()

    def stop_once(self, node_id: str) -> None:
        """Have a node stopped, after which it does its duty again: it takes batches, and gives no verdicts."""
        self._to_stop.add(node_id)

    def record_stop(self, node_id: str) -> None:
        """Record that a node has stopped."""
        self._to_stop.discard(node_id)

    def intentions(self, workers: Iterable[NodeWorker], height: int, now: float) -> dict[str, Intention]:
        """Return what each node is to do when the latest block is ``height``, by node id; ``now`` in seconds."""
        return {worker.node.id: self._intention(worker, height, now) for worker in workers}

    def warnings(self, nodes: Iterable[Node]) -> dict[object, str]:
        """Say in words which nodes work for nothing: the chain compares the bare ids of all participants' nodes.

        Source: docs/protocol/chain.md, 'Weight'.
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
        # A node that was added later joins at the next stage: another node count would restart all other nodes.
        return node.id not in self._preserved.own and node.num < self.record.node_count

    def _intention(self, worker: NodeWorker, height: int, now: float) -> Intention:
        node, stage = worker.node, self.record.stage
        duty = stage.duty(height)
        if not self._takes_part(node) or duty is Duty.INFERENCE:
            return Intention(Duty.INFERENCE)
        if node.id in self._to_stop:
            return Intention(Duty.STOPPED)
        if stage.is_time_to_switch(height) and self._has_delivered_all(worker, now):
            duty = Duty.VALIDATE
        return Intention(duty, stage.height, self.block_hash, self._public_key, self.record.node_count)

    def _has_delivered_all(self, worker: NodeWorker, now: float) -> bool:
        """Tell whether the node has delivered since generation ended, and has paused since then.

        Its first delivery need not be its last: a node that could not reach dapi for a while has more.
        """
        # Doubles say nothing about what is left, and a node delivers again what was not stored.
        stored = worker.batch_handler.counts.stored
        deliveries = self._deliveries.setdefault(worker.node.id, _Deliveries(stored, stored, now))
        if stored != deliveries.now:
            deliveries.now, deliveries.since = stored, now
        if stored > deliveries.at_the_end and now - deliveries.since >= QUIET_SECONDS:
            # For good: a later batch must not have it generate again.
            deliveries.are_complete = True
        return deliveries.are_complete


async def begin_work(rpc: ChainRpc, record: StageRecord, info: EpochInfo, public_key: str) -> StageWork | None:
    """Ask the chain for what the nodes need in a stage; None while it tells no block hash. Raises ChainError."""
    stage = record.stage
    if stage.is_confirmation:
        # Empty until the end of the block in which generation starts. A hash stays as the chain writes it: nodes seed
        # their computation with its text.
        block_hash = info.confirmation.seed_block_hash if info.confirmation is not None else ""
    else:
        block_hash = (await rpc.block(stage.height)).hash
    if not block_hash:
        return None
    # During a regular PoC the epoch in force is the one before: the stage's own epoch has no nodes yet.
    epoch = stage.epoch_index if stage.is_confirmation else stage.epoch_index - 1
    preserved = await preserved_nodes(rpc, epoch, address_of(public_key)) if epoch > 0 else PreservedNodes()
    _log.info(
        "{what} of epoch {epoch} is under way: stage {height}, {preserved} nodes stay in inference",
        what="confirmation PoC" if stage.is_confirmation else "PoC",
        epoch=stage.epoch_index,
        height=stage.height,
        preserved=len(preserved.own),
    )
    return StageWork(record, block_hash, public_key, preserved)
