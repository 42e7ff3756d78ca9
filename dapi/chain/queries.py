"""What is asked of the chain's application: accounts and epochs."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from dapi.chain.phases import EpochParameters, PocStage, confirmation_stage, regular_stage
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainUnavailableError
from dapi.messages import cosmos_pb2, epochs_pb2

_ACCOUNT_PATH = "/cosmos.auth.v1beta1.Query/AccountInfo"
_EPOCH_PATH = "/inference.inference.Query/EpochInfo"


async def account_number(rpc: ChainRpc, address: str) -> int:
    """Return the number of an account; ChainRefusedError when the chain does not know the address."""
    request = cosmos_pb2.QueryAccountInfoRequest(address=address)
    answer = await rpc.abci_query(_ACCOUNT_PATH, request.SerializeToString())
    try:
        return cosmos_pb2.QueryAccountInfoResponse.FromString(answer.value).info.account_number
    except DecodeError as error:
        raise ChainUnavailableError(f"{_ACCOUNT_PATH}: the answer is no account: {error}") from error


async def poc_stages(rpc: ChainRpc) -> list[PocStage]:
    """Return the PoC stages that the chain knows of now: the latest epoch's, and a confirmation PoC that is under way.

    Epoch 0 has no PoC.
    """
    answer = await rpc.abci_query(_EPOCH_PATH, b"")
    try:
        info = epochs_pb2.QueryEpochInfoResponse.FromString(answer.value)
    except DecodeError as error:
        raise ChainUnavailableError(f"{_EPOCH_PATH}: the answer is no epoch: {error}") from error
    durations = info.params.epoch_params
    parameters = EpochParameters(
        epoch_length=durations.epoch_length,
        poc_stage_duration=durations.poc_stage_duration,
        poc_exchange_duration=durations.poc_exchange_duration,
        poc_validation_delay=durations.poc_validation_delay,
        poc_validation_duration=durations.poc_validation_duration,
        set_new_validators_delay=durations.set_new_validators_delay,
    )
    stages = []
    if info.latest_epoch.index:
        stages.append(regular_stage(parameters, info.latest_epoch.poc_start_block_height))
    if info.is_confirmation_poc_active:
        event = info.active_confirmation_poc_event
        stages.append(confirmation_stage(parameters, event.trigger_height, event.generation_start_height))
    return stages
