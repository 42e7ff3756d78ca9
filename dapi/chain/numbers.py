"""The numbers in the answers of a CometBFT node, within the bounds that a chain and a database have: pure."""

from __future__ import annotations

import calendar
import re

from dapi.errors import ChainUnavailableError

_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))")
_MAX_INT64 = 2**63 - 1


def height_of(told: int | str) -> int:
    """Return a height; raise ChainUnavailableError at one that no chain has, and no database can keep."""
    if not 0 <= int(told) <= _MAX_INT64:
        raise ChainUnavailableError(f"no height: {told}")
    return int(told)


def time_of_block(height: int, text: str) -> int:
    """Return the time of a block in nanoseconds; a node without any block tells that of the year 1."""
    time_ns = parse_time_ns(text)
    if time_ns < 0 < height:
        raise ChainUnavailableError(f"no time: {text[:40]!r}")
    return time_ns


def parse_time_ns(text: str) -> int:
    """Convert an RFC 3339 time with up to nine decimals to nanoseconds since 1970.

    Raises ChainUnavailableError on anything else, and on a time that has no place in 64 bits (after 2262). There is no
    float in between: the last digits matter.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ChainUnavailableError(f"no time: {text[:40]!r}")
    *parts, fraction, sign, hours, minutes = match.groups()
    try:
        year, month, day, hour, minute, second = (int(part) for part in parts)
        seconds = calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))
    except ValueError as error:
        raise ChainUnavailableError(f"no time: {text[:40]!r}") from error
    if sign is not None:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += -offset if sign == "+" else offset
    time_ns = seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
    if time_ns > _MAX_INT64:
        raise ChainUnavailableError(f"no time: {text[:40]!r}")
    return time_ns
