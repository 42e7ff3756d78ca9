"""The simulated chain's ABCI queries: encoded protobuf in, encoded protobuf out.

Paths and field numbers: sections 2 and 5 of ``chain-details.md``. A further query is a function and an entry in
``_QUERIES``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from dapi.simulator.chain_epochs import ConfirmationPhase
from dapi.simulator.chain_state import Account, ChainState
from dapi.simulator.chain_transactions import PUBLIC_KEY_URL
from dapi.simulator.chain_wire import (
    STRING,
    Message,
    WireError,
    any_field,
    bytes_field,
    decode,
    message_field,
    varint_field,
)


class QueryRefused(Exception):  # noqa: N818
    """A query fails with a code of codespace ``sdk``."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(log)
        self.code = code


def query(state: ChainState, path: str, data: bytes, height: int, latest_height: int) -> bytes:
    """Answer a query; ``height`` 0 means the latest. Raises QueryRefused.

    Epochs are answered as of ``height``, accounts always as of now.
    """
    if height > latest_height:
        raise QueryRefused(26, "cannot query with height in the future; please provide a valid height")
    if path not in _QUERIES:
        raise QueryRefused(6, f"unknown query path: {path}: unknown request")
    return _QUERIES[path](state, data, height or latest_height)


class _AddressRequest(Message, frozen=True):
    WIRE: ClassVar = {1: ("address", STRING)}
    address: str = ""


def _account_info(state: ChainState, data: bytes, _height: int) -> bytes:
    return message_field(1, _base_account(state, data))


def _account(state: ChainState, data: bytes, _height: int) -> bytes:
    return any_field(1, "/cosmos.auth.v1beta1.BaseAccount", _base_account(state, data))


def _base_account(state: ChainState, data: bytes) -> bytes:
    try:
        address = decode(_AddressRequest, data).address
    except WireError as error:
        raise QueryRefused(18, f"{error}: invalid request") from error
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


_QUERIES: dict[str, Callable[[ChainState, bytes, int], bytes]] = {
    "/cosmos.auth.v1beta1.Query/AccountInfo": _account_info,
    "/cosmos.auth.v1beta1.Query/Account": _account,
    "/inference.inference.Query/EpochInfo": _epoch_info,
}
