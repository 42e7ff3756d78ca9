"""The simulated chain's ABCI queries: encoded protobuf in, encoded protobuf out.

Paths and field numbers: docs/protocol/chain.md, 'Accounts' and 'Queries'. A further query is a function and an entry in
``_QUERIES``.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable
from typing import ClassVar, TypeVar

from dapi.simulator.chain.epochs import ConfirmationPhase
from dapi.simulator.chain.state import Account, ChainState, GroupMember, StoredBatch
from dapi.simulator.chain.transactions import PUBLIC_KEY_URL
from dapi.simulator.chain.wire import (
    INT64,
    STRING,
    UINT64,
    Message,
    WireError,
    any_field,
    bytes_field,
    decode,
    message_field,
    packed_double_field,
    packed_int64_field,
    varint_field,
)

M = TypeVar("M", bound=Message)


class QueryRefused(Exception):  # noqa: N818
    """A query fails with a code of codespace ``sdk``."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(log)
        self.code = code


def query(state: ChainState, path: str, data: bytes, height: int, latest_height: int) -> bytes:
    """Answer a query; ``height`` 0 means the latest. Raises QueryRefused.

    Epochs and batches are answered as of ``height``, the rest always as of now.
    """
    if height > latest_height:
        raise QueryRefused(26, "cannot query with height in the future; please provide a valid height")
    if path not in _QUERIES:
        raise QueryRefused(6, f"unknown query path: {path}: unknown request")
    return _QUERIES[path](state, data, height or latest_height)


def _request(message_type: type[M], data: bytes) -> M:
    try:
        return decode(message_type, data)
    except WireError as error:
        raise QueryRefused(18, f"{error}: invalid request") from error


class _AddressRequest(Message, frozen=True):
    WIRE: ClassVar = {1: ("address", STRING)}
    address: str = ""


def _account_info(state: ChainState, data: bytes, _height: int) -> bytes:
    return message_field(1, _base_account(state, data))


def _account(state: ChainState, data: bytes, _height: int) -> bytes:
    return any_field(1, "/cosmos.auth.v1beta1.BaseAccount", _base_account(state, data))


def _base_account(state: ChainState, data: bytes) -> bytes:
    address = _request(_AddressRequest, data).address
    account: Account | None = state.accounts.get(address)
    if account is None:
        raise QueryRefused(22, f"rpc error: code = NotFound desc = account {address} not found: key not found")
    key = account.public_key
    return (
        bytes_field(1, account.address)
        + (b"" if key is None else any_field(2, PUBLIC_KEY_URL, bytes_field(1, key)))
        + varint_field(3, account.number)
    )


def _epoch_info(state: ChainState, _data: bytes, height: int) -> bytes:
    """Tell the epoch and the confirmation event as they are once the block at ``height`` is done."""
    params, epoch = state.epochs.params, state.epochs.after(height)
    epoch_params = b"".join(
        varint_field(number, value)
        for number, value in (
            (1, params.epoch_length),
            (2, 1),
            (3, params.epoch_length - (state.epochs.first_start or params.epoch_length)),
            (5, params.poc_stage_duration),
            (6, params.poc_exchange_duration),
            (7, params.poc_validation_delay),
            (8, params.poc_validation_duration),
            (9, params.set_new_validators_delay),
        )
    )
    poc_params = varint_field(2, params.validation_sample_size)
    return (
        varint_field(1, height)
        + message_field(2, message_field(1, epoch_params) + message_field(3, poc_params))
        + message_field(3, varint_field(1, epoch.index) + varint_field(2, epoch.start))
        + _active_event(state, height)
    )


def _active_event(state: ChainState, height: int) -> bytes:
    event = state.confirmation
    if event is None or height < event.trigger_height:
        return b""
    phase = event.phase_at(state.epochs.params, height + 1)
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


def _poc_batches_for_stage(state: ChainState, data: bytes, height: int) -> bytes:
    """Tell a stage's batches: participants in no order that means anything, without those who never showed a key."""
    stage = _request(_StageRequest, data).block_height
    batches: defaultdict[str, list[StoredBatch]] = defaultdict(list)
    for (start, creator, _), stored in sorted(state.batches.items(), reverse=True):
        if start == stage and stored.received_at_height <= height:
            batches[creator].insert(0, stored)
    return b"".join(_batches_of(state.accounts.get(creator), batches[creator]) for creator in batches)


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


def _epoch_group_data(state: ChainState, data: bytes, height: int) -> bytes:
    """Tell one group of an epoch; a main group is there, and empty, for as many epochs as there are."""
    request = _request(_GroupRequest, data)
    index, model = request.epoch_index, request.model_id
    models = [name for epoch, name in state.epoch_groups if epoch == index and name]
    is_there = (index, model) in state.epoch_groups or (not model and index <= state.epochs.after(height).index)
    if not is_there:
        raise QueryRefused(22, f"rpc error: code = NotFound desc = epoch group {index} {model!r} not found")
    members = state.epoch_groups.get((index, model), ())
    encoded = (
        b"".join(message_field(8, _group_member(member)) for member in members)
        + bytes_field(14, model)
        + b"".join(bytes_field(15, name) for name in models if not model)
        + varint_field(16, index)
    )
    return message_field(1, encoded)


def _group_member(member: GroupMember) -> bytes:
    nodes = b"".join(
        message_field(4, bytes_field(1, node.node_id) + packed_int64_field(4, node.timeslots)) for node in member.nodes
    )
    return bytes_field(1, member.address) + nodes


_QUERIES: dict[str, Callable[[ChainState, bytes, int], bytes]] = {
    "/cosmos.auth.v1beta1.Query/AccountInfo": _account_info,
    "/cosmos.auth.v1beta1.Query/Account": _account,
    "/inference.inference.Query/EpochInfo": _epoch_info,
    "/inference.inference.Query/PocBatchesForStage": _poc_batches_for_stage,
    "/inference.inference.Query/EpochGroupData": _epoch_group_data,
}
