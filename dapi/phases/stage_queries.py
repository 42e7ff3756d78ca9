"""What is asked of the chain for one stage: everybody's batches, and which nodes stay in inference.

Facts: docs/protocol/chain.md, 'Queries' and 'Validation'.
"""

from __future__ import annotations

from array import array
from typing import Any, Final, TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message
from twisted.internet.threads import deferToThreadPool

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import QueryResult
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.messages import validation_pb2
from dapi.messages.sizes import MIB

MAX_ANSWER_BYTES: Final = 128 * MIB

_BATCHES_PATH = "/inference.inference.Query/PocBatchesForStage"
_GROUP_PATH = "/inference.inference.Query/EpochGroupData"
_POC_SLOT = 1
# The SDK's code for what there is not.
_NOT_FOUND = 22

M = TypeVar("M", bound=Message)


class StoredNonces(msgspec.Struct, frozen=True):
    """The nonces of one batch on the chain and their distances, as many where the chain is sound; 16 bytes a nonce."""

    nonces: array[int]
    dist: array[float]


class ParticipantBatches(msgspec.Struct, frozen=True):
    """All batches of one participant in one stage, by batch_id; ``public_key`` is hex as the chain writes it."""

    participant: str
    public_key: str
    batches: tuple[StoredNonces, ...]


class PreservedNodes(msgspec.Struct, frozen=True):
    """Ids of the nodes that stay in inference while others do PoC (POC_SLOT): the participant's, and all others'."""

    own: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


async def poc_batches_for_stage(reactor: Any, rpc: ChainRpc, height: int, at_height: int) -> list[ParticipantBatches]:
    """Return all batches of the stage ``height`` as the block ``at_height`` left them, in no order of participants.

    A height that is not below the last at which batches are taken makes the answer complete. It comes in one piece,
    tens of megabytes on a large network: ``rpc`` must give it the time. Its numbers are decoded on a thread of the
    reactor's pool, in small pieces, since no other thread runs during a single call of the decoder; on the reactor's
    own thread the JSON around them takes about 1 ms a megabyte.

    Raises ChainUnavailableError when that is larger than MAX_ANSWER_BYTES or cannot be had now (no node may have come
    to ``at_height``), ChainRefusedError when the chain says no.
    """
    request = validation_pb2.QueryPocBatchesForStageRequest(block_height=height)
    answer = await _ask(rpc, _BATCHES_PATH, request, at_height)
    return await deferToThreadPool(reactor, reactor.getThreadPool(), decode_batches, answer.value)


async def preserved_nodes(rpc: ChainRpc, epoch_index: int, participant: str) -> PreservedNodes:
    """Return the ids of the nodes that stay in inference while others do PoC, the participant's apart.

    ``epoch_index`` is that of the epoch in force. During PoC it is the latest one less 1: the latest is in preparation
    and has no nodes yet. An epoch without a group preserves none. Main group and models' groups are of one height.

    Raises ChainUnavailableError or ChainRefusedError.
    """
    try:
        main, height = await _group(rpc, epoch_index, "", None)
    except ChainRefusedError as error:
        if (error.codespace, error.code) == ("sdk", _NOT_FOUND):
            return PreservedNodes()
        raise
    groups = [main, *[(await _group(rpc, epoch_index, model, height))[0] for model in main.sub_group_models]]
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


def decode_batches(value: bytes) -> list[ParticipantBatches]:
    """Decode the answer to PocBatchesForStage, in pieces of one batch; raises ChainUnavailableError."""
    answer = _decoded(_BATCHES_PATH, validation_pb2.QueryPocBatchesForStageResponse, value)
    return [
        _participant(_decoded(_BATCHES_PATH, validation_pb2.PocBatchesOfParticipant, piece))
        for piece in answer.poc_batch
    ]


def _participant(answer: validation_pb2.PocBatchesOfParticipant) -> ParticipantBatches:
    batches = (_decoded(_BATCHES_PATH, validation_pb2.PocBatch, piece) for piece in answer.poc_batch)
    compact = tuple(StoredNonces(array("q", batch.nonces), array("d", batch.dist)) for batch in batches)
    return ParticipantBatches(answer.participant, answer.hex_pub_key, compact)


async def _group(
    rpc: ChainRpc, epoch_index: int, model: str, at_height: int | None
) -> tuple[validation_pb2.EpochGroupData, int | None]:
    """Return an epoch's group of a model (the main group: of none), and the height that it is of."""
    request = validation_pb2.QueryEpochGroupDataRequest(epoch_index=epoch_index, model_id=model)
    answer = await _ask(rpc, _GROUP_PATH, request, at_height)
    response = _decoded(_GROUP_PATH, validation_pb2.QueryEpochGroupDataResponse, answer.value)
    return response.epoch_group_data, answer.height or at_height


async def _ask(rpc: ChainRpc, path: str, request: Message, at_height: int | None) -> QueryResult:
    try:
        return await rpc.abci_query(path, request.SerializeToString(), at_height, max_bytes=MAX_ANSWER_BYTES)
    except ChainUnavailableError as error:
        raise ChainUnavailableError(f"{path}: {error}") from error


def _decoded(path: str, message_type: type[M], value: bytes) -> M:
    try:
        return message_type.FromString(value)
    except DecodeError as error:
        raise ChainUnavailableError(f"{path}: the answer is no {message_type.__name__}: {error}") from error
