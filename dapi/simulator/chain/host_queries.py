"""Queries about a host: its account, what it granted, the nodes that it declared, and what it is owed.

Facts: docs/protocol/chain.md, 'Accounts', 'Authz', 'Hardware nodes' and 'Claims'; the queries of the authz module are
the Cosmos SDK's.
"""

from __future__ import annotations

import base64
from typing import ClassVar

from dapi.simulator.chain.messages import HardwareNode
from dapi.simulator.chain.requests import Query, QueryRefused, not_found, read_request
from dapi.simulator.chain.state import StateView
from dapi.simulator.chain.transactions import PUBLIC_KEY_URL
from dapi.simulator.chain.wire import (
    BOOL,
    BYTES,
    STRING,
    UINT64,
    Message,
    any_field,
    bytes_field,
    embedded,
    message_field,
    varint_field,
)

_GENERIC_AUTHORIZATION_URL = "/cosmos.authz.v1beta1.GenericAuthorization"
_SECOND_NS = 1_000_000_000


class _AddressRequest(Message, frozen=True):
    WIRE: ClassVar = {1: ("address", STRING)}
    address: str = ""


def _account_info(view: StateView, data: bytes) -> bytes:
    return message_field(1, _base_account(view, data))


def _account(view: StateView, data: bytes) -> bytes:
    return any_field(1, "/cosmos.auth.v1beta1.BaseAccount", _base_account(view, data))


def _base_account(view: StateView, data: bytes) -> bytes:
    address = read_request(_AddressRequest, data).address
    account = view.accounts.get(address)
    if account is None:
        raise not_found(f"account {address} not found")
    key = account.public_key
    return (
        bytes_field(1, account.address)
        + (b"" if key is None else any_field(2, PUBLIC_KEY_URL, bytes_field(1, key)))
        + varint_field(3, account.number)
    )


class _GranteesRequest(Message, frozen=True):
    WIRE: ClassVar = {1: ("granter_address", STRING), 2: ("message_type_url", STRING)}
    granter_address: str = ""
    message_type_url: str = ""


def _grantees_by_message_type(view: StateView, data: bytes) -> bytes:
    """Return who may send a message for the granter now; expired grants are left out."""
    request = read_request(_GranteesRequest, data)
    if not request.granter_address or not request.message_type_url:
        raise QueryRefused(18, "rpc error: code = InvalidArgument desc = granter and message type must not be empty")
    encoded = b""
    for (granter, grantee, type_url), expires_ns in view.grants.items():
        is_asked_for = (granter, type_url) == (request.granter_address, request.message_type_url)
        has_expired = expires_ns is not None and expires_ns < view.time_ns
        account = view.accounts.get(grantee)
        if is_asked_for and not has_expired and account is not None:
            key = base64.b64encode(account.public_key or b"")
            encoded += message_field(1, bytes_field(1, grantee) + bytes_field(2, key))
    return encoded


class _PageRequest(Message, frozen=True):
    """cosmos.base.query.v1beta1.PageRequest, which is read and not heeded: there are few grants."""

    WIRE: ClassVar = {1: ("key", BYTES), 2: ("offset", UINT64), 3: ("limit", UINT64), 4: ("count_total", BOOL)}
    key: bytes = b""
    offset: int = 0
    limit: int = 0
    count_total: bool = False


class _GrantsRequest(Message, frozen=True):
    WIRE: ClassVar = {
        1: ("granter", STRING),
        2: ("grantee", STRING),
        3: ("msg_type_url", STRING),
        4: ("pagination", embedded(_PageRequest)),
    }
    granter: str = ""
    grantee: str = ""
    msg_type_url: str = ""
    pagination: _PageRequest = _PageRequest()


def _grants(view: StateView, data: bytes) -> bytes:
    """Return the grants of one granter to one grantee, for one type or for all, with their expiry."""
    request = read_request(_GrantsRequest, data)
    encoded = b""
    for (granter, grantee, type_url), expires_ns in view.grants.items():
        if (granter, grantee) == (request.granter, request.grantee) and request.msg_type_url in ("", type_url):
            encoded += message_field(1, _authorization(1, type_url) + _expiration(2, expires_ns))
    if request.msg_type_url and not encoded:
        raise QueryRefused(2, f"authorization not found for {request.msg_type_url} type", "authz")
    return encoded


