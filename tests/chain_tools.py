"""Transactions for tests of the simulated chain, encoded by hand and signed with libsecp256k1."""

from __future__ import annotations

from collections.abc import Sequence

from coincurve import PrivateKey

from dapi.simulator.chain.addresses import address_of_key
from dapi.simulator.chain.wire import (
    any_field,
    bytes_field,
    double_field,
    message_field,
    packed_double_field,
    packed_int64_field,
    varint_field,
)

CHAIN_ID = "gonka-simulated"
BATCH_URL = "/inference.inference.MsgSubmitPocBatch"
VALIDATION_URL = "/inference.inference.MsgSubmitPocValidation"
EXEC_URL = "/cosmos.authz.v1beta1.MsgExec"
PUBLIC_KEY_URL = "/cosmos.crypto.secp256k1.PubKey"
SECOND_NS = 1_000_000_000
CURVE_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141

Packed = tuple[str, bytes]


class Key:
    """A key pair made from one byte."""

    def __init__(self, seed: int) -> None:
        self._private = PrivateKey(bytes([seed]) * 32)
        self.public = self._private.public_key.format()
        self.address = address_of_key(self.public)

    def sign(self, data: bytes) -> bytes:
        """Sign the SHA-256 of ``data``: r and s, 32 bytes each."""
        return self._private.sign_recoverable(data)[:64]


def batch(
    creator: str,
    *,
    height: int = 10,
    batch_id: str = "b-1",
    nonces: Sequence[int] = (7, 300),
    dist: Sequence[float] = (0.5, 1.25),
    node_id: str = "node1",
) -> Packed:
    """Encode a MsgSubmitPocBatch."""
    encoded = (
        bytes_field(1, creator)
        + varint_field(2, height)
        + bytes_field(3, batch_id)
        + packed_int64_field(4, nonces)
        + packed_double_field(5, dist)
        + bytes_field(6, node_id)
    )
    return BATCH_URL, encoded


def validation(creator: str, participant: str, *, height: int = 10, n_invalid: int = 0) -> Packed:
    """Encode a MsgSubmitPocValidation."""
    encoded = (
        bytes_field(1, creator)
        + bytes_field(2, participant)
        + varint_field(3, height)
        + double_field(7, 1.4)
        + double_field(8, 1e-7)
        + varint_field(9, n_invalid)
        + double_field(10, 0.5)
    )
    return VALIDATION_URL, encoded


def granted(grantee: str, *messages: Packed) -> Packed:
    """Wrap messages into a MsgExec."""
    return EXEC_URL, bytes_field(1, grantee) + b"".join(any_field(2, *message) for message in messages)


def transaction(
    key: Key,
    *messages: Packed,
    timeout_ns: int | None,
    account_number: int = 1,
    chain_id: str = CHAIN_ID,
    gas_limit: int = 1_000_000_000,
    sequence: int = 0,
    unordered: bool = True,
    timeout_height: int = 0,
    shows_key: bool = True,
    shown_key: bytes | None = None,
    is_high_s: bool = False,
) -> bytes:
    """Encode and sign a TxRaw; what is not said is as dapi must do it."""
    body = b"".join(any_field(1, *message) for message in messages)
    body += varint_field(3, timeout_height) + varint_field(4, unordered)
    if timeout_ns is not None:
        seconds, nanos = divmod(timeout_ns, SECOND_NS)
        body += message_field(5, varint_field(1, seconds) + varint_field(2, nanos))
    signer = any_field(1, PUBLIC_KEY_URL, bytes_field(1, shown_key or key.public)) if shows_key else b""
    signer += message_field(2, message_field(1, varint_field(1, 1))) + varint_field(3, sequence)
    auth = message_field(1, signer) + message_field(2, varint_field(2, gas_limit))
    sign_doc = bytes_field(1, body) + bytes_field(2, auth) + bytes_field(3, chain_id) + varint_field(4, account_number)
    signature = key.sign(sign_doc)
    if is_high_s:
        s = CURVE_ORDER - int.from_bytes(signature[32:], "big")
        signature = signature[:32] + s.to_bytes(32, "big")
    return bytes_field(1, body) + bytes_field(2, auth) + bytes_field(3, signature)
