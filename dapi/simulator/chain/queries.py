"""The simulated chain's ABCI queries: encoded protobuf in, encoded protobuf out.

Facts: docs/protocol/chain.md, 'Queries' and 'Validation'; docs/protocol/poc-v2.md, 'What can be asked'. A further query
is a function of the state at a height, and an entry in ``_QUERIES``; what is asked about hosts is in ``host_queries``.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from typing import ClassVar

from dapi.simulator.chain.epochs import ConfirmationPhase
from dapi.simulator.chain.host_queries import HOST_QUERIES
from dapi.simulator.chain.requests import HEIGHT_IN_FUTURE, Query, QueryRefused, not_found, read_request
from dapi.simulator.chain.state import Account, ChainState, GroupMember, StateView, StoredBatch
from dapi.simulator.chain.wire import (
    INT64,
    STRING,
    UINT64,
    Message,
    bytes_field,
    message_field,
    packed_double_field,
    packed_int64_field,
    varint_field,
)


def query(state: ChainState, path: str, data: bytes, height: int, latest_height: int) -> bytes:
    """Answer a query about the state at ``height``, 0 meaning the latest; raises QueryRefused."""
    if height > latest_height:
        raise QueryRefused(26, HEIGHT_IN_FUTURE)
    if path not in _QUERIES:
        raise QueryRefused(6, f"unknown query path: {path}: unknown request")
    return _QUERIES[path](state.at(height or latest_height), data)


def _epoch_info(view: StateView, _data: bytes) -> bytes:
    """Return the epoch and the confirmation event as they are once the block is done."""
    params, epoch = view.epochs.params, view.epochs.after(view.height)
    epoch_params = b"".join(
        varint_field(number, value)
        for number, value in (
            (1, params.epoch_length),
            (2, 1),
            (3, params.epoch_length - (view.epochs.first_start or params.epoch_length)),
            (5, params.poc_stage_duration),
            (6, params.poc_exchange_duration),
            (7, params.poc_validation_delay),
            (8, params.poc_validation_duration),
            (9, params.set_new_validators_delay),
        )
    )
    poc_params = varint_field(2, params.validation_sample_size) + varint_field(8, view.rules.poc_v2)
    return (
        varint_field(1, view.height)
        + message_field(2, message_field(1, epoch_params) + message_field(3, poc_params))
        + message_field(3, varint_field(1, epoch.index) + varint_field(2, epoch.start))
        + _active_event(view)
    )


def _active_event(view: StateView) -> bytes:
    event = view.confirmation
    if event is None or view.height < event.trigger_height:
        return b""
    phase = event.phase_at(view.epochs.params, view.height + 1)
    if phase is ConfirmationPhase.COMPLETED:
        return b""
    encoded = (
        varint_field(1, event.epoch_index)
        + varint_field(2, event.event_sequence)
        + varint_field(3, event.trigger_height)
        + varint_field(4, event.generation_start_height)
        + varint_field(8, phase)
        + bytes_field(9, event.poc_seed_block_hash)
    )
    return varint_field(4, 1) + message_field(5, encoded)


class _StageRequest(Message, frozen=True):
    WIRE: ClassVar = {1: ("block_height", INT64)}
    block_height: int = 0


def _poc_batches_for_stage(view: StateView, data: bytes) -> bytes:
    """Return a stage's batches: participants in no particular order, without those who never showed a key."""
    stage = read_request(_StageRequest, data).block_height
    batches: defaultdict[str, list[StoredBatch]] = defaultdict(list)
    for key in sorted((key for key in view.batches if key[0] == stage), reverse=True):
        batches[key[1]].insert(0, view.batches[key])
    return b"".join(_batches_of(view.accounts.get(creator), batches[creator]) for creator in batches)


def _batches_of(account: Account | None, batches: list[StoredBatch]) -> bytes:
    if account is None or account.public_key is None:
        return b""
    encoded = b"".join(message_field(4, _poc_batch(stored)) for stored in batches)
    key = account.public_key
    names = bytes_field(1, account.address) + bytes_field(2, base64.b64encode(key)) + bytes_field(3, key.hex())
    return message_field(1, names + encoded)


def _poc_batch(stored: StoredBatch) -> bytes:
    message = stored.message
    return (
        bytes_field(1, message.creator)
        + varint_field(2, message.poc_stage_start_block_height)
        + varint_field(3, stored.received_at_height)
        + packed_int64_field(4, message.nonces)
        + packed_double_field(5, message.dist)
        + bytes_field(6, message.batch_id)
        + bytes_field(7, message.node_id)
    )


class _GroupRequest(Message, frozen=True):
    WIRE: ClassVar = {1: ("epoch_index", UINT64), 2: ("model_id", STRING)}
    epoch_index: int = 0
    model_id: str = ""


