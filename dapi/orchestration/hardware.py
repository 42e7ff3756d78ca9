"""Declares the participant's nodes on the chain: a node that is not declared counts nothing, whatever it generates.

What is declared follows from the registered nodes and from what governance knows; the chain is asked what it has, and
gets the difference. Source: docs/protocol/chain.md, 'Hardware nodes'.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import msgspec
from twisted.logger import Logger

from dapi.broker.broker import Broker
from dapi.broker.nodes import Node, NodeConfig
from dapi.chain.rpc import ChainRpc
from dapi.messages import Kind, State, Via
from dapi.messages.host_pb2 import (
    HARDWARE_NODE_INFERENCE,
    HARDWARE_NODE_POC,
    Hardware,
    HardwareNode,
    MsgSubmitHardwareDiff,
)
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.outbox.pages import BatchRow, is_ahead
from dapi.phases.host_queries import hardware_nodes, known_models
from dapi.phases.phases import EpochInfo
from dapi.submission.submissions import Submissions

# While nothing has changed here, the chain is asked again after so many blocks: its governance may have changed models.
_LOOK_AGAIN_BLOCKS = 10
# A diff that changed nothing, or that somebody else undid, is made again only after so many blocks.
_SEND_AGAIN_BLOCKS = 40
# A short epoch has as many of these pauses.
_PAUSES_IN_AN_EPOCH = 4
# In the last blocks before a PoC there is no time for a pause: what is declared when it starts is what counts for sure.
_LAST_BLOCKS = 5
_LAST_PAUSE_BLOCKS = 2
# The status changes with each phase, and no weight depends on it: these two are as good as each other.
_STATUS_THAT_COUNTS = (HARDWARE_NODE_INFERENCE, HARDWARE_NODE_POC)


def hardware_node(config: NodeConfig, known: Collection[str]) -> HardwareNode:
    """Return a node as it is declared, without the models that governance does not know: they refuse everything."""
    return HardwareNode(
        local_id=config.id,
        status=HARDWARE_NODE_INFERENCE,
        models=sorted(set(config.models) & set(known)),
        hardware=[Hardware(type=each.type, count=each.count) for each in config.hardware],
        host=config.host,
        port=str(config.poc_port),
    )


def unknown_models(nodes: Iterable[Node], known: Collection[str]) -> dict[str, list[str]]:
    """Return the models that governance does not know, by the id of the node that has them."""
    unknown = {node.id: sorted(set(node.config.models) - set(known)) for node in nodes}
    return {node_id: models for node_id, models in unknown.items() if models}


def hardware_diff(
    nodes: Iterable[Node], declared: Mapping[str, HardwareNode], known: Collection[str]
) -> MsgSubmitHardwareDiff | None:
    """Return what the chain has to be told of the nodes, None if it knows; ``declared`` is what it has, by id."""
    wanted = {node.id: hardware_node(node.config, known) for node in nodes}
    changed = [node for node in wanted.values() if not _is_alike(node, declared.get(node.local_id))]
    removed = [node for node_id, node in sorted(declared.items()) if node_id not in wanted]
    return MsgSubmitHardwareDiff(new_or_modified=changed, removed=removed) if changed or removed else None


def _is_alike(wanted: HardwareNode, declared: HardwareNode | None) -> bool:
    """Compare what weights depend on: not the address, which others on this host may write in another way."""
    return (
        declared is not None
        and declared.status in _STATUS_THAT_COUNTS
        and sorted(declared.models) == list(wanted.models)
        and _amounts(declared) == _amounts(wanted)
    )


def _amounts(node: HardwareNode) -> Counter[tuple[str, int]]:
    return Counter((each.type, each.count) for each in node.hardware)


def pause_blocks(info: EpochInfo, usual: int) -> int:
    """Return how many blocks to wait where it is usually so many: less in a short epoch, and before a PoC starts."""
    if _is_before_poc(info):
        return min(usual, _LAST_PAUSE_BLOCKS)
    return min(usual, max(_LAST_PAUSE_BLOCKS, info.parameters.epoch_length // _PAUSES_IN_AN_EPOCH))


def _is_before_poc(info: EpochInfo) -> bool:
    return info.next_poc_start() - info.block_height <= _LAST_BLOCKS


class Declaration(msgspec.Struct, frozen=True):
    """How the chain's nodes compare with ours: ``differs``, None before the first look.

    ``unknown_models`` are those that governance does not know, by the id of the node that has them. ``is_refused`` says
    that it knows no model at all, so that no node is declared, ``has_no_effect`` that the chain confirmed what it was
    told and does not show it. ``times_undone`` is how often somebody else changed what was declared.
    """

    differs: bool | None = None
    unknown_models: dict[str, list[str]] = {}
    is_refused: bool = False
    has_no_effect: bool = False
    times_undone: int = 0


class Declaring:
    """Stores a hardware diff for the chain whenever the registered nodes differ from those that it has.

    One at a time: a newer one takes the place of one that is not sent yet, and waits for one that is in a transaction.
    A diff that failed is made again when another PoC has begun, one that is confirmed and still missing after 40 blocks
    or a quarter of a short epoch, and after 2 blocks shortly before a PoC. No node is removed while nodes of ours are
    unreadable, or none is registered: that is rather a dapi without its database than a host without nodes. Nothing is
    declared while governance knows no model at all: the diff would take all models from the nodes. On a chain that
    cannot be asked for the models, the nodes are declared with all.
    """

    log = Logger()
    name = "hardware_nodes"

    def __init__(
        self, rpc: ChainRpc, broker: Broker, outbox: Outbox, submissions: Submissions, participant: str
    ) -> None:
        self._differs: bool | None = None
        self._unknown_models: dict[str, list[str]] = {}
        self._is_refused = self._has_no_effect = False
        self._rpc = rpc
        self._broker = broker
        self._outbox = outbox
        self._submissions = submissions
        self._participant = participant
        # What was wanted at the last look, whether the chain had it, and how often it lost it.
        self._wanted: list[bytes] = []
        self._is_agreed = False
        self._times_undone = 0
        self._looked_at = 0
        self._has_news = True
        broker.observe_changes(self._hear_of_change)

    def _hear_of_change(self) -> None:
        self._has_news = True

    async def look(self, info: EpochInfo) -> None:
        """Compare, and store what is to be told; raises ChainError, NotReadyError or StoreError."""
        if not self._has_news and info.block_height < self._looked_at + pause_blocks(info, _LOOK_AGAIN_BLOCKS):
            return
        self._has_news = False
        differs = True
        try:
            differs = await self._compare(info)
        finally:
            # The nodes may have changed again meanwhile.
            self._has_news = self._has_news or differs
        self._looked_at = info.block_height

    async def _compare(self, info: EpochInfo) -> bool:
        """Compare, and store the difference; return whether there is one."""
        height, nodes = info.block_height, self._broker.nodes()
        rows = (await self._outbox.batches(kind=Kind.HARDWARE, limit=1)).batches
        last = next((row for row in rows if row.is_of_this_chain), None)
        if last is not None and is_ahead(last, height):
            return True
        known = await known_models(self._rpc, height)
        if known is None:
            known = frozenset(model for node in nodes for model in node.config.models)
        self._is_refused, self._has_no_effect = not known and bool(nodes), False
        if self._is_refused:
            return False
        declared = await hardware_nodes(self._rpc, self._participant, height)
        if not nodes or self._broker.status().problem is not None:
            # What is not known here is not known to be gone.
            declared = {node.id: declared[node.id] for node in nodes if node.id in declared}
        diff = hardware_diff(nodes, declared, known)
        self._differs, self._unknown_models = diff is not None, unknown_models(nodes, known)
        self._notice_others([hardware_node(node.config, known).SerializeToString() for node in nodes], diff is not None)
        if diff is not None:
            await self._store(diff, info, _entry(diff, height, info.next_poc_start()), last)
        return diff is not None

    def _notice_others(self, wanted: list[bytes], differs: bool) -> None:
        """Notice when the chain loses what it had, though the same is wanted."""
        if wanted != self._wanted:
            self._wanted, self._times_undone = wanted, 0
        elif differs and self._is_agreed:
            self._times_undone += 1
        self._is_agreed = not differs

    async def _store(
        self, diff: MsgSubmitHardwareDiff, info: EpochInfo, entry: OutboxEntry, last: BatchRow | None
    ) -> None:
        """Store a diff, unless the last one has to be waited for."""
        if last is not None:
            is_same = _content_of(last.batch_id) == _content_of(entry.batch_id)
            has_failed_now = last.state is State.FAILED and last.height == entry.height
            if last.state is State.IN_FLIGHT or (is_same and (has_failed_now or last.state is State.STORED)):
                return
            if is_same and last.state is State.CONFIRMED:
                self._has_no_effect = not self._times_undone
                # One that is in a later block was confirmed by another chain.
                if 0 <= info.block_height - (last.included_height or 0) < pause_blocks(info, _SEND_AGAIN_BLOCKS):
                    return
            if last.state is State.STORED:
                await self._submissions.expire(last.height, Kind.HARDWARE, "superseded by a newer one", is_loss=False)
        text = "{changes} nodes are to be declared on the chain, {removed} to be removed from it"
        self.log.info(text, changes=len(diff.new_or_modified), removed=len(diff.removed))
        await self._outbox.put(entry)

    def status(self) -> Declaration:
        """Return how the chain's nodes compared with ours at the last look."""
        return Declaration(
            differs=self._differs,
            unknown_models=self._unknown_models,
            is_refused=self._is_refused,
            has_no_effect=self._has_no_effect,
            times_undone=self._times_undone,
        )


def _entry(diff: MsgSubmitHardwareDiff, height: int, poc_start: int) -> OutboxEntry:
    """Return the outbox entry of a diff to what the chain has at a height, for the PoC that starts next."""
    message = diff.SerializeToString(deterministic=True)
    return OutboxEntry(
        # The same change may have to be made again later, so the content alone is no id.
        batch_id=f"hardware-{height}-{hashlib.sha256(message).hexdigest()[:16]}",
        kind=Kind.HARDWARE,
        node_id=None,
        height=poc_start,
        nonces=0,
        via=Via.OWN,
        message=message,
    )


def _content_of(batch_id: str) -> str:
    return batch_id.rpartition("-")[2]
