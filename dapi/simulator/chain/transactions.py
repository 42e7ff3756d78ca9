"""Transactions as the simulated chain sees them: decoding, what needs no state to be checked, and signatures.

Written from docs/protocol/chain.md, 'Transactions' and 'Unordered transactions'. Signatures are checked with OpenSSL
(``cryptography``), messages are read by ``wire``: neither shares code with what dapi signs and encodes with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import ClassVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256K1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from dapi.simulator.chain.messages import ChainMessage, Exec, HostMessage, unpack
from dapi.simulator.chain.rules import TxRefused
from dapi.simulator.chain.wire import (
    BOOL,
    BYTES,
    INT64,
    STRING,
    UINT64,
    AnyMessage,
    Message,
    WireError,
    bytes_field,
    decode,
    embedded,
    repeated,
    varint_field,
)

PUBLIC_KEY_URL = "/cosmos.crypto.secp256k1.PubKey"
SIGN_MODE_DIRECT = 1

# Half of the curve's order: the larger of the two possible s is refused.
_MAX_S = 0x7FFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_5D576E73_57A4501D_DFE92F46_681B20A0


class PublicKey(Message, frozen=True):
    """cosmos.crypto.secp256k1.PubKey."""

    WIRE: ClassVar = {1: ("key", BYTES)}
    key: bytes = b""


class Timestamp(Message, frozen=True):
    """google.protobuf.Timestamp."""

    WIRE: ClassVar = {1: ("seconds", INT64), 2: ("nanos", INT64)}
    seconds: int = 0
    nanos: int = 0


class TxBody(Message, frozen=True):
    """cosmos.tx.v1beta1.TxBody, without extensions: the chain knows none."""

    WIRE: ClassVar = {
        1: ("messages", repeated(embedded(AnyMessage))),
        2: ("memo", STRING),
        3: ("timeout_height", UINT64),
        4: ("unordered", BOOL),
        5: ("timeout_timestamp", embedded(Timestamp)),
    }
    messages: tuple[AnyMessage, ...] = ()
    memo: str = ""
    timeout_height: int = 0
    unordered: bool = False
    timeout_timestamp: Timestamp | None = None


class _Single(Message, frozen=True):
    WIRE: ClassVar = {1: ("mode", INT64)}
    mode: int = 0


class _ModeInfo(Message, frozen=True):
    WIRE: ClassVar = {1: ("single", embedded(_Single))}
    single: _Single = _Single()


class SignerInfo(Message, frozen=True):
    """cosmos.tx.v1beta1.SignerInfo."""

    WIRE: ClassVar = {
        1: ("public_key", embedded(AnyMessage)),
        2: ("mode_info", embedded(_ModeInfo)),
        3: ("sequence", UINT64),
    }
    public_key: AnyMessage | None = None
    mode_info: _ModeInfo = _ModeInfo()
    sequence: int = 0


class _Coin(Message, frozen=True):
    WIRE: ClassVar = {1: ("denom", STRING), 2: ("amount", STRING)}
    denom: str = ""
    amount: str = ""


class _Fee(Message, frozen=True):
    WIRE: ClassVar = {1: ("amount", repeated(embedded(_Coin))), 2: ("gas_limit", UINT64)}
    amount: tuple[_Coin, ...] = ()
    gas_limit: int = 0


class AuthInfo(Message, frozen=True):
    """cosmos.tx.v1beta1.AuthInfo."""

    WIRE: ClassVar = {1: ("signer_infos", repeated(embedded(SignerInfo))), 2: ("fee", embedded(_Fee))}
    signer_infos: tuple[SignerInfo, ...] = ()
    fee: _Fee = _Fee()


class _TxRaw(Message, frozen=True):
    WIRE: ClassVar = {1: ("body_bytes", BYTES), 2: ("auth_info_bytes", BYTES), 3: ("signatures", repeated(BYTES))}
    body_bytes: bytes = b""
    auth_info_bytes: bytes = b""
    signatures: tuple[bytes, ...] = ()


class Transaction(msgspec.Struct, frozen=True):
    """A decoded transaction; ``hash`` is upper-case hex."""

    raw: bytes
    hash: str
    body: TxBody
    body_bytes: bytes
    auth: AuthInfo
    auth_bytes: bytes
    signatures: tuple[bytes, ...]
    messages: tuple[ChainMessage, ...]
    granted: tuple[tuple[HostMessage, ...], ...]
    """For each of ``messages`` what it holds: nothing, unless it is an Exec."""

    @property
    def timeout_ns(self) -> int | None:
        """The timeout timestamp in nanoseconds since 1970."""
        timestamp = self.body.timeout_timestamp
        return None if timestamp is None else timestamp.seconds * 1_000_000_000 + timestamp.nanos

    @property
    def signers(self) -> set[str]:
        """The addresses that have to sign."""
        return {message.signer for message in self.messages}

    @property
    def signer(self) -> str:
        """The one that has to sign first, and pays."""
        return min(self.signers)

    @property
    def nonce(self) -> tuple[int, str]:
        """What it uses up: its timeout timestamp in nanoseconds, and its signer."""
        return self.timeout_ns or 0, self.signer

    def host_messages(self) -> Iterator[HostMessage]:
        """Return the messages that do something, unwrapped."""
        for message, granted in zip(self.messages, self.granted, strict=True):
            yield from granted if isinstance(message, Exec) else (message,)

    def sign_doc(self, chain_id: str, account_number: int) -> bytes:
        """Return the bytes that must have been signed."""
        return (
            bytes_field(1, self.body_bytes)
            + bytes_field(2, self.auth_bytes)
            + bytes_field(3, chain_id)
            + varint_field(4, account_number)
        )


def decode_transaction(raw: bytes) -> Transaction:
    """Read a TxRaw; raises TxRefused (sdk 2) on anything that is not canonical, messages inside an Exec included."""
    try:
        envelope = decode(_TxRaw, raw)
        body = decode(TxBody, envelope.body_bytes)
        messages = tuple(unpack(message) for message in body.messages)
        return Transaction(
            raw=raw,
            hash=hash_of(raw),
            body=body,
            body_bytes=envelope.body_bytes,
            auth=decode(AuthInfo, envelope.auth_info_bytes),
            auth_bytes=envelope.auth_info_bytes,
            signatures=envelope.signatures,
            messages=messages,
            granted=tuple(message.inner() if isinstance(message, Exec) else () for message in messages),
        )
    except WireError as error:
        raise TxRefused("sdk", 2, f"{error}: tx parse error") from error


def hash_of(raw: bytes) -> str:
    """Return a transaction's hash."""
    return hashlib.sha256(raw).hexdigest().upper()


def is_signature(public_key: bytes, signed: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (r and s, 32 bytes each, s low) is one of ``signed`` by this compressed key."""
    if len(signature) != 64 or len(public_key) != 33:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if s > _MAX_S:
        return False
    try:
        key = EllipticCurvePublicKey.from_encoded_point(SECP256K1(), public_key)
        key.verify(encode_dss_signature(r, s), signed, ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
