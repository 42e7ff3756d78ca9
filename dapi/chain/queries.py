"""Queries about the chain's accounts."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainUnavailableError
from dapi.messages import cosmos_pb2

_ACCOUNT_PATH = "/cosmos.auth.v1beta1.Query/AccountInfo"


async def account_number(rpc: ChainRpc, address: str) -> int:
    """Return the number of an account; raises ChainRefusedError when the chain does not know the address."""
    request = cosmos_pb2.QueryAccountInfoRequest(address=address)
    answer = await rpc.abci_query(_ACCOUNT_PATH, request.SerializeToString())
    try:
        return cosmos_pb2.QueryAccountInfoResponse.FromString(answer.value).info.account_number
    except DecodeError as error:
        raise ChainUnavailableError(f"{_ACCOUNT_PATH}: the answer is no account: {error}") from error
