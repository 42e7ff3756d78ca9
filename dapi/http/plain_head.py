"""The head of a request as ML nodes send it, read at once: twisted.web reads line by line, at several times the cost.

A plain head is that of a POST with a Content-Length, in HTTP/1.1, in ASCII, each header once and in one line, without
anything that changes how the request is read or answered. Any other head is left to ``twisted.web``, which takes or
refuses it; so this knows no refusals.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_HEAD: Final = re.compile(rb"POST ([!-~]+) HTTP/1\.1\r\n((?:%s:[\t -~]*\r\n)+)\r\n" % _TOKEN)
# Within what twisted.web allows.
_MAX_BYTES = 8192
_MAX_HEADERS = 100
# Of a length: whatever has more is too large.
_MAX_DIGITS = 12
_NOT_PLAIN: Final = frozenset((b"cookie", b"expect", b"transfer-encoding"))


class PlainHead(NamedTuple):
    """A head of ``size`` bytes: the request's target, its headers by their names in lower case, its body's length."""

    target: bytes
    headers: dict[bytes, bytes]
    length: int
    size: int


def plain_head(data: bytes) -> PlainHead | None:
    """Return the head that ``data`` begins with, None when it is not whole, or not plain."""
    found = _HEAD.match(data, 0, _MAX_BYTES)
    if found is None:
        return None
    target, lines = found.groups()
    headers: dict[bytes, bytes] = {}
    fields = lines.splitlines()
    for field in fields:
        name, _, value = field.partition(b":")
        headers[name.lower()] = value.strip(b" \t")
    if len(headers) < len(fields) or len(fields) > _MAX_HEADERS:
        return None
    if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive" or not _NOT_PLAIN.isdisjoint(headers):
        return None
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or len(length) > _MAX_DIGITS:
        return None
    return PlainHead(target, headers, int(length), found.end())
