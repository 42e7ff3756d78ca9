"""The signing key, from the network's own keyring folders or from a file with a hex key.

The folders are the Cosmos SDK's: ``<keyring_dir>/keyring-file`` or ``<keyring_dir>/keyring-test``, with a file
``<name>.info`` per key (docs/protocol/chain.md, 'Keyring'). Each file is a compact JWE (PBES2-HS256+A128KW, A256GCM)
around JSON; ``Data`` in it is a protobuf Record in base64. This module writes, logs and shows nothing; a secret leaves
it only inside a SigningKey.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NoReturn

import coincurve
import msgspec
from google.protobuf.message import DecodeError
from jwcrypto import jwe, jwk
from jwcrypto.common import JWException

from dapi.errors import ConfigError, StartError
from dapi.messages import cosmos_pb2
from dapi.messages.addresses import address_of

PRIVATE_KEY_TYPE_URL = "/cosmos.crypto.secp256k1.PrivKey"
BACKENDS = ("file", "test")

# The framework's own password for its test keyrings.
_TEST_PASSWORD = "test"  # noqa: S105
_ALGORITHM = "PBES2-HS256+A128KW"
_ENCRYPTION = "A256GCM"
# The network writes 8192. The file says how much work its password costs, so that is bounded; jwcrypto's bound is this.
_MAX_ITERATIONS = 16384
# A record is some 300 bytes, encrypted and encoded some 1,000.
_MAX_FILE_BYTES = 64 * 1024
_COMPACT = re.compile(r"[\w-]+(?:\.[\w-]+){4}", re.ASCII)
# First bytes, after a length, of what the framework wrote before its version 0.46: the first four bytes of a hash of
# crypto/keys/localInfo, ledgerInfo, offlineInfo and multiInfo.
_AMINO_PREFIXES = tuple(bytes.fromhex(text) for text in ("0dad153d", "a08cb0fb", "1f4d3ed6", "34878fb8"))


class SigningKey:
    """A secp256k1 key that signs for one address. Its secret has no repr and no accessor.

    ``public_key`` is compressed (33 bytes), ``address`` the bech32 address of the account that it signs for.
    """

    __slots__ = ("_private_key", "address", "public_key")

    def __init__(self, secret: bytes) -> None:
        """``secret`` is 32 bytes: a number from 1 to the order of the curve minus 1; ValueError for anything else."""
        if len(secret) != 32:
            raise ValueError("a secp256k1 key has 32 bytes")
        self._private_key = coincurve.PrivateKey(secret)
        self.public_key: bytes = self._private_key.public_key.format(compressed=True)
        self.address: str = address_of(self.public_key.hex())

    def __repr__(self) -> str:
        return f"<SigningKey {self.address}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is not to be copied out of the process")

    def sign(self, message: bytes) -> bytes:
        """Sign SHA-256 of the message: 64 bytes, r and s, with a low s and the nonce of RFC 6979."""
        # The recoverable form begins with r and s as they are; the usual one is DER.
        signature: bytes = self._private_key.sign_recoverable(message)
        return signature[:64]


class _Header(msgspec.Struct):
    alg: str
    enc: str
    p2c: int


class _Item(msgspec.Struct):
    data: bytes = msgspec.field(name="Data")


def load_signing_key(backend: str, keyring_dir: str, key_name: str, password: str | None) -> SigningKey:
    """Load the key ``key_name`` from the keyring below ``keyring_dir`` (``~`` is the home folder).

    ``backend`` is ``file`` or ``test``; ``test`` has a fixed password and ignores the given one. This computes for some
    milliseconds. Raises ConfigError when a setting cannot be right, and StartError when the key is not there, cannot be
    read with this password, or cannot sign for the network.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"keyring_backend {backend!r} is not supported: use one of {', '.join(BACKENDS)}")
    if not key_name:
        raise ConfigError("signer_key_name is empty: give the name of a key in the keyring")
    if backend == "test":
        password = _TEST_PASSWORD
    elif not password:
        raise ConfigError("KEYRING_PASSWORD is not set, and the keyring backend 'file' needs it")
    path = Path(os.path.expanduser(keyring_dir)) / f"keyring-{backend}" / _file_name(key_name)
    return _key_of(_decrypt(_read_record_file(path, key_name), password, path, backend), key_name, path)


