"""Addresses as the chain computes them, written from BIP 173 and the document: another hand than dapi's own."""

from __future__ import annotations

import hashlib

from Crypto.Hash import RIPEMD160

PREFIX = "gonka"

_LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LETTERS = 6


def address_of_key(public_key: bytes) -> str:
    """Return the address of a compressed secp256k1 key (33 bytes)."""
    digest = RIPEMD160.new(hashlib.sha256(public_key).digest()).digest()
    number = int.from_bytes(digest, "big")
    # 160 bits are exactly 32 groups of 5.
    groups = [number >> shift & 31 for shift in range(155, -5, -5)]
    remainder = _remainder([*_prefix_groups(PREFIX), *groups, *[0] * _CHECKSUM_LETTERS]) ^ 1
    checksum = [remainder >> shift & 31 for shift in range(25, -5, -5)]
    return PREFIX + "1" + "".join(_LETTERS[group] for group in groups + checksum)


def is_address(text: str) -> bool:
    """Whether this is a bech32 address of 20 bytes with the chain's prefix and a right checksum."""
    prefix, separator, rest = text.rpartition("1")
    if prefix != PREFIX or not separator or any(letter not in _LETTERS for letter in rest):
        return False
    groups = [_LETTERS.index(letter) for letter in rest]
    return len(groups) == 32 + _CHECKSUM_LETTERS and _remainder([*_prefix_groups(prefix), *groups]) == 1


def _prefix_groups(prefix: str) -> list[int]:
    return [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]


def _remainder(groups: list[int]) -> int:
    checksum = 1
    for group in groups:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ group
        for bit, factor in enumerate(_GENERATOR):
            if top >> bit & 1:
                checksum ^= factor
    return checksum
