"""Reads the lists of numbers in a JSON text into columns, without a Python object for each number.

``cut`` takes the lists out of the text. What is left is small, and msgspec decodes it as strictly as ever, with
``[0]``, ``[1]`` … in the place of the lists. ``read_column`` reads a list with simdjson, which takes half the time that
msgspec needs to make a list, and nothing has to be freed afterwards. A long list is read in pieces, each of which takes
less than a millisecond and little memory: so another thread may have the interpreter between two of them.

simdjson is stricter than msgspec with some numbers (a large one among floats), and refuses them. So nothing is refused
here: None means that msgspec has to decode the whole text. What both take, they take as the same numbers.
tests/unit/messages/test_number_lists.py compares them.

Why the place of a list in the text tells its field: the text that is left has no ``[`` but those of the numbers in
brackets. A field that is a list needs one, so where each list that was cut out is one field's, none of them was part of
anything else, not of a string either. A list that was cut out has one ``]``, at its end, so it has no list inside.
"""

from __future__ import annotations

import json
import math
import struct
from array import array
from typing import Final, Literal, NamedTuple

from dapi.messages.columns import Typecode, column

try:
    from simdjson import Parser
except ImportError:
    parser_class: type[Parser] | None = None
else:
    parser_class = Parser
"""None where simdjson is not installed: there is no wheel of it for every platform."""

MIN_BYTES: Final = 2048
"""A smaller text, of some hundred numbers, is sooner decoded by msgspec in one piece."""

PIECE_BYTES: Final = 128 * 1024
"""So much of a long list is read at a time: simdjson needs ten times its memory."""

MAX_LISTS: Final = 3
"""So many lists has a batch of the kind that has the most."""

_SIMDJSON_TYPES: dict[Typecode, Literal["i", "d"]] = {"q": "i", "d": "d"}


class Place(NamedTuple):
    """Where a list begins and ends in its text."""

    begin: int
    end: int


class Cut(NamedTuple):
    """A JSON text without its lists; where each was is in ``lists``, at the place that stands for it in ``text``."""

    text: bytes
    lists: list[Place]


def cut(payload: bytes) -> Cut | None:
    """Take the lists out of a JSON text; None where it has none, or too many, or is better decoded in one piece."""
    if parser_class is None or len(payload) < MIN_BYTES:
        return None
    kept: list[bytes] = []
    lists: list[Place] = []
    end = 0
    while (begin := payload.find(b"[", end)) >= 0:
        kept += (payload[end:begin], b"[%d]" % len(lists))
        end = payload.find(b"]", begin) + 1
        if not end or len(lists) == MAX_LISTS:
            return None
        lists.append(Place(begin, end))
    kept.append(payload[end:])
    return Cut(b"".join(kept), lists) if lists else None


def read_column(
    text: bytes, place: Place, typecode: Typecode, *, with_nan: bool = False
) -> array[int] | array[float] | None:
    """Read the JSON list at a place into a column of this type; None when it is no list of such numbers, or may be.

    ``with_nan`` allows the literal NaN, in a column of doubles.
    """
    values: array[int] | array[float] = array(typecode)
    begin, end = place
    while begin < end:
        # Cut at a comma: a list of numbers has none but those between them.
        comma = text.find(b",", begin + PIECE_BYTES, end)
        piece = text[begin:end] if comma < 0 else text[begin:comma] + b"]"
        numbers = piece if begin == place.begin else b"[" + piece
        found = _read_piece(numbers, typecode)
        if found is None and with_nan and typecode == "d":
            found = _read_with_nan(numbers)
        if found is None:
            return None
        # Before a comma, or behind one, there is a number.
        if not found and len(piece) < end - place.begin:
            return None
        values.frombytes(found)
        begin = end if comma < 0 else comma + 1
    return values


def _read_piece(numbers: bytes, typecode: Typecode) -> bytes | None:
    if parser_class is None:
        return None
    try:
        # A new parser each time: an old one keeps memory for the largest text that it has read, ten times its size.
        buffer = parser_class().parse(numbers).as_buffer(of_type=_SIMDJSON_TYPES[typecode])  # type: ignore[union-attr]
    except (ValueError, TypeError, RuntimeError):
        return None
    return bytes(buffer)


def _read_with_nan(numbers: bytes) -> bytes | None:
    """Read doubles of which some are NaN, which simdjson does not; the others are as strictly read as ever."""
    if b"NaN" not in numbers:
        return None
    try:
        values = json.loads(numbers)
        # A bool, too, would become a double.
        found = column("d", values) if set(map(type, values)) <= {int, float} else None
    except (ValueError, struct.error):
        return None
    return found.tobytes() if found is not None and not any(map(math.isinf, found)) else None
