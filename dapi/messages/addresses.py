"""Addresses of the network, made from public keys."""

from __future__ import annotations

import hashlib
import re

import bech32
from Crypto.Hash import RIPEMD160

from dapi.errors import MessageError

_PREFIX = "gonka"
_COMPRESSED_KEY = re.compile(r"0[23][0-9a-fA-F]{64}")


def address_of(public_key_hex: str) -> str:
    """Return the address (``gonka1…``) of a compressed secp256k1 public key, which is given as 66 hex digits.

    It is the bech32 form of RIPEMD160(SHA256(key)). Raises MessageError, with the field ``public_key``, when the text
    is no such key.
    """
    if not _COMPRESSED_KEY.fullmatch(public_key_hex):
        raise MessageError(
            "public_key", "is not a compressed secp256k1 key: 66 hex digits, of which the first are 02 or 03"
        )
    digest = RIPEMD160.new(hashlib.sha256(bytes.fromhex(public_key_hex)).digest()).digest()
    words = bech32.convertbits(digest, 8, 5)
    assert words is not None, "it refuses only values of more than 8 bits"  # noqa: S101
    return bech32.bech32_encode(_PREFIX, words)
