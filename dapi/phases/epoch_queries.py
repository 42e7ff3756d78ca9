"""Queries to the chain about its epochs, and what follows from the answers for a message."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainUnavailableError
from dapi.messages import Kind, epochs_pb2
from dapi.phases.phases import ConfirmationEvent, EpochInfo, EpochParameters

_EPOCH_PATH = "/inference.inference.Query/EpochInfo"


async def epoch_info(rpc: ChainRpc, height: int | None = None) -> EpochInfo:
    """Return what the chain says of its epochs, at ``height`` or at its latest block."""
    answer = await rpc.abci_query(_EPOCH_PATH, b"", height)
    try:
        info = epochs_pb2.QueryEpochInfoResponse.FromString(answer.value)
    except DecodeError as error:
        raise ChainUnavailableError(f"{_EPOCH_PATH}: the answer is no epoch: {error}") from error
    if not info.block_height:
        # Of nothing, protobuf makes epoch 0, which would have every node leave its PoC.
        raise ChainUnavailableError(f"{_EPOCH_PATH}: the answer is empty")
    durations = info.params.epoch_params
    event = info.active_confirmation_poc_event
    return EpochInfo(
        block_height=info.block_height,
        index=info.latest_epoch.index,
        poc_start=info.latest_epoch.poc_start_block_height,
        parameters=EpochParameters(
            epoch_length=durations.epoch_length,
            poc_stage_duration=durations.poc_stage_duration,
            poc_exchange_duration=durations.poc_exchange_duration,
            poc_validation_delay=durations.poc_validation_delay,
            poc_validation_duration=durations.poc_validation_duration,
            epoch_shift=durations.epoch_shift,
        ),
        sample_size=info.params.poc_params.validation_sample_size,
        confirmation=ConfirmationEvent(
            event.epoch_index, event.trigger_height, event.generation_start_height, event.poc_seed_block_hash
        )
        if info.is_confirmation_poc_active
        else None,
    )


async def next_chance(rpc: ChainRpc, kind: Kind, height: int, following: int) -> int | None:
    """Return the first block from ``following`` on in which the chain may accept a message; None: there is none.

    The message is of this ``kind`` and of the stage that starts at ``height``.
    """
    info = await epoch_info(rpc)
    window = next((stage.window(kind) for stage in info.stages() if stage.height == height), None)
    if window is not None:
        return max(following, window.first) if following <= window.last else None
    # A stage that has not begun opens in a block after its start. One that should have begun, and is not told of, is
    # over, as a confirmation PoC is once it is completed.
    return max(following, height + 1) if info.block_height < height else None
