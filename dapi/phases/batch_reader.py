"""Reads the answer to PocBatchesForStage in pieces, cut anywhere, one batch at a time: pure.

In protobuf a message is a row of fields; a field is its key (number and wire type), the length of a text or a message,
and its value. The answer has one field 1 for each participant. In it stand, in ascending order, field 1 (address),
field 3 (public key) and one field 4 for each batch (docs/protocol/chain.md, 'Validation'). Only one batch is in memory.
Fields that are not known are skipped.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator
from typing import Final, TypeAlias

import msgspec
from google.protobuf.message import DecodeError

from dapi.errors import ChainUnavailableError
from dapi.messages import validation_pb2
from dapi.messages.sizes import MIB

MAX_BATCH_BYTES: Final = 8 * MIB
"""A transaction of more than 1 MiB comes through no usual mempool, so no batch of an honest participant is larger."""

_MAX_NAME_BYTES = 1024
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_PARTICIPANT = 1
_ADDRESS, _PUBLIC_KEY, _BATCH = 1, 3, 4


class Participant(msgspec.Struct, frozen=True):
    """Whose the batches are that follow; ``public_key`` is hex as the chain writes it."""

    address: str
    public_key: str


class StoredNonces(msgspec.Struct, frozen=True):
    """The nonces of one batch on the chain, and as many distances unless the chain errs; 16 bytes a nonce."""

    nonces: array[int]
    dist: array[float]


class OversizedBatch(msgspec.Struct, frozen=True):
    """A batch of more than MAX_BATCH_BYTES, which was skipped."""

    size: int


Event: TypeAlias = Participant | StoredNonces | OversizedBatch
# How a part of the answer is read: yields events, and None when more bytes are needed; returns what was read.
_Reading: TypeAlias = Generator[Event | None, None, None]
_Field: TypeAlias = tuple[int, int, int]


class BatchReader:
    """Reads one answer: ``feed`` it with all its bytes, in order, then ``finish``.

    Each participant is yielded once, before its batches. One whose address or key stands behind the batches, as the
    chain never writes it, is yielded without it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        # How far the buffer is read, and how many bytes were read before it.
        self._read = self._before = 0
        self._is_between_fields = True
        self._reading = self._read_answer()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield what ``data`` completes; raises ChainUnavailableError when this is no such answer."""
        self._buffer += data
        while (event := next(self._reading)) is not None:
            yield event
        del self._buffer[: self._read]
        self._before += self._read
        self._read = 0

    def finish(self) -> None:
        """Raise ChainUnavailableError when the answer is cut off."""
        if not self._is_between_fields:
            raise ChainUnavailableError("the batches of the stage are cut off")

    def _read_answer(self) -> _Reading:
        while True:
            self._is_between_fields = True
            while self._read == len(self._buffer):
                yield None
            self._is_between_fields = False
            number, wire_type, size = yield from self._head()
            if (number, wire_type) == (_PARTICIPANT, _LENGTH):
                yield from self._read_participant(size)
            else:
                yield from self._skip(size)

    def _read_participant(self, size: int) -> _Reading:
        end = self._place + size
        names = {_ADDRESS: "", _PUBLIC_KEY: ""}
        is_yielded = False
        while self._place < end:
            number, wire_type, size = yield from self._head()
            if self._place + size > end:
                raise ChainUnavailableError("a field is longer than the participant that it belongs to")
            if (number, wire_type) == (_BATCH, _LENGTH):
                if not is_yielded:
                    is_yielded = True
                    yield Participant(names[_ADDRESS], names[_PUBLIC_KEY])
                yield from self._read_batch(size)
            elif number in names and wire_type == _LENGTH and size <= _MAX_NAME_BYTES:
                text = yield from self._take(size)
                names[number] = text.decode("utf-8", "replace")
            else:
                yield from self._skip(size)
        if not is_yielded:
            yield Participant(names[_ADDRESS], names[_PUBLIC_KEY])

    def _read_batch(self, size: int) -> _Reading:
        if size > MAX_BATCH_BYTES:
            yield from self._skip(size)
            yield OversizedBatch(size)
            return
        encoded = yield from self._take(size)
        dist = array("d")
        try:
            batch = validation_pb2.PocBatch.FromString(encoded)
            dist.frombytes(batch.dist)
        except (DecodeError, ValueError) as error:
            raise ChainUnavailableError(f"a batch of the stage cannot be read: {error}") from error
        # A slice of what protobuf holds becomes an array in two thirds of the time.
        yield StoredNonces(array("q", batch.nonces[:]), dist)

    def _head(self) -> Generator[None, None, _Field]:
        """Read the head of a field; return its number, its wire type, and the size of its value in bytes."""
        key = yield from self._varint()
        number, wire_type = key >> 3, key & 7
        if wire_type == _LENGTH:
            size = yield from self._varint()
        elif wire_type == _VARINT:
            # The value itself tells nobody anything here.
            yield from self._varint()
            size = 0
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ChainUnavailableError(f"a field of wire type {wire_type}")
        if number == 0:
            raise ChainUnavailableError("a field of number 0")
        return number, wire_type, size

    def _varint(self) -> Generator[None, None, int]:
        value = 0
        for shift in range(0, 64, 7):
            (byte,) = yield from self._take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ChainUnavailableError("a number of more than 10 bytes")

    def _take(self, size: int) -> Generator[None, None, bytes]:
        while len(self._buffer) - self._read < size:
            yield None
        begin = self._read
        self._read += size
        return bytes(self._buffer[begin : self._read])

    def _skip(self, size: int) -> Generator[None, None, None]:
        while size > (there := len(self._buffer) - self._read):
            self._read += there
            size -= there
            yield None
        self._read += size

    @property
    def _place(self) -> int:
        """How many bytes of the answer are read."""
        return self._before + self._read
