"""Reads the answer to ``abci_query`` in pieces, cut anywhere, so that a value of any size needs little memory: pure.

    JSON before the value ── "value": " ──▶ base64 of the value ── " ──▶ JSON after it

The value goes on, decoded, as it comes. The JSON around it is kept without the value, and is read as a whole at the
end: whether the query succeeded may stand behind the value. An answer without a value is only JSON: an error, or
``null``.
"""

from __future__ import annotations

import binascii
import enum
import re
from typing import Any, Protocol, TypeVar

from dapi.chain.rpc_answers import QueryAnswer, RpcError, decode_answer
from dapi.errors import ChainUnavailableError
from dapi.messages.sizes import MIB

T_co = TypeVar("T_co", covariant=True)

_MAX_JSON_BYTES = MIB
# No string can hold this: a quotation mark inside one has a backslash before it.
_BEFORE_VALUE = re.compile(rb'"value"\s*:\s*"')


class _Place(enum.Enum):
    """Where in the answer the next byte stands."""

    BEFORE_VALUE = "before the value"
    IN_VALUE = "in the value"
    AFTER_VALUE = "after the value"


class ValueReader(Protocol[T_co]):
    """Reads the value of a query in pieces, and makes something of it; both methods raise ChainUnavailableError."""

    def feed(self, piece: bytes) -> None:
        """Read the next piece."""

    def finish(self) -> T_co:
        """Return the result; all pieces are read."""


class AnswerReader:
    """Reads one answer, and feeds ``value`` with the query's value.

    Both methods raise ChainUnavailableError when this is no answer, as ``decode_answer`` does, and what ``value``
    raises.
    """

    def __init__(self, request_id: int, value: ValueReader[Any]) -> None:
        self._request_id = request_id
        self._value = value
        self._place = _Place.BEFORE_VALUE
        self._json = bytearray()
        # Base64 is decoded in fours. The last four wait for what comes next: padding must stand at the end.
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Read the next piece of the answer."""
        if self._place is _Place.BEFORE_VALUE:
            data = self._read_before_value(data)
        if self._place is _Place.IN_VALUE:
            data = self._read_value(data)
        if self._place is _Place.AFTER_VALUE:
            self._keep(data)

    def finish(self) -> QueryAnswer | RpcError:
        """Return what stands around the value (whose own ``value`` is empty), or the error that came in its place."""
        return decode_answer(bytes(self._json), self._request_id, QueryAnswer)

    def _read_before_value(self, data: bytes) -> bytes:
        """Return what belongs to the value."""
        self._json += data
        found = _BEFORE_VALUE.search(self._json)
        begin = b""
        if found is not None:
            begin = bytes(self._json[found.end() :])
            del self._json[found.end() :]
            self._place = _Place.IN_VALUE
        self._keep(b"")
        return begin

    def _read_value(self, data: bytes) -> bytes:
        """Pass the value on; return what stands after it, with its quotation mark."""
        end = data.find(b'"')
        if end >= 0:
            self._place = _Place.AFTER_VALUE
        text = self._rest + (data if end < 0 else data[:end])
        whole = len(text) if end >= 0 else max(0, len(text) - 1) // 4 * 4
        self._rest = text[whole:]
        try:
            piece = binascii.a2b_base64(text[:whole], strict_mode=True)
        except binascii.Error as error:
            raise ChainUnavailableError(f"an answer that cannot be read: its value is no base64: {error}") from error
        if end < 0 and text.endswith(b"=", 0, whole):
            raise ChainUnavailableError("an answer that cannot be read: its value is no base64: padding in its midst")
        if piece:
            self._value.feed(piece)
        return b"" if end < 0 else data[end:]

    def _keep(self, data: bytes) -> None:
        self._json += data
        if len(self._json) > _MAX_JSON_BYTES:
            raise ChainUnavailableError(f"an answer that cannot be read: more than {_MAX_JSON_BYTES} bytes of JSON")
