"""What each node does in the stage that is under way: a function of the height, and of what was seen of the node."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from twisted.logger import Logger

from dapi.broker.duties import Intention
from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Node
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainError, ChainRefusedError
from dapi.messages.addresses import address_of
from dapi.orchestration.stages import StageRecord
from dapi.phases.duty import Duty
from dapi.phases.phases import EpochInfo
from dapi.phases.stage_queries import PreservedNodes, preserved_nodes

# A node delivers one batch right after the other, every 5 s: after so long a pause it has delivered all.
QUIET_SECONDS = 2.0
# For one of these parts of generation, the nodes wait for the chain to tell which of them take part.
_PARTS_OF_GENERATION = 4

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
    ``preserved`` nodes serve inference during PoC, too (POC_SLOT); None while the chain has not told them, which is as
    if there were none. ``preserved_problem`` says why they are not known, so that all nodes take part.
    """

    def __init__(
        self, record: StageRecord, block_hash: str, public_key: str, preserved: PreservedNodes | None = None
    ) -> None:
        self.record = record
        self.block_hash = block_hash
        self._preserved = preserved or PreservedNodes()
        self._is_preserved_known = preserved is not None
        self.preserved_problem: str | None = None
        self._public_key = public_key
        self._deliveries: dict[str, _Deliveries] = {}
        self._to_stop: set[str] = set()

    @property
    def preserved_count(self) -> int:
        """How many of the participant's nodes stay in inference, as far as is known."""
        return len(self._preserved.own)

    async def learn_preserved(self, rpc: ChainRpc, height: int) -> None:
        """Ask the chain which nodes stay in inference, unless it has told; ``height`` is the latest block's.

        While it does not answer, this raises ChainError for the first quarter of generation. After that, and when it
        refuses to tell, all nodes take part: a stage without any would cost more than one without inference.
        """
        stage = self.record.stage
        # During a regular PoC the epoch in force is the one before: the stage's own epoch has no nodes yet.
        epoch = stage.epoch_index if stage.is_confirmation else stage.epoch_index - 1
        if self._is_preserved_known or epoch <= 0:
            return
        try:
            self._preserved = await preserved_nodes(rpc, epoch, address_of(self._public_key))
        except ChainError as error:
            is_late = height >= stage.start + (stage.generation_end - stage.start) // _PARTS_OF_GENERATION
            if not is_late and not isinstance(error, ChainRefusedError):
                raise
            self.preserved_problem = str(error)
            return
        if self.preserved_problem is not None:
            text = "stage {height}: known at last: {preserved} nodes stay in inference"
            _log.info(text, height=stage.height, preserved=self.preserved_count)
        self._is_preserved_known, self.preserved_problem = True, None

    def stop_once(self, node_id: str) -> None:
        """Have a node stopped, after which it does its duty again: it takes batches, and gives no verdicts."""
        self._to_stop.add(node_id)

    def record_stop(self, node_id: str) -> None:
        """Record that a node has stopped."""
        self._to_stop.discard(node_id)

    def intentions(self, workers: Iterable[NodeWorker], height: int, now: float) -> dict[str, Intention]:
        """Return what each node is to do when the latest block is ``height``, by node id; ``now`` in seconds."""
        return {worker.node.id: self._intention(worker, height, now) for worker in workers}

    def nodes_in_vain(self, nodes: Iterable[Node]) -> list[str]:
        """Return the ids of our nodes whose batches the chain drops for another participant's node of the same id.

        That node serves inference during PoC (POC_SLOT), and the chain compares the bare ids of all participants'
        nodes. Source: docs/protocol/chain.md, 'Weight'.
        """
        return [
            node.id for node in nodes if node.enabled and self._takes_part(node) and node.id in self._preserved.others
        ]

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
    """Ask the chain for what the nodes need in a stage; None while it tells no block hash. Raises ChainError.

    The hash is asked for once: a chain node may not have the block any more when dapi is started again.
    """
    stage = record.stage
    if record.block_hash is not None:
        block_hash = record.block_hash
    elif stage.is_confirmation:
        # Empty until the end of the block in which generation starts. A hash stays as the chain writes it: nodes seed
        # their computation with its text.
        block_hash = info.confirmation.seed_block_hash if info.confirmation is not None else ""
    else:
        block_hash = (await rpc.block(stage.height)).hash
    if not block_hash:
        return None
    work = StageWork(record, block_hash, public_key)
    await work.learn_preserved(rpc, info.block_height)
    _log.info(
        "{what} of epoch {epoch} is under way: stage {height}, {preserved} nodes stay in inference",
        what="confirmation PoC" if stage.is_confirmation else "PoC",
        epoch=stage.epoch_index,
        height=stage.height,
        preserved=work.preserved_count,
    )
    return work
