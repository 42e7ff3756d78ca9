"""Tells whether a number of a column is below 0, without a Python object for each.

The highest bit of a whole number of 8 bytes, and of a double, is its sign: it stands in the last of its bytes when
these are little-endian. A byte without its highest bit is ASCII.
"""

from __future__ import annotations

from array import array

from dapi.messages.columns import little_endian


def first_negative(column: array[int] | array[float]) -> int | None:
    """Return the place of the first number below 0; None: there is none. -0.0 is not below 0."""
    numbers = little_endian(column).tobytes()
    if numbers[7::8].isascii():
        return None
    return next((place for place, number in enumerate(column) if number < 0), None)
