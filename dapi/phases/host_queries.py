"""Asks the chain about one participant: its declared nodes, its weight, and what it is owed; and what all nodes need.

Source of the facts: docs/protocol/chain.md, 'Queries', 'Hardware nodes', 'Claims' and 'Weight'. Every function raises
ChainUnavailableError when the answer cannot be had now, ChainRefusedError when the chain says no.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message

from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.messages import host_pb2
from dapi.phases.stage_queries import epoch_group

_HARDWARE_PATH = "/inference.inference.Query/HardwareNodes"
_MODELS_PATH = "/inference.inference.Query/ModelsAll"
_SETTLE_PATH = "/inference.inference.Query/SettleAmount"
_VERSION_PATH = "/inference.inference.Query/MLNodeVersion"
_NOT_FOUND = ("sdk", 22)
# Older chains do not know every query.
_UNKNOWN_QUERY = ("sdk", 6)
_POC_SLOT = 1

M = TypeVar("M", bound=Message)


class Owed(msgspec.Struct, frozen=True):
    """What a participant may claim for an epoch, in the chain's smallest coin; ``seed_signature`` is hex."""

    epoch_index: int
    coins: int
    seed_signature: str


class MemberWeight(msgspec.Struct, frozen=True):
    """What a participant weighs in an epoch: its ``effective`` weight is paid for.

    ``nodes`` are its nodes that count, by their id, each with its weight.
    """

    base: int
    effective: int
    nodes: dict[str, int]


def is_unknown_query(error: Exception) -> bool:
    """Tell whether a chain has refused a query because it does not know it."""
    return isinstance(error, ChainRefusedError) and (error.codespace, error.code) == _UNKNOWN_QUERY


async def hardware_nodes(rpc: ChainRpc, participant: str, height: int) -> dict[str, host_pb2.HardwareNode]:
    """Return the nodes that a participant has declared, by their id; none for one that the chain does not know."""
    request = host_pb2.QueryOfParticipantRequest(participant=participant)
    answer = await _query(rpc, _HARDWARE_PATH, request, host_pb2.QueryHardwareNodesResponse, height)
    return {node.local_id: node for node in answer.nodes.hardware_nodes}


async def known_models(rpc: ChainRpc, height: int) -> frozenset[str] | None:
    """Return the ids of the models that governance knows, None on a chain that cannot be asked for them."""
    try:
        answer = await _query(rpc, _MODELS_PATH, None, host_pb2.QueryModelsAllResponse, height)
    except ChainRefusedError as error:
        if is_unknown_query(error):
            return None
        raise
    return frozenset(model.id for model in answer.model)


async def owed_rewards(rpc: ChainRpc, participant: str, height: int) -> Owed | None:
    """Return what a participant may claim, None when that is nothing."""
    request = host_pb2.QueryOfParticipantRequest(participant=participant)
    try:
        answer = await _query(rpc, _SETTLE_PATH, request, host_pb2.QuerySettleAmountResponse, height)
    except ChainRefusedError as error:
        if (error.codespace, error.code) == _NOT_FOUND:
            return None
        raise
    amount = answer.settle_amount
    coins = amount.reward_coins + amount.work_coins
    return Owed(amount.epoch_index, coins, amount.seed_signature) if coins else None


async def member_weight(rpc: ChainRpc, epoch_index: int, participant: str, height: int) -> MemberWeight | None:
    """Return what a participant weighs in an epoch, None where it is no member. All groups are of one height.

    The effective weight is what confirmations left of the nodes without a POC_SLOT, and the weight of those with one.
    """
    try:
        main, at_height = await epoch_group(rpc, epoch_index, "", height)
    except ChainRefusedError as error:
        if (error.codespace, error.code) == _NOT_FOUND:
            return None
        raise
    own = next((member for member in main.validation_weights if member.member_address == participant), None)
    if own is None:
        return None
    effective, nodes = own.confirmation_weight, dict[str, int]()
    for model in main.sub_group_models:
        group, _ = await epoch_group(rpc, epoch_index, model, at_height)
        for member in group.validation_weights:
            for node in member.ml_nodes if member.member_address == participant else ():
                nodes[node.node_id.decode("utf-8", "replace")] = node.poc_weight
                slots = node.timeslot_allocation
                effective += node.poc_weight if len(slots) > _POC_SLOT and slots[_POC_SLOT] else 0
    return MemberWeight(own.weight, effective, nodes)


async def model_arguments(
    rpc: ChainRpc, epoch_index: int, models: Collection[str], height: int
) -> dict[str, tuple[str, ...]]:
    """Return what these models are to be started with in an epoch; a model that is not in the epoch is left out."""
    try:
        main, at_height = await epoch_group(rpc, epoch_index, "", height)
    except ChainRefusedError as error:
        if (error.codespace, error.code) == _NOT_FOUND or is_unknown_query(error):
            return {}
        raise
    found = {}
    for model in sorted(set(models) & set(main.sub_group_models)):
        group, _ = await epoch_group(rpc, epoch_index, model, at_height)
        found[model] = tuple(each.decode("utf-8", "replace") for each in group.model_snapshot.model_args)
    return found


async def mlnode_version(rpc: ChainRpc, height: int) -> str:
    """Return the version that ML nodes are to have, such as ``v3.0.8``; empty where the chain names none."""
    try:
        answer = await _query(rpc, _VERSION_PATH, None, host_pb2.QueryMlNodeVersionResponse, height)
    except ChainRefusedError as error:
        if (error.codespace, error.code) == _NOT_FOUND or is_unknown_query(error):
            return ""
        raise
    return answer.mlnode_version.current_version


async def _query(rpc: ChainRpc, path: str, request: Message | None, answer: type[M], height: int) -> M:
    encoded = request.SerializeToString() if request is not None else b""
    try:
        return answer.FromString((await rpc.abci_query(path, encoded, height)).value)
    except DecodeError as error:
        raise ChainUnavailableError(f"{path}: the answer is no {answer.__name__}: {error}") from error
