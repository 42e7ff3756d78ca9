"""The well-behaved nodes: one batch a second each, over the WebSocket or by HTTP, and how long each ack took."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from urllib.parse import urlsplit

from bench.load import Load
from bench.node import WebSocketNode

NONCES = 1_000
# What is on the way for so long when a measurement ends is counted with that; younger ones say nothing.
_LATE_MS = 100.0
_POST_TIMEOUT_SECONDS = 30.0


class AckTimes:
    """Collects the ack times of all good nodes, in milliseconds, from each ``begin`` on."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._waiting: dict[tuple[int, int], float] = {}
        self._begun_at = float("inf")

    def begin(self) -> None:
        """Forget what was collected; messages that were sent before count no more."""
        self._times, self._begun_at = [], time.perf_counter()

    def sent(self, node: int, number: int) -> None:
        """Record that a node sends a message now."""
        self._waiting[node, number] = time.perf_counter()

    def acknowledged(self, node: int, number: int) -> None:
        """Record that the message is acknowledged."""
        sent_at = self._waiting.pop((node, number), None)
        if sent_at is not None and sent_at >= self._begun_at:
            self._times.append(1000 * (time.perf_counter() - sent_at))

    def end(self) -> list[float]:
        """Return what was collected; a message without an ack took at least as long as it has waited."""
        now = time.perf_counter()
        waited = [1000 * (now - sent_at) for sent_at in self._waiting.values()]
        return self._times + [each for each in waited if each > _LATE_MS]


class SteadyNode(WebSocketNode):
    """Sends one batch a second over each WebSocket that is opened to it."""

    def __init__(self, number: int, times: AckTimes) -> None:
        self._load = Load(NONCES)
        self.connected = asyncio.Event()
        self._number = number
        self._times = times
        self._numbers = itertools.count(10**6 * number)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Upgrade, and exchange until the connection ends (an asyncio.start_server callback)."""
        sending = None
        try:
            await self._upgrade(reader, writer)
            self.connected.set()
            sending = asyncio.ensure_future(self._send(writer))
            while True:
                opcode, payload = await self._frame(reader)
                if opcode == 1:
                    self._times.acknowledged(self._number, self._load.number(payload))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            if sending is not None:
                sending.cancel()
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        # Not all nodes at once.
        await asyncio.sleep(random.random())
        while True:
            number = next(self._numbers)
            payload = self._load.message(number)
            self._times.sent(self._number, number)
            writer.write(b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload)
            await asyncio.sleep(1)


async def post_steadily(number: int, base: str, times: AckTimes) -> None:
    """Post one batch a second to a callback base, each over a connection of its own, until cancelled."""
    load = Load(NONCES)
    url = urlsplit(base)
    await asyncio.sleep(random.random())
    for message in itertools.count(10**6 * number):
        begun_at = time.perf_counter()
        times.sent(number, message)
        body = load.batch(message)
        head = f"POST {url.path}/generated HTTP/1.1\r\nHost: dapi\r\nContent-Length: {len(body)}\r\n"
        if await _is_taken(url.hostname or "", url.port or 80, head.encode() + b"Connection: close\r\n\r\n" + body):
            times.acknowledged(number, message)
        await asyncio.sleep(max(0.0, 1 - (time.perf_counter() - begun_at)))


async def _is_taken(host: str, port: int, request: bytes) -> bool:
    try:
        async with asyncio.timeout(_POST_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
