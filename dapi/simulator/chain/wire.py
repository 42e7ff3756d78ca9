"""Protobuf's wire format, read and written by hand: an implementation that shares nothing with dapi's own messages.

Reading is strict as the chain is (ADR-027): fields ascending, varints no longer than needed, defaults left out, no
unknown field. A message is a frozen struct whose ``WIRE`` says which field number holds which attribute, and how.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeVar

import msgspec

_VARINT, _FIXED64, _LENGTH = 0, 1, 2


class WireError(Exception):
    """These bytes are no canonical encoding of the message they should be."""


class Kind(msgspec.Struct, frozen=True):
    """How a field's value is read; ``may_be_empty`` where presence alone says something."""

    wire_type: int
    read: Callable[[Any], Any]
    may_be_empty: bool = False
    is_repeated: bool = False


class Message(msgspec.Struct, frozen=True):
    """Base of what is read: ``WIRE`` maps a field's number to its attribute and kind."""

    WIRE: ClassVar[dict[int, tuple[str, Kind]]] = {}


M = TypeVar("M", bound=Message)


def decode(message_type: type[M], data: bytes) -> M:
    """Read one message; raises WireError, which names the message and the field."""
    values: dict[str, Any] = {}
    last = 0
    name = message_type.__name__
    for number, wire_type, value in _fields(data):
        if number not in message_type.WIRE:
            raise WireError(f"{name}: unknown field {number}")
        attribute, kind = message_type.WIRE[number]
        if wire_type != kind.wire_type:
            raise WireError(f"{name}.{attribute}: wire type {wire_type}")
        if number < last or (number == last and not kind.is_repeated):
            raise WireError(f"{name}.{attribute}: fields are not in ascending order")
        last = number
        if value in (0, b"") and not kind.may_be_empty:
            raise WireError(f"{name}.{attribute}: a default value is written out")
        decoded = kind.read(value)
        values[attribute] = (*values.get(attribute, ()), decoded) if kind.is_repeated else decoded
    return message_type(**values)


def embedded(message_type: type[Message]) -> Kind:
    """Make the kind of a field that holds a message."""
    return Kind(_LENGTH, lambda value: decode(message_type, value), may_be_empty=True)


def repeated(kind: Kind) -> Kind:
    """Make the kind of a field that comes once per element; the attribute is a tuple."""
    return Kind(kind.wire_type, kind.read, may_be_empty=True, is_repeated=True)


def _read_string(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError("a string is no valid UTF-8") from error


def _read_bool(value: int) -> bool:
    if value > 1:
        raise WireError("a bool is neither 0 nor 1")
    return bool(value)


def _read_double(value: bytes) -> float:
    if value == bytes(8):
        raise WireError("a default value is written out")
    number: float = struct.unpack("<d", value)[0]
    return number


def _read_doubles(value: bytes) -> tuple[float, ...]:
    if len(value) % 8:
        raise WireError("a packed field holds no whole doubles")
    return struct.unpack(f"<{len(value) // 8}d", value)


def _read_integers(value: bytes) -> tuple[int, ...]:
    return tuple(_signed(number) for number in _varints(value))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


BOOL = Kind(_VARINT, _read_bool)
INT64 = Kind(_VARINT, _signed)
UINT64 = Kind(_VARINT, lambda value: value)
DOUBLE = Kind(_FIXED64, _read_double)
STRING = Kind(_LENGTH, _read_string)
BYTES = Kind(_LENGTH, lambda value: value)
PACKED_INT64 = Kind(_LENGTH, _read_integers)
PACKED_DOUBLE = Kind(_LENGTH, _read_doubles)


class AnyMessage(Message, frozen=True):
    """google.protobuf.Any."""

    WIRE: ClassVar = {1: ("type_url", STRING), 2: ("value", BYTES)}
    type_url: str = ""
    value: bytes = b""


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise WireError("field number 0")
        value: int | bytes
        if wire_type == _VARINT:
            value, position = _varint(data, position)
        elif wire_type in (_FIXED64, _LENGTH):
            size = 8
            if wire_type == _LENGTH:
                size, position = _varint(data, position)
            value = data[position : position + size]
            if len(value) < size:
                raise WireError(f"field {number}: cut short")
            position += size
        else:
            raise WireError(f"field {number}: wire type {wire_type}")
        yield number, wire_type, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    start, value, shift = position, 0, 0
    while True:
        if position >= len(data):
            raise WireError("a varint is cut short")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if not byte & 0x80 or shift > 63:
            break
    if value >> 64 or byte & 0x80:
        raise WireError("a varint of more than 64 bits")
    if byte == 0 and position - start > 1:
        raise WireError("a varint is longer than needed")
    return value, position


def _varints(data: bytes) -> Iterator[int]:
    position = 0
    while position < len(data):
        # Nonces are many, and most of their varints have few bytes.
        if data[position] < 0x80:
            yield data[position]
            position += 1
        else:
            value, position = _varint(data, position)
            yield value


def varint_field(number: int, value: int) -> bytes:
    """Write an int64, uint64 or bool field; nothing when it is 0."""
    return _encoded(number << 3 | _VARINT) + _encoded(value) if value else b""


def double_field(number: int, value: float) -> bytes:
    """Write a double field; nothing when all its bits are 0."""
    encoded = struct.pack("<d", value)
    return _encoded(number << 3 | _FIXED64) + encoded if encoded != bytes(8) else b""


def bytes_field(number: int, value: bytes | str) -> bytes:
    """Write a string or bytes field; nothing when it is empty."""
    return message_field(number, value.encode("utf-8") if isinstance(value, str) else value) if value else b""


def message_field(number: int, value: bytes) -> bytes:
    """Write a message field, also when the message is empty."""
    return _encoded(number << 3 | _LENGTH) + _encoded(len(value)) + value


def packed_int64_field(number: int, values: Iterable[int]) -> bytes:
    """Write a repeated int64; nothing when there is none."""
    return bytes_field(number, b"".join(_encoded(value) for value in values))


def packed_double_field(number: int, values: Iterable[float]) -> bytes:
    """Write a repeated double; nothing when there is none."""
    listed = list(values)
    return bytes_field(number, struct.pack(f"<{len(listed)}d", *listed))


def any_field(number: int, type_url: str, value: bytes) -> bytes:
    """Write a google.protobuf.Any."""
    return message_field(number, bytes_field(1, type_url) + bytes_field(2, value))


def _encoded(value: int) -> bytes:
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
