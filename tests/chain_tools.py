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
SEED_URL = "/inference.inference.MsgSubmitSeed"
HARDWARE_URL = "/inference.inference.MsgSubmitHardwareDiff"
CLAIM_URL = "/inference.inference.MsgClaimRewards"
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


def validation(
    creator: str, participant: str, *, height: int = 10, n_invalid: int = 0, is_fraud: bool = False
) -> Packed:
    """Encode a MsgSubmitPocValidation."""
    encoded = (
        bytes_field(1, creator)
        + bytes_field(2, participant)
        + varint_field(3, height)
        + double_field(7, 1.4)
        + double_field(8, 1e-7)
        + varint_field(9, n_invalid)
        + double_field(10, 0.5)
        + varint_field(11, is_fraud)
    )
    return VALIDATION_URL, encoded


def seed_of(key: Key, epoch_index: int) -> int:
    """The seed of an epoch: see docs/protocol/chain.md, 'Seeds'."""
    return int.from_bytes(key.sign(epoch_index.to_bytes(8, "big"))[:8], "big") & (2**63 - 1) or 1


def seed(creator: str, key: Key, *, epoch_index: int = 1) -> Packed:
    """Encode a MsgSubmitSeed that ``key`` has signed."""
    signature = key.sign(seed_of(key, epoch_index).to_bytes(8, "big"))
    return SEED_URL, bytes_field(1, creator) + varint_field(2, epoch_index) + bytes_field(3, signature.hex())


def claim(creator: str, key: Key, *, epoch_index: int = 1, seed: int | None = None) -> Packed:
    """Encode a MsgClaimRewards with the seed that ``key`` has signed, or with another one."""
    value = seed_of(key, epoch_index) if seed is None else seed
    return CLAIM_URL, bytes_field(1, creator) + varint_field(2, value) + varint_field(3, epoch_index)


def hardware_node(
    local_id: str, *, models: Sequence[str] = ("simulated",), status: int = 1, host: str = "10.0.0.1"
) -> bytes:
    """Encode a HardwareNode."""
    return (
        bytes_field(1, local_id)
        + varint_field(2, status)
        + b"".join(bytes_field(3, model) for model in models)
        + message_field(4, bytes_field(1, "H100") + varint_field(2, 8))
        + bytes_field(5, host)
        + bytes_field(6, "8080")
    )


def hardware_diff(creator: str, *nodes: bytes, removed: Sequence[bytes] = ()) -> Packed:
    """Encode a MsgSubmitHardwareDiff."""
    changed = b"".join(message_field(2, node) for node in nodes)
    return HARDWARE_URL, bytes_field(1, creator) + changed + b"".join(message_field(3, node) for node in removed)


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
    fee: int = 0,
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
    coins = message_field(1, bytes_field(1, "ngonka") + bytes_field(2, str(fee))) if fee else b""
    auth = message_field(1, signer) + message_field(2, coins + varint_field(2, gas_limit))
    sign_doc = bytes_field(1, body) + bytes_field(2, auth) + bytes_field(3, chain_id) + varint_field(4, account_number)
    signature = key.sign(sign_doc)
    if is_high_s:
        s = CURVE_ORDER - int.from_bytes(signature[32:], "big")
        signature = signature[:32] + s.to_bytes(32, "big")
    return bytes_field(1, body) + bytes_field(2, auth) + bytes_field(3, signature)
