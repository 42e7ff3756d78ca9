"""The grants by which a key that is not the participant's sends messages for it (docs/protocol/chain.md, 'Authz')."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainUnavailableError
from dapi.messages import cosmos_pb2

_PATH = "/cosmos.authz.v1beta1.Query/Grants"
_GENERIC_TYPE_URL = "/cosmos.authz.v1beta1.GenericAuthorization"


async def grants_of(rpc: ChainRpc, granter: str, grantee: str) -> Mapping[str, int | None]:
    """Return until when ``grantee`` may send messages for ``granter``, by their type URL; both are addresses.

    The time is in seconds since 1970, None for a grant that does not expire. Raises ChainError.
    """
    request = cosmos_pb2.QueryGrantsRequest(granter=granter, grantee=grantee)
    answer = await rpc.abci_query(_PATH, request.SerializeToString())
    try:
        grants = cosmos_pb2.QueryGrantsResponse.FromString(answer.value).grants
        return {
            cosmos_pb2.GenericAuthorization.FromString(grant.authorization.value).msg: grant.expiration.seconds
            if grant.HasField("expiration")
            else None
            for grant in grants
            if grant.authorization.type_url == _GENERIC_TYPE_URL
        }
    except DecodeError as error:
        raise ChainUnavailableError(f"{_PATH}: the answer has no grants: {error}") from error


def grant_command(grantee: str) -> str:
    """Return the command with which the participant gives all these grants to an address."""
    return (
        f"inferenced tx inference grant-ml-ops-permissions COLD_KEY_NAME {grantee}"
        " --from COLD_KEY_NAME --keyring-backend file --gas 2000000 --node CHAIN_NODE_URL"
    )
