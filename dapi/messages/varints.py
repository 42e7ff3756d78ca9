"""Encodes a column of nonces as protobuf does (a packed list of int64), without a Python object for each.

A varint has 7 bits of a number in each byte, the lowest first, and the highest bit of each byte but the last one set.
The nonces of a batch follow one another, so nearly always all of them need equally many bytes. Then byte by byte is
worked on, for all of them at once: ``_plane`` n has the byte n of every number, and ``_group`` n the bits 7n to 7n+6
of every number, made of two planes. Calls into C for all numbers take a third of the time that a call for each takes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from dapi.messages.columns import little_endian
from dapi.messages.inference_pb2 import MsgSubmitPocBatch

# Fewer are faster encoded one by one.
_FEW: Final = 64
_NUMBER_BYTES: Final = 8
_CONTINUED: Final = 0x80
PIECE: Final = 32_768
"""So many numbers are encoded at a time of a longer column."""

# What the byte n of a number gives to its group n (its low bits), and to the group n + 1 (those that are left).
_LOW: Final = [bytes((byte << n) & 0x7F for byte in range(256)) for n in range(_NUMBER_BYTES)]
_HIGH: Final = [bytes(byte >> (7 - n) for byte in range(256)) for n in range(_NUMBER_BYTES)]
_CONTINUE: Final = bytes(byte | _CONTINUED for byte in range(256))
_ALL_CONTINUED: Final = bytes(range(_CONTINUED, 256))


def packed_varints(column: array[int]) -> bytes | None:
    """Return the numbers of a column as the bytes of a packed list of int64.

    None where protobuf's own encoder has to do it: they are few, some are negative, or they need unlike many bytes.
    """
    if len(column) < _FEW:
        return None
    numbers = little_endian(column).tobytes()
    count = len(numbers) // _NUMBER_BYTES
    zeros = bytes(count)
    used = _NUMBER_BYTES
    while used and numbers[used - 1 :: _NUMBER_BYTES] == zeros:
        used -= 1
    # One of 8 bytes may be negative.
    if used == _NUMBER_BYTES:
        return None
    planes = [numbers[n::_NUMBER_BYTES] for n in range(used)]
    groups = [_group(planes, n, count) for n in range(len(planes) + 1)]
    while len(groups) > 1 and groups[-1] == zeros:
        groups.pop()
    if 0 in groups[-1] and len(groups) > 1:
        return None
    encoded = bytearray(count * len(groups))
    for n, group in enumerate(groups):
        encoded[n :: len(groups)] = group if n == len(groups) - 1 else group.translate(_CONTINUE)
    return bytes(encoded)


def pieces_of(column: array[int]) -> Iterator[bytes]:
    """Return the bytes of a packed list of int64 some numbers at a time, of any column.

    So a few numbers of another size cost a long column little, and it needs little memory.
    """
    for begin in range(0, len(column), PIECE):
        piece = column[begin : begin + PIECE]
        yield packed_varints(piece) or _by_protobuf(piece)


def varint(number: int) -> bytes:
    """Return one number, not negative, as a varint: a length, or a tag."""
    encoded = bytearray()
    while number >= _CONTINUED:
        encoded.append(number % _CONTINUED | _CONTINUED)
        number //= _CONTINUED
    encoded.append(number)
    return bytes(encoded)


def _by_protobuf(column: array[int]) -> bytes:
    """Return the bytes of a packed list as protobuf's own encoder makes them."""
    field = MsgSubmitPocBatch(nonces=column).SerializeToString()
    # A tag of one byte, and the length.
    begin = 1
    while field[begin] & _CONTINUED:
        begin += 1
    return field[begin + 1 :]


def end_of(packed: bytes, begin: int, count: int) -> int:
    """Return where ``count`` varints end of which the first one begins at a place in ``packed``.

    Raises ValueError when so many are not there.
    """
    while count:
        # So many bytes are not too many, and the last byte of each varint is not continued.
        piece = packed[begin : begin + count]
        if not piece:
            raise ValueError(f"{count} numbers are missing")
        begin += len(piece)
        count -= len(piece.translate(None, _ALL_CONTINUED))
    return begin


def _group(planes: list[bytes], n: int, count: int) -> bytes:
    """Return the bits 7n to 7n+6 of each number, as a byte."""
    low = planes[n].translate(_LOW[n]) if n < len(planes) else None
    high = planes[n - 1].translate(_HIGH[n - 1]) if n else None
    if low is None or high is None:
        return low or high or bytes(count)
    return (int.from_bytes(low, "little") | int.from_bytes(high, "little")).to_bytes(count, "little")
