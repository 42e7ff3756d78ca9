"""Compares what the nodes did in a stage with what the chain counts: confirmed is not counted yet.

Source: docs/protocol/chain.md, 'Weight' and 'Hardware nodes'.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dapi.chain.rpc import ChainRpc
from dapi.messages import Kind, State
from dapi.messages.host_pb2 import HardwareNode
from dapi.orchestration.stages import StageBook
from dapi.outbox.ledger import NodeLedger
from dapi.outbox.outbox import Outbox
from dapi.phases.host_queries import MemberWeight, hardware_nodes, known_models, member_weight
from dapi.phases.phases import EpochInfo, PocStage, regular_stage

# Confirmations change what an epoch weighs.
_LOOK_AGAIN_BLOCKS = 10
# So many epochs before the latest are asked for, too, as far as the chain still knows them.
_EARLIER_EPOCHS = 4
_KEPT_EPOCHS = 50
_NOT_COUNTED = "the chain does not count it"


def uncounted_nodes(
    ledger: Mapping[str, NodeLedger],
    weight: MemberWeight | None,
    declared: Mapping[str, HardwareNode],
    known: Collection[str],
    *,
    has_seed: bool,
) -> dict[str, str]:
    """Return why nodes whose batches are confirmed count nothing, by their id.

    ``ledger`` is what became of the nodes' work in the stage, ``weight`` what the participant weighs by it.
    ``declared`` are its nodes on the chain, ``known`` the models of governance. ``has_seed`` tells that the seed of the
    epoch is confirmed.
    """
    counted = weight.nodes if weight is not None else {}
    reasons = {}
    for node_id in sorted(node_id for node_id, node in ledger.items() if node_id and node.confirmed):
        if node_id in counted:
            continue
        if weight is None and not has_seed:
            reasons[node_id] = "the epoch's seed is not confirmed"
        elif node_id not in declared:
            reasons[node_id] = "it is not declared on the chain"
        elif not set(declared[node_id].models) & set(known):
            reasons[node_id] = "governance knows none of its models"
        else:
            reasons[node_id] = "no majority of the verdicts found its batches valid" if weight is None else _NOT_COUNTED
    return reasons


class Counting:
    """Asks the chain what the latest epochs weigh, and finds the nodes whose confirmed batches count nothing."""

    name = "weight"

    def __init__(self, rpc: ChainRpc, stages: StageBook, outbox: Outbox, participant: str) -> None:
        self._rpc = rpc
        self._stages = stages
        self._outbox = outbox
        self._participant = participant
        self._looked_at = 0
        self._epoch_index = 0
        self._weights: dict[int, MemberWeight | None] = {}
        self._uncounted: dict[int, dict[str, str]] = {}

    async def look(self, info: EpochInfo) -> None:
        """Ask for the latest epoch whose validation has ended; raises ChainError or StoreError."""
        stage, height = regular_stage(info.parameters, info.index, info.poc_start), info.block_height
        has_ended = height > stage.validations.last
        epoch = info.index if has_ended else info.index - 1
        if epoch == self._epoch_index and height < self._looked_at + _LOOK_AGAIN_BLOCKS:
            return
        for index in range(max(1, epoch - _EARLIER_EPOCHS), epoch + 1):
            if index == epoch or index not in self._weights:
                self._weights[index] = await member_weight(self._rpc, index, self._participant, height)
        if has_ended and info.index > 0:
            self._uncounted[epoch] = await self._find_uncounted(stage, self._weights[epoch], height)
        for kept in (self._weights, self._uncounted):
            for index in sorted(kept)[:-_KEPT_EPOCHS]:
                del kept[index]
        self._epoch_index, self._looked_at = epoch, height

    async def _find_uncounted(self, stage: PocStage, weight: MemberWeight | None, height: int) -> dict[str, str]:
        ledger = await self._stages.ledger(stage.height)
        counted = weight.nodes if weight is not None else {}
        if all(node_id in counted or not node_id or not node.confirmed for node_id, node in ledger.items()):
            return {}
        seeds = (await self._outbox.batches(kind=Kind.SEED, state=State.CONFIRMED, limit=_EARLIER_EPOCHS)).batches
        declared = await hardware_nodes(self._rpc, self._participant, height)
        known = await known_models(self._rpc, height)
        return uncounted_nodes(
            ledger,
            weight,
            declared,
            known if known is not None else {model for node in declared.values() for model in node.models},
            has_seed=any(seed.height == stage.height for seed in seeds),
        )

    def status(self) -> dict[str, Any]:
        """Return what the participant weighs in the latest epoch whose validation has ended.

        ``uncounted`` has the nodes that worked for nothing in it, by id, each with the reason.
        """
        weight = self._weights.get(self._epoch_index)
        return {
            "epoch_index": self._epoch_index or None,
            "weight": weight.base if weight is not None else None,
            "effective_weight": weight.effective if weight is not None else None,
            "uncounted": self._uncounted.get(self._epoch_index, {}),
        }

    def weight(self, epoch_index: int) -> MemberWeight | None:
        """Return what the participant weighs in an epoch; None where it is not known, or is no member."""
        return self._weights.get(epoch_index)

    def not_counted(self, epoch_index: int, node_id: str, ledger: NodeLedger) -> str | None:
        """Return why a node's confirmed batches of an epoch count nothing; None: they count, or it is not known."""
        reason = self._uncounted.get(epoch_index, {}).get(node_id)
        weight = self._weights.get(epoch_index)
        # An epoch that the chain has forgotten says nothing.
        if reason is None and weight is not None and node_id and ledger.confirmed and node_id not in weight.nodes:
            reason = _NOT_COUNTED
        return None if reason is None else f"confirmed but not counted: {reason}"
