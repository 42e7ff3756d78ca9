"""Asks the chain about one stage: everybody's batches, and the nodes that stay in inference.

Source of the facts: docs/protocol/chain.md, 'Queries' and 'Validation'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message

from dapi.chain.answer_reader import ValueReader
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import QueryResult
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.messages import validation_pb2

_BATCHES_PATH = "/inference.inference.Query/PocBatchesForStage"
_GROUP_PATH = "/inference.inference.Query/EpochGroupData"
_POC_SLOT = 1
_NOT_FOUND = 22

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class PreservedNodes(msgspec.Struct, frozen=True):
    """Ids of the nodes that stay in inference while others do PoC (POC_SLOT): the participant's, and all others'."""

    own: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


async def read_batches_of_stage(
    rpc: ChainRpc, height: int, at_height: int, make_reader: Callable[[], ValueReader[T]], *, max_bytes: int
) -> T:
    """Have all batches of the stage ``height``, as the block ``at_height`` left them, read by a new reader.

    Return what it made of them. BatchReader says how the batches stand in the value that it reads: in no order of
    participants, complete if ``at_height`` is not before the end of the batches' window. They come in one answer, of
    gigabytes on a large network: each half MiB of it may take the timeout of ``rpc``.

    Raises ChainUnavailableError when the answer's JSON is larger than ``max_bytes`` or cannot be had now (no node may
    have come to ``at_height``), ChainRefusedError when the chain says no.
    """
    request = validation_pb2.QueryPocBatchesForStageRequest(block_height=height).SerializeToString()
    try:
        return await rpc.abci_query_in_pieces(_BATCHES_PATH, request, at_height, make_reader, max_bytes=max_bytes)
    except ChainUnavailableError as error:
        raise ChainUnavailableError(f"{_BATCHES_PATH}: {error}") from error


async def preserved_nodes(rpc: ChainRpc, epoch_index: int, participant: str) -> PreservedNodes:
    """Return the ids of the nodes that stay in inference while others do PoC.

    ``epoch_index`` is the epoch in force. During PoC that is the one before the latest: the latest one is in
    preparation, and has no nodes yet. An epoch without a group preserves no node. All groups are of one height.

    Raises ChainUnavailableError or ChainRefusedError.
    """
    try:
        main, height = await epoch_group(rpc, epoch_index, "", None)
    except ChainRefusedError as error:
        if (error.codespace, error.code) == ("sdk", _NOT_FOUND):
            return PreservedNodes()
        raise
    groups = [main, *[(await epoch_group(rpc, epoch_index, model, height))[0] for model in main.sub_group_models]]
    preserved = {
        # An id that is no UTF-8 cannot be one of ours.
        (member.member_address == participant, node.node_id.decode("utf-8", "replace"))
        for group in groups
        for member in group.validation_weights
        for node in member.ml_nodes
        if len(node.timeslot_allocation) > _POC_SLOT and node.timeslot_allocation[_POC_SLOT]
    }
    return PreservedNodes(
        own=frozenset(node_id for is_own, node_id in preserved if is_own),
        others=frozenset(node_id for is_own, node_id in preserved if not is_own),
    )


async def epoch_group(
    rpc: ChainRpc, epoch_index: int, model: str, at_height: int | None
) -> tuple[validation_pb2.EpochGroupData, int | None]:
    """Return an epoch's group of a model (the main group's is empty), and the height of that answer."""
    request = validation_pb2.QueryEpochGroupDataRequest(epoch_index=epoch_index, model_id=model)
    answer = await _ask(rpc, _GROUP_PATH, request, at_height)
    response = _decode(_GROUP_PATH, validation_pb2.QueryEpochGroupDataResponse, answer.value)
    return response.epoch_group_data, answer.height or at_height


async def _ask(rpc: ChainRpc, path: str, request: Message, at_height: int | None) -> QueryResult:
    try:
        return await rpc.abci_query(path, request.SerializeToString(), at_height)
    except ChainUnavailableError as error:
        raise ChainUnavailableError(f"{path}: {error}") from error


def _decode(path: str, message_type: type[M], value: bytes) -> M:
    try:
        return message_type.FromString(value)
    except DecodeError as error:
        raise ChainUnavailableError(f"{path}: the answer is no {message_type.__name__}: {error}") from error
