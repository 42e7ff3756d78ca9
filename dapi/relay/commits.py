"""Asks the chain what it has of a participant's stage: the count that is committed, and how its nodes weigh.

Nothing else tells that a commit arrived: the api container takes a refused one for sent. Facts:
docs/protocol/poc-v2.md, 'What can be asked' and 'Commits'.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainUnavailableError
from dapi.messages import artifacts_pb2

_COMMIT_PATH = "/inference.inference.Query/PoCV2StoreCommit"
_WEIGHTS_PATH = "/inference.inference.Query/MLNodeWeightDistribution"

M = TypeVar("M", bound=Message)


async def committed(rpc: ChainRpc, height: int, participant: str, model: str) -> int:
    """Return the count of the last commit of a stage and model, 0 without one; raises ChainError."""
    answer = await _ask(rpc, _COMMIT_PATH, artifacts_pb2.QueryPoCV2StoreCommitResponse, height, participant, model)
    return answer.count if answer.found else 0


async def has_weights(rpc: ChainRpc, height: int, participant: str, model: str) -> bool:
    """Tell whether the chain has the weights of the nodes, without which a commit counts nothing; raises ChainError."""
    response_type = artifacts_pb2.QueryMLNodeWeightDistributionResponse
    return (await _ask(rpc, _WEIGHTS_PATH, response_type, height, participant, model)).found


async def _ask(rpc: ChainRpc, path: str, response_type: type[M], height: int, participant: str, model: str) -> M:
    request = artifacts_pb2.QueryOfStageRequest(
        poc_stage_start_block_height=height, participant=participant, model_id=model
    )
    # What is not there is an empty value.
    answer = await rpc.abci_query(path, request.SerializeToString())
    try:
        return response_type.FromString(answer.value)
    except DecodeError as error:
        raise ChainUnavailableError(f"{path}: the answer is no {response_type.__name__}: {error}") from error
