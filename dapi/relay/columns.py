"""Reads the artifacts of a body as columns, without an object for each of them.

A node writes all artifacts alike. Those whose nonces have the same number of digits are the rows of a table::

    before      digits  middle             vector                            after
    {"nonce":   1728    , "vector_b64": "  ADAANQCyAAAAMgC1ALAALAA0ALQArAAw  "},

A list that is written in another way is not read here: see ``scan``.
"""

from __future__ import annotations

import binascii
import re
from typing import Any, Final, NamedTuple

import numpy as np
import pybase64
from numpy.typing import NDArray

MAX_NONCE: Final = 2**31 - 1
VECTOR_CHARACTERS: Final = 32
VECTOR_BYTES: Final = 24
# A nonce has 1 to 10 digits, and each of a node's processes counts by itself.
_MAX_TABLES = 40
_MAX_DIGITS = len(str(MAX_NONCE))
_POWERS = 10 ** np.arange(_MAX_DIGITS, dtype=np.int64)[::-1]
_FIRST = re.compile(rb'(\{"nonce": ?)[0-9]+(, ?"vector_b64": ?")[^"]{32}("\})(, ?|\])')
_END = b"]"
_EXPONENT = 0x7C00

Table = NDArray[Any]
Nonces = NDArray[np.int64]


class _Layout(NamedTuple):
    before: bytes
    middle: bytes
    after: bytes
    # How many bytes of ``after`` the last artifact does not have.
    between: int


def read_nonces(body: bytes | bytearray, start: int, end: int) -> Nonces | None:
    """Return the nonces of a list of artifacts; None unless it is written as nodes do, and all vectors are right.

    In ``body`` the list goes from after its ``[`` at ``start`` to its ``]`` at ``end``, which is not the last byte.
    """
    if (layout := _layout(body, start)) is None:
        return None
    nonces, vectors = [], []
    for _ in range(_MAX_TABLES):
        if (table := _next_table(body, start, end, layout)) is None:
            return None
        start += table.nbytes
        is_last = start == end + layout.between
        if not _fits(table, layout, is_last=is_last) or (numbers := _numbers(table["digits"])) is None:
            return None
        nonces.append(numbers)
        vectors.append(table["vector"].tobytes())
        if is_last:
            return np.concatenate(nonces) if are_vectors_right(b"".join(vectors)) else None
    return None


def are_vectors_right(characters: bytes) -> bool:
    """Tell whether vectors, one after the other, are finite half floats in base64, without padding."""
    try:
        half_floats = pybase64.b64decode(characters, validate=True)
    except binascii.Error:
        return False
    is_whole = len(half_floats) * VECTOR_CHARACTERS == len(characters) * VECTOR_BYTES
    # Where all bits of the exponent are set, it is no finite number.
    return is_whole and not bool((np.frombuffer(half_floats, "<u2") & _EXPONENT == _EXPONENT).any())


def _layout(body: bytes | bytearray, start: int) -> _Layout | None:
    if (first := _FIRST.match(body, start)) is None:
        return None
    before, middle, after, between = first.groups()
    if between == _END:
        between = b","
    return _Layout(before, middle, after + between, len(between))


def _next_table(body: bytes | bytearray, start: int, end: int, layout: _Layout) -> Table | None:
    """Return the next artifacts whose nonces have the same number of digits."""
    before, middle, after, between = layout
    digits = body.find(middle, start, end) - start - len(before)
    if not 0 < digits <= _MAX_DIGITS:
        return None
    row = np.dtype(
        [
            ("before", f"S{len(before)}"),
            ("digits", np.uint8, digits),
            ("middle", f"S{len(middle)}"),
            ("vector", f"V{VECTOR_CHARACTERS}"),
            ("after", f"S{len(after)}"),
        ]
    )
    # With what follows the list, as if another artifact followed the last one.
    number = (end + between - start) // row.itemsize
    if not number:
        return None
    table = np.frombuffer(body, row, number, start)
    others = np.flatnonzero(table["middle"] != middle)
    return table[: others[0]] if others.size else table


def _fits(table: Table, layout: _Layout, *, is_last: bool) -> bool:
    """Tell whether what is around digits and vectors is the same in each row."""
    ends, expected = table["after"].tobytes(), layout.after * len(table)
    if is_last:
        ends, expected = ends[: -layout.between], expected[: -layout.between]
    return ends == expected and table["before"].tobytes() == layout.before * len(table)


def _numbers(characters: NDArray[np.uint8]) -> Nonces | None:
    """Return the numbers that rows of digits write, None where one is too high or is written in another way."""
    digits = characters - np.uint8(ord("0"))
    count = digits.shape[1]
    if digits.max() > 9 or (count > 1 and not digits[:, 0].all()):
        return None
    numbers: Nonces = digits @ _POWERS[-count:]
    return numbers if numbers.max() <= MAX_NONCE else None
