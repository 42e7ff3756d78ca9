"""Numbers of a batch as columns: machine numbers side by side, 8 bytes each, none of them a Python object."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Literal, TypeAlias, cast

Typecode: TypeAlias = Literal["q", "d"]


def column(typecode: Typecode, values: Sequence[int] | Sequence[float]) -> array[int] | array[float]:
    """Return numbers as a column: ``q`` of whole numbers from -2**63 to 2**63 - 1, ``d`` of doubles."""
    # array(typecode, values) takes two to three times as long.
    return array(typecode, struct.pack(f"{len(values)}{typecode}", *values))


def integers(values: Sequence[int]) -> array[int]:
    """Return whole numbers as a column of type ``q``; a column stays itself."""
    return values if isinstance(values, array) else cast("array[int]", column("q", values))


def doubles(values: Sequence[float]) -> array[float]:
    """Return numbers as a column of type ``d``; a column stays itself."""
    return values if isinstance(values, array) else cast("array[float]", column("d", values))


def little_endian(column: array[int] | array[float], byteorder: str = sys.byteorder) -> array[int] | array[float]:
    """Return a column whose bytes are little-endian, on a machine of this byte order: as the wire and the ids have it.

    On a little-endian machine it is the column itself.
    """
    if byteorder == "little":
        return column
    swapped = column[:]
    swapped.byteswap()
    return swapped
