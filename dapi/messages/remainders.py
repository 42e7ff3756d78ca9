"""Tells whether all numbers of a column leave one remainder, without a Python object for each.

The remainder of a number is that of the sum of its bytes, each times the remainder of its place: b0 + 256 b1 + … A
table gives what a byte at a place contributes, for the byte of every number at once. Calls into C for all numbers take
less than half of the time that ``%`` takes for each.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from typing import Final

from dapi.messages.columns import little_endian

_NUMBER_BYTES: Final = 8
# Fewer are sooner divided one by one.
_FEW: Final = 64
# So many at a time need little memory, and let another thread have the interpreter soon.
_PIECE: Final = 32_768
# Twice a remainder has to fit into a byte.
_MAX_DIVISOR: Final = 128


def all_leave(column: array[int], divisor: int, remainder: int) -> bool:
    """Return whether the numbers of a column, at least one, all leave ``remainder`` when ``divisor`` divides them."""
    if len(column) <= _PIECE:
        return _all_leave(column, divisor, remainder)
    pieces = (column[begin : begin + _PIECE] for begin in range(0, len(column), _PIECE))
    return all(_all_leave(piece, divisor, remainder) for piece in pieces)


def _all_leave(column: array[int], divisor: int, remainder: int) -> bool:
    count = len(column)
    if count >= _FEW and divisor <= _MAX_DIVISOR:
        numbers = little_endian(column).tobytes()
        zeros = bytes(count)
        tables = _tables(divisor)
        # One that has this byte may be negative.
        if numbers[_NUMBER_BYTES - 1 :: _NUMBER_BYTES] == zeros:
            found = numbers[::_NUMBER_BYTES].translate(tables[0])
            for place in range(1, _NUMBER_BYTES - 1):
                plane = numbers[place::_NUMBER_BYTES]
                if plane != zeros:
                    found = _sum(found, plane.translate(tables[place]), count).translate(tables[0])
            return found == bytes([remainder]) * count if 0 <= remainder < divisor else False
    return {number % divisor for number in column} == {remainder}


@lru_cache(maxsize=16)
def _tables(divisor: int) -> list[bytes]:
    """Return, for each place, the remainder that each byte there contributes."""
    return [bytes(256**place * byte % divisor for byte in range(256)) for place in range(_NUMBER_BYTES)]


def _sum(one: bytes, other: bytes, count: int) -> bytes:
    """Add byte by byte; no sum is above 255."""
    return (int.from_bytes(one, "little") + int.from_bytes(other, "little")).to_bytes(count, "little")
