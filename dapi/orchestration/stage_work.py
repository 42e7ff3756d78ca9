"""What each node should do in the stage that is under way: pure, but for the deliveries and silences it remembers."""

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

# A node delivers all that it has one after the other, every 5 s: after a pause as long as this, nothing more is coming.
QUIET_SECONDS = 2.0

_INFERENCE = Intention(Duty.INFERENCE)
_STOPPED = Intention(Duty.STOPPED)

_log = Logger()


@attrs.define
class _Deliveries:
    """How many batches of a node were stored when generation ended, how many since, and when that was new."""

    at_the_end: int
    now: int
    since: float
    are_complete: bool = False


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
        self._deliveries: dict[str, _Deliveries] = {}
        self._to_stop: set[str] = set()

    def stop_once(self, node_id: str) -> None:
        """Have a node stopped, and then do its duty again: it took batches to validate, and answers nothing."""
        self._to_stop.add(node_id)

    def stopped(self, node_id: str) -> None:
        """Note that a node was stopped."""
        self._to_stop.discard(node_id)

    def intentions(self, workers: Iterable[NodeWorker], height: int, now: float) -> dict[str, Intention]:
        """Return what each node should do when the latest block is ``height``, by node id; ``now`` in seconds."""
        return {worker.node.id: self._intention(worker, height, now) for worker in workers}

    def warnings(self, nodes: Iterable[Node]) -> dict[object, str]:
        """Say in words which nodes work for nothing: the chain tells nodes apart by their ids alone, whosever they are.

        Fact: docs/protocol/chain.md, 'Weight'.
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

    def _intention(self, worker: NodeWorker, height: int, now: float) -> Intention:
        node, stage = worker.node, self.record.stage
        duty = stage.duty(height)
        if not self._takes_part(node) or duty is Duty.INFERENCE:
            return _INFERENCE
        if node.id in self._to_stop:
            return _STOPPED
        if stage.is_time_to_switch(height) and self._has_delivered_all(worker, now):
            duty = Duty.VALIDATE
        return Intention(
            duty,
            block_height=stage.height,
            block_hash=self.block_hash,
            public_key=self._public_key,
            node_count=self.record.node_count,
        )

    def _has_delivered_all(self, worker: NodeWorker, now: float) -> bool:
        """Tell whether the node has delivered since the end of generation, and then paused.

        The first delivery need not be the last: one that could not reach dapi for a while has more to bring.
        """
        # A batch that was refused comes again, and a double of an older one says nothing about what is left.
        stored = worker.batch_handler.counts.stored
        deliveries = self._deliveries.setdefault(worker.node.id, _Deliveries(stored, stored, now))
        if stored != deliveries.now:
            deliveries.now, deliveries.since = stored, now
        if stored > deliveries.at_the_end and now - deliveries.since >= QUIET_SECONDS:
            # For good: what comes later must not have it generate again.
            deliveries.are_complete = True
        return deliveries.are_complete


async def begin_work(rpc: ChainRpc, record: StageRecord, info: EpochInfo, public_key: str) -> StageWork | None:
    """Ask the chain what the nodes have to know of a stage; None: it does not tell a confirmation's block hash yet.

    ``public_key`` is the participant's, in hex. Raises ChainError.
    """
    stage = record.stage
    if stage.is_confirmation:
        # The chain tells it at the end of the block in which generation starts; nodes seed with it to the letter.
        block_hash = info.confirmation.seed_block_hash if info.confirmation is not None else ""
    else:
        block_hash = (await rpc.block(stage.height)).hash
    if not block_hash:
        return None
    # In a regular PoC the latest epoch is the one to come: who serves inference is said by the one before.
    current_epoch = stage.epoch_index if stage.is_confirmation else stage.epoch_index - 1
    preserved = PreservedNodes()
    if current_epoch > 0:
        preserved = await preserved_nodes(rpc, current_epoch, address_of(public_key))
    _log.info(
        "{what} of epoch {epoch} is under way: stage {height}, {preserved} nodes stay in inference",
        what="confirmation PoC" if stage.is_confirmation else "PoC",
        epoch=stage.epoch_index,
        height=stage.height,
        preserved=len(preserved.own),
    )
    return StageWork(record, block_hash, public_key, preserved)
