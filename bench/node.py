"""A node's side of a WebSocket on asyncio, for those who serve many nodes that do not have to be fast."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from bench.connections import unmasked, upgrade_answer


class WebSocketNode(ABC):
    """Serves WebSocket clients; ``extensions`` is what it accepts of their offer, as the header says it."""

    extensions = b""

    @abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client (an asyncio.start_server callback)."""

    async def _upgrade(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade_answer(await reader.readuntil(b"\r\n\r\n"), self.extensions))

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        """Read a short frame of a client; return its opcode and what it says."""
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), "big")
        mask, payload = await reader.readexactly(4), await reader.readexactly(size)
        return first & 0x0F, unmasked(mask, payload)
