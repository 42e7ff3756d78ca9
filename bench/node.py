"""A node that has batches without end: the other side of the intake benchmarks.

It keeps a number of messages outstanding, sends the next one for each ack, and measures how long each ack took. Frames
are put together from prepared bytes and acks are cut apart by hand, so that the node costs next to nothing beside
what is measured.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
import time

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PLACE = 10**18


class Load:
    """Distinct messages of one size: alike but for one nonce and the id, both of which are the message's number."""

    def __init__(self, nonces: int) -> None:
        batch = {
            "public_key": "02" + "ab" * 32,
            "block_hash": "CD" * 32,
            "block_height": 1000,
            "nonces": [*range(10**6, 10**6 + nonces - 1), _PLACE],
            "dist": [1.4 * (i + 1) / nonces for i in range(nonces)],
            "node_id": 1,
        }
        message = {"type": "generated", "batch": batch, "id": "#"}
        text = json.dumps(message, separators=(",", ":")).encode()
        before, after = text.split(str(_PLACE).encode())
        self._before, (self._between, self._after) = before, after.split(b"#")

    def message(self, number: int) -> bytes:
        """Return the message with this number."""
        digits = str(_PLACE + number).encode()
        return b"".join((self._before, digits, self._between, digits, self._after))

    def batch(self, number: int) -> bytes:
        """Return the batch alone of the message with this number, as a callback brings it."""
        return self.message(number).partition(b'"batch":')[2].rpartition(b',"id":')[0]

    @staticmethod
    def number(ack: bytes) -> int:
        """Return the number of the message that an ack is for."""
        return int(json.loads(ack)["id"]) - _PLACE


class BusyNode:
    """Serves one WebSocket client until ``total`` messages are acknowledged; ``finished`` tells the ack times.

    ``extensions`` is what it accepts of the client's offer, as the header says it.
    """

    extensions = b""

    def __init__(self, load: Load, total: int, outstanding: int) -> None:
        self._load = load
        self._total = total
        self._outstanding = outstanding
        self.finished: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self.elapsed_seconds = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Upgrade, send, and read acks (an asyncio.start_server callback)."""
        try:
            await self._upgrade(reader, writer)
            times = await self._exchange(reader, writer)
            self.finished.set_result(times)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.finished.set_exception(error)

    async def _upgrade(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        headers = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
        key = next(value for name, value in headers.items() if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        extensions = b"Sec-WebSocket-Extensions: " + self.extensions + b"\r\n" if self.extensions else b""
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + extensions
            + b"Sec-WebSocket-Accept: "
            + accept
            + b"\r\n\r\n"
        )

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[float]:
        sent: dict[int, float] = {}
        times: list[float] = []
        begin = time.perf_counter()

        def send(number: int) -> None:
            payload = self._load.message(number)
            size = len(payload)
            head = struct.pack("!BBH", 0x81, 126, size) if size < 65536 else struct.pack("!BBQ", 0x81, 127, size)
            sent[number] = time.perf_counter()
            writer.write(head + payload)

        for number in range(min(self._outstanding, self._total)):
            send(number)
        following = len(sent)
        while len(times) < self._total:
            opcode, payload = await self._frame(reader)
            if opcode != 1:
                continue
            times.append(time.perf_counter() - sent.pop(self._load.number(payload)))
            if following < self._total:
                send(following)
                following += 1
        self.elapsed_seconds = time.perf_counter() - begin
        return times

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
        mask, payload = await reader.readexactly(4), await reader.readexactly(size)
        key = (mask * (size // 4 + 1))[:size]
        return first & 0x0F, (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
