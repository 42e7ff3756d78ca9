"""Queries about the chain's accounts and blocks."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from dapi.chain.identity import contradiction
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import BlockInfo
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


async def contradiction_to(rpc: ChainRpc, known: BlockInfo) -> str | None:
    """Say in words why the chain is another one than that of a block that is ``known``; None when it has that block.

    For a block that was kept over a restart; of one with the height 0 only the chain's id is known. Raises
    ChainUnavailableError when it cannot be told now (the chain has not come to that height again, or cannot be asked),
    and ChainPrunedError when no node has the block any more.
    """
    status = await rpc.status()
    other = contradiction(known, status.block)
    if other is not None or known.height in (0, status.height):
        return other
    if status.height < known.height:
        raise ChainUnavailableError(f"the chain is at block {status.height}, and was at {known.height} before")
    return contradiction(known, await rpc.block(known.height))