def _epoch_group_data(view: StateView, data: bytes) -> bytes:
    """Return one group of an epoch; a main group is there, and empty, for as many epochs as there are."""
    request = read_request(_GroupRequest, data)
    index, model_id = request.epoch_index, request.model_id
    model_ids = sorted(name for epoch, name in view.epoch_groups if epoch == index and name)
    is_there = (index, model_id) in view.epoch_groups or (
        not model_id and index <= view.epochs.after(view.height).index
    )
    if not is_there:
        raise not_found(f"epoch group {index} {model_id!r} not found")
    members = view.epoch_groups.get((index, model_id), ())
    model = view.models.get(model_id)
    encoded = (
        b"".join(message_field(8, _group_member(member)) for member in members)
        + bytes_field(14, model_id)
        + b"".join(bytes_field(15, name) for name in model_ids if not model_id)
        + varint_field(16, index)
        + (b"" if model is None else message_field(17, model.encoded()))
    )
    return message_field(1, encoded)


def _group_member(member: GroupMember) -> bytes:
    nodes = b"".join(
        message_field(
            4,
            bytes_field(1, node.node_id) + varint_field(3, node.poc_weight) + packed_int64_field(4, node.timeslots),
        )
        for node in member.nodes
    )
    return (
        bytes_field(1, member.address)
        + varint_field(2, member.weight)
        + nodes
        + varint_field(5, member.confirmation_weight)
    )


class _OfStageRequest(Message, frozen=True):
    WIRE: ClassVar = {1: ("height", INT64), 2: ("participant", STRING), 3: ("model_id", STRING)}
    height: int = 0
    participant: str = ""
    model_id: str = ""


def _store_commit(view: StateView, data: bytes) -> bytes:
    """Return the count that was committed last for PoC v2; nothing at all where there is none."""
    request = read_request(_OfStageRequest, data)
    count = view.store_commits.get((request.height, request.participant, request.model_id))
    return b"" if count is None else varint_field(1, count) + bytes_field(2, bytes(32)) + varint_field(3, 1)


def _weight_distribution(view: StateView, data: bytes) -> bytes:
    """Return how a participant's nodes weigh in a stage of PoC v2; nothing at all where that is not told."""
    request = read_request(_OfStageRequest, data)
    weights = view.node_weights.get((request.height, request.participant, request.model_id))
    if weights is None:
        return b""
    nodes = [bytes_field(1, node_id) + varint_field(2, weight) for node_id, weight in weights.items()]
    return b"".join(message_field(1, node) for node in nodes) + varint_field(2, 1)


class _WholeStageRequest(Message, frozen=True):
    WIRE: ClassVar = {1: ("height", INT64)}
    height: int = 0


def _all_store_commits(view: StateView, data: bytes) -> bytes:
    """Return who has committed how much in a stage of PoC v2."""
    request = read_request(_WholeStageRequest, data)
    return b"".join(
        message_field(1, bytes_field(1, participant) + varint_field(2, count) + bytes_field(5, model))
        for (height, participant, model), count in view.store_commits.items()
        if height == request.height
    )


def _v2_validations(view: StateView, data: bytes) -> bytes:
    """Return all votes of a stage of PoC v2, by the participant that is judged."""
    request = read_request(_WholeStageRequest, data)
    return b"".join(
        message_field(
            1,
            bytes_field(1, judged)
            + b"".join(message_field(4, bytes_field(1, judged) + bytes_field(2, each)) for each in sorted(validators))
            + bytes_field(5, model),
        )
        for (height, judged, model), validators in view.votes.items()
        if height == request.height
    )


def _open_challenges(view: StateView, data: bytes) -> bytes:
    """Return the PoC challenges that are open, by their target: where each began, and where it ends."""
    read_request(_WholeStageRequest, data)
    return b"".join(
        message_field(1, message_field(1, bytes_field(3, target) + varint_field(6, start)) + varint_field(2, finish))
        for target, (start, finish) in view.challenges.items()
    )


_QUERIES: dict[str, Query] = {
    "/inference.inference.Query/EpochInfo": _epoch_info,
    "/inference.inference.Query/PocBatchesForStage": _poc_batches_for_stage,
    "/inference.inference.Query/EpochGroupData": _epoch_group_data,
    "/inference.inference.Query/PoCV2StoreCommit": _store_commit,
    "/inference.inference.Query/MLNodeWeightDistribution": _weight_distribution,
    "/inference.inference.Query/AllPoCV2StoreCommitsForStage": _all_store_commits,
    "/inference.inference.Query/PocV2ValidationsForStage": _v2_validations,
    "/inference.inference.Query/OpenPoCChallenges": _open_challenges,
    **HOST_QUERIES,
}
