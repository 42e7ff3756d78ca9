"""What an abusive node sends over its WebSocket: frames, made in advance or one after the other."""

from __future__ import annotations

import asyncio
import functools
import itertools
import zlib
from collections.abc import Callable, Iterator

from bench.load import Load
from bench.node import WebSocketNode

# As many bytes as dapi reads at once.
_CHUNK = 65536
_LARGEST_MESSAGE = 16 * 2**20
_LARGE_NONCES = 615_000
_SMALL_NONCES = 20
_TEXT, _TEXT_BEGINS, _COMPRESSED_TEXT = 0x81, 0x01, 0xC1


def frame(payload: bytes, first: int = _TEXT) -> bytes:
    """Return a frame from a server; ``first`` is its first byte."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def _again(repeated: bytes, begin: bytes = b"") -> Iterator[bytes]:
    yield begin
    yield from itertools.repeat(repeated * max(1, _CHUNK // len(repeated)))


# Made before the abuse begins.
load_of = functools.cache(Load)


def _batches(nonces: int) -> Iterator[bytes]:
    load = load_of(nonces)
    return (frame(load.message(number)) for number in itertools.count(10**12))


def _long_numbers() -> Iterator[bytes]:
    digits = "1234567890" * 1000
    numbers = {
        "nonces": ",".join(str(number) for number in range(100)),
        "dist": ",".join(["0." + digits] * 100),
    }
    fields = ",".join(f'"{name}":[{values}]' for name, values in numbers.items())
    batch = f'{{"public_key":"02","block_hash":"CD","block_height":1,{fields},"node_id":1}}'
    right = frame(f'{{"type":"generated","batch":{batch},"id":"1"}}'.encode())
    wrong = frame(f'{{"type":"generated","batch":{{"node_id":{digits * 100}}},"id":"1"}}'.encode())
    return itertools.cycle((right, wrong))


def _bombs() -> Iterator[bytes]:
    deflate = zlib.compressobj(9, wbits=-15)
    bomb = deflate.compress(b"{" + b" " * (_LARGEST_MESSAGE - 2) + b"}") + deflate.flush(zlib.Z_SYNC_FLUSH)
    yield from itertools.repeat(frame(bomb[:-4], _COMPRESSED_TEXT))


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "bad JSON": lambda: _again(frame(b"{broken}")),
    "empty messages": lambda: _again(frame(b"")),
    "empty continuation frames": lambda: _again(b"\x00\x00", frame(b"{ ", _TEXT_BEGINS)),
    "2-byte fragments": lambda: _again(b"\x00\x02  ", frame(b"{ ", _TEXT_BEGINS)),
    "maximal messages": lambda: _batches(_LARGE_NONCES),
    "deep nesting": lambda: _again(frame(b'{"type":"generated","id":"1","batch":' + b"[" * 10**6)),
    "10,000-digit numbers": _long_numbers,
    "pings without end": lambda: _again(b"\x89\x01x"),
    "acks never read": lambda: _batches(_SMALL_NONCES),
    "compressed bombs": _bombs,
    "good batches without end": lambda: _batches(1_000),
}
"""What a flood sends, piece by piece."""

_READS_NOTHING = "acks never read"


class Done:
    """How much of an abuse took place: connections, and bytes that were sent over them."""

    def __init__(self) -> None:
        self.connections = 0
        self.bytes = 0


class FloodingNode(WebSocketNode):
    """Answers each upgrade, and floods the connection from the moment that ``go`` is set."""

    def __init__(self, name: str, go: asyncio.Event, done: Done) -> None:
        self._name = name
        self._done = done
        # Once, so that what it takes is ready.
        next(FLOODS[name]())
        self._go = go
        if name == "compressed bombs":
            self.extensions = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Upgrade, wait, and flood (an asyncio.start_server callback)."""
        reading = None
        try:
            await self._upgrade(reader, writer)
            await self._go.wait()
            if self._name != _READS_NOTHING:
                reading = asyncio.ensure_future(_read_all(reader))
            self._done.connections += 1
            for piece in FLOODS[self._name]():
                writer.write(piece)
                await writer.drain()
                self._done.bytes += len(piece)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            if reading is not None:
                reading.cancel()
            writer.close()


async def _read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(_CHUNK):
        pass


class ReturningNodes(WebSocketNode):
    """Hangs up all connections when ``go`` is set, and takes them when they come back."""

    def __init__(self, go: asyncio.Event, done: Done) -> None:
        self._go = go
        self._done = done

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Upgrade, and stay until ``go`` is set, or for good (an asyncio.start_server callback)."""
        try:
            has_gone = self._go.is_set()
            await self._upgrade(reader, writer)
            if has_gone:
                self._done.connections += 1
                await _read_all(reader)
            else:
                await self._go.wait()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
