"""Asks the chain about one stage: everybody's batches, and the nodes that stay in inference.

Source of the facts: docs/protocol/chain.md, 'Queries' and 'Validation'.
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
_NOT_FOUND = 22

M = TypeVar("M", bound=Message)


class StoredNonces(msgspec.Struct, frozen=True):
    """The nonces of one batch on the chain, and as many distances unless the chain errs; 16 bytes a nonce."""

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

    The answer is complete if ``at_height`` is not before the end of the batches' window. It comes in one piece, tens of
    megabytes on a large network, so the timeout of ``rpc`` has to be long. A thread of the reactor's pool decodes the
    numbers, in small pieces, since no other thread runs during a single call of the decoder. The reactor's own thread
    decodes the JSON around them, in about 1 ms a megabyte.

    Raises ChainUnavailableError when that is larger than MAX_ANSWER_BYTES or cannot be had now (no node may have come
    to ``at_height``), ChainRefusedError when the chain says no.
    """
    request = validation_pb2.QueryPocBatchesForStageRequest(block_height=height)
    answer = await _ask(rpc, _BATCHES_PATH, request, at_height)
    return await deferToThreadPool(reactor, reactor.getThreadPool(), decode_batches, answer.value)


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


def decode_batches(value: bytes) -> list[ParticipantBatches]:
    """Decode the answer to PocBatchesForStage, in pieces of one batch; raises ChainUnavailableError."""
    decoded = []
    for piece in _decode(_BATCHES_PATH, validation_pb2.QueryPocBatchesForStageResponse, value).poc_batch:
        participant = _decode(_BATCHES_PATH, validation_pb2.PocBatchesOfParticipant, piece)
        batches = (_decode(_BATCHES_PATH, validation_pb2.PocBatch, batch) for batch in participant.poc_batch)
        compact = tuple(StoredNonces(array("q", batch.nonces), array("d", batch.dist)) for batch in batches)
        decoded.append(ParticipantBatches(participant.participant, participant.hex_pub_key, compact))
    return decoded


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
        return await rpc.abci_query(path, request.SerializeToString(), at_height, max_bytes=MAX_ANSWER_BYTES)
    except ChainUnavailableError as error:
        raise ChainUnavailableError(f"{path}: {error}") from error


def _decode(path: str, message_type: type[M], value: bytes) -> M:
    try:
        return message_type.FromString(value)
    except DecodeError as error:
        raise ChainUnavailableError(f"{path}: the answer is no {message_type.__name__}: {error}") from error
