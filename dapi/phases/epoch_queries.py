"""Asks the chain about its epochs, and when it may next accept a message."""

from __future__ import annotations

import msgspec
from google.protobuf.message import DecodeError

from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainUnavailableError
from dapi.messages import Kind, epochs_pb2
from dapi.phases.phases import ConfirmationEvent, EpochInfo, EpochParameters

_MAX_BLOCKS_AHEAD = 2
_EPOCH_PATH = "/inference.inference.Query/EpochInfo"


async def epoch_info(rpc: ChainRpc, height: int | None = None) -> EpochInfo:
    """Return what the chain says of its epochs at ``height``, or at its latest block; raises ChainError."""
    answer = await rpc.abci_query(_EPOCH_PATH, b"", height)
    try:
        info = epochs_pb2.QueryEpochInfoResponse.FromString(answer.value)
    except DecodeError as error:
        raise ChainUnavailableError(f"{_EPOCH_PATH}: the answer is no epoch: {error}") from error
    if not info.block_height:
        # Protobuf makes epoch 0 of an empty answer, and then every node would leave its PoC.
        raise ChainUnavailableError(f"{_EPOCH_PATH}: the answer is empty")
    if height is not None and info.block_height > height + _MAX_BLOCKS_AHEAD:
        # By that height windows end, and what waits for them expires.
        raise ChainUnavailableError(f"{_EPOCH_PATH}: asked of block {height}, it tells of block {info.block_height}")
    event = info.active_confirmation_poc_event
    return EpochInfo(
        block_height=info.block_height,
        index=info.latest_epoch.index,
        poc_start=info.latest_epoch.poc_start_block_height,
        parameters=msgspec.convert(info.params.epoch_params, EpochParameters, from_attributes=True),
        sample_size=info.params.poc_params.validation_sample_size,
        is_poc_v2=info.params.poc_params.poc_v2_enabled,
        confirmation=ConfirmationEvent(
            event.epoch_index, event.trigger_height, event.generation_start_height, event.poc_seed_block_hash
        )
        if info.is_confirmation_poc_active
        else None,
    )


async def next_chance(rpc: ChainRpc, kind: Kind, height: int, following: int) -> int | None:
    """Return the first block from ``following`` on in which the chain may accept a message; None: there is none.

    The message is of this ``kind``, and of the stage whose messages carry ``height``. Raises ChainError.
    """
    info = await epoch_info(rpc)
    window = next((stage.window(kind) for stage in info.stages() if stage.height == height), None)
    if window is not None:
        return max(following, window.first) if following <= window.last else None
    # A stage that is still to come accepts nothing before the block after its start. One whose start has passed, and
    # that the chain does not tell of, is over: so is a confirmation PoC once it is completed.
    return max(following, height + 1) if info.block_height < height else None