class _GranterRequest(Message, frozen=True):
    WIRE: ClassVar = {1: ("granter", STRING), 2: ("pagination", embedded(_PageRequest))}
    granter: str = ""
    pagination: _PageRequest = _PageRequest()


def _granter_grants(view: StateView, data: bytes) -> bytes:
    """Return all grants of one granter, with their grantees and expiry."""
    asked = read_request(_GranterRequest, data).granter
    return b"".join(
        message_field(
            1,
            bytes_field(1, granter)
            + bytes_field(2, grantee)
            + _authorization(3, type_url)
            + _expiration(4, expires_ns),
        )
        for (granter, grantee, type_url), expires_ns in view.grants.items()
        if granter == asked
    )


def _authorization(number: int, type_url: str) -> bytes:
    return any_field(number, _GENERIC_AUTHORIZATION_URL, bytes_field(1, type_url))


def _expiration(number: int, expires_ns: int | None) -> bytes:
    if expires_ns is None:
        return b""
    seconds, nanos = divmod(expires_ns, _SECOND_NS)
    return message_field(number, varint_field(1, seconds) + varint_field(2, nanos))


class _ParticipantRequest(Message, frozen=True):
    WIRE: ClassVar = {1: ("participant", STRING)}
    participant: str = ""


def _hardware_nodes(view: StateView, data: bytes) -> bytes:
    """Return the nodes that a participant declared; nothing for one that never declared any."""
    asked = read_request(_ParticipantRequest, data).participant
    nodes = [view.hardware_nodes[key] for key in sorted(view.hardware_nodes) if key[0] == asked]
    if not nodes:
        return b""
    return message_field(1, bytes_field(1, asked) + b"".join(message_field(2, _hardware_node(node)) for node in nodes))


def _hardware_node(node: HardwareNode) -> bytes:
    return (
        bytes_field(1, node.local_id)
        + varint_field(2, node.status)
        + b"".join(bytes_field(3, model) for model in node.models)
        + b"".join(
            message_field(4, bytes_field(1, hardware.type) + varint_field(2, hardware.count))
            for hardware in node.hardware
        )
        + bytes_field(5, node.host)
        + bytes_field(6, node.port)
    )


def _models_all(view: StateView, _data: bytes) -> bytes:
    return b"".join(message_field(1, view.models[model_id].encoded()) for model_id in sorted(view.models))


def _settle_amount(view: StateView, data: bytes) -> bytes:
    address = read_request(_ParticipantRequest, data).participant
    owed = view.settle_amounts.get(address)
    if owed is None:
        raise not_found(f"settle amount of {address} not found")
    encoded = (
        bytes_field(1, owed.participant)
        + varint_field(2, owed.reward_coins)
        + varint_field(4, owed.epoch_index)
        + bytes_field(5, owed.seed_signature)
    )
    return message_field(1, encoded)


def _mlnode_version(view: StateView, _data: bytes) -> bytes:
    return message_field(1, bytes_field(1, view.mlnode_version))


HOST_QUERIES: dict[str, Query] = {
    "/cosmos.auth.v1beta1.Query/AccountInfo": _account_info,
    "/cosmos.auth.v1beta1.Query/Account": _account,
    "/cosmos.authz.v1beta1.Query/Grants": _grants,
    "/cosmos.authz.v1beta1.Query/GranterGrants": _granter_grants,
    "/inference.inference.Query/GranteesByMessageType": _grantees_by_message_type,
    "/inference.inference.Query/HardwareNodes": _hardware_nodes,
    "/inference.inference.Query/ModelsAll": _models_all,
    "/inference.inference.Query/SettleAmount": _settle_amount,
    "/inference.inference.Query/MLNodeVersion": _mlnode_version,
}