def load_signing_key_file(path: str) -> SigningKey:
    """Load the key from a file that holds its 32 bytes in hex (``0x`` and white space around are allowed).

    Raises StartError when the file cannot be read, can be read by others than its owner, or holds no such key.
    """
    place = Path(os.path.expanduser(path))
    try:
        with place.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise StartError(f"key file {place} is open to others (mode {mode & 0o777:03o}): chmod 600 {place}")
            text = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise StartError(f"key file {place} cannot be read: {error.strerror}") from error
    match = re.fullmatch(rb"\s*(?:0x)?([0-9a-fA-F]{64})\s*", text)
    if match is None:
        raise StartError(f"key file {place} does not hold a key: 64 hex digits are expected")
    return _signing_key(bytes.fromhex(match[1].decode("ascii")), f"key file {place}")


def _file_name(key_name: str) -> str:
    return key_name.replace("%", "%25").replace("/", "%2F") + ".info"


def _key_name(file_name: str) -> str:
    return file_name.removesuffix(".info").replace("%2F", "/").replace("%25", "%")


def _read_record_file(path: Path, key_name: str) -> str:
    folder = path.parent
    try:
        names = sorted(_key_name(entry.name) for entry in folder.iterdir() if entry.name.endswith(".info"))
        if key_name not in names:
            there = f"the keys there are {', '.join(map(repr, names))}" if names else "there are no keys"
            raise StartError(f"no key {key_name!r} in keyring {folder}: {there}")
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES).decode("ascii").strip()
    except FileNotFoundError as error:
        raise StartError(f"there is no keyring {folder}: check keyring_dir and keyring_backend") from error
    except OSError as error:
        raise StartError(f"keyring {folder} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise StartError(f"{path} is no keyring file: it is not text") from error


def _decrypt(text: str, password: str, path: Path, backend: str) -> bytes:
    """Return the record inside an encrypted keyring file."""
    if _COMPACT.fullmatch(text) is None:
        raise StartError(f"{path} is no keyring file: not a compact JWE")
    token = jwe.JWE()
    try:
        token.deserialize(text)
        header = msgspec.json.decode(token.objects["protected"], type=_Header)
    except (JWException, msgspec.DecodeError) as error:
        raise StartError(f"{path} is no keyring file: not a JWE with a password") from error
    if (header.alg, header.enc) != (_ALGORITHM, _ENCRYPTION):
        raise StartError(f"{path} is encrypted with {header.alg} and {header.enc}, not {_ALGORITHM} and {_ENCRYPTION}")
    if not 1 <= header.p2c <= _MAX_ITERATIONS:
        raise StartError(f"{path} asks for {header.p2c} rounds of its password; {_MAX_ITERATIONS} are allowed")
    try:
        token.decrypt(jwk.JWK.from_password(password))
    except (JWException, ValueError) as error:
        hint = "check KEYRING_PASSWORD" if backend == "file" else "it is no file of the backend 'test'"
        raise StartError(f"wrong password for {path}, or the file is damaged: {hint}") from error
    try:
        return msgspec.json.decode(token.payload, type=_Item).data
    except msgspec.DecodeError:
        # Without its cause: the text that it could quote is what the password protects.
        raise StartError(f"{path} does not hold a keyring item") from None


def _key_of(data: bytes, key_name: str, path: Path) -> SigningKey:
    """Return the key of a record; raises StartError unless it can sign here."""
    where = f"key {key_name!r} ({path})"
    # The length before the prefix is a varint of up to three bytes.
    if any(data.find(prefix, 0, 7) >= 0 for prefix in _AMINO_PREFIXES):
        raise StartError(f"{where} was written before version 0.46 of the framework: run `inferenced keys migrate`")
    try:
        record = cosmos_pb2.Record.FromString(data)
    except DecodeError:
        raise StartError(f"{where} is no keyring record") from None
    kind = record.WhichOneof("item")
    if kind is None:
        raise StartError(f"{where} is no keyring record: it has neither a secret nor a device")
    if kind != "local":
        raise StartError(f"{where} is of the kind {kind!r} and holds no secret to sign with: use a local key")
    any_key = record.local.priv_key
    if any_key.type_url != PRIVATE_KEY_TYPE_URL:
        raise StartError(f"{where} is a {any_key.type_url or 'nameless'} key; the network needs {PRIVATE_KEY_TYPE_URL}")
    try:
        secret = cosmos_pb2.PrivKey.FromString(any_key.value).key
        public_key = cosmos_pb2.PubKey.FromString(record.pub_key.value).key
    except DecodeError:
        raise StartError(f"{where} is no keyring record: a key in it is damaged") from None
    key = _signing_key(secret, where)
    if key.public_key != public_key:
        raise StartError(f"{where} is damaged: its public key does not belong to its secret")
    return key


def _signing_key(secret: bytes, where: str) -> SigningKey:
    try:
        return SigningKey(secret)
    except ValueError:
        raise StartError(f"{where} does not hold a valid secp256k1 key") from None
