"""Thousands of ML nodes behind a few ports, each below a path of its own: the other side of ``bench.nodes``.

They answer every call at once, and keep their WebSockets open: they ping each 20 s, as nodes do, and send no batch. One
call a connection, as dapi makes them; one WebSocket a node.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence

from bench.connections import unmasked, upgrade_answer

# The system lets 4,096 connections at most wait at a port; later ones come again after a second or more.
_PORTS = 4
_WEBSOCKET = b"/api/v1/pow/ws"
_PING, _PING_SECONDS = b"\x89\x04ping", 20.0
_POW = {"status": "OK", "pow_status": {"status": "GENERATING", "is_model_initialized": True}}
_ANSWERS = {
    b"/api/v1/state": {"state": "POW"},
    b"/api/v1/stop": {"status": "OK"},
    b"/api/v1/pow/status": {"status": "GENERATING", "is_model_initialized": True},
    b"/api/v1/pow/stop": {"status": "OK", "pow_status": "NOT_LOADED"},
    b"/api/v1/pow/init/generate": _POW,
    b"/api/v1/pow/init/validate": _POW,
}


def node_configs(ports: Sequence[int], count: int) -> list[dict[str, object]]:
    """Return the nodes as ``node-config.json`` has them."""
    same = {"host": "127.0.0.1", "inference_port": 5000, "models": {"model": {"args": []}}}
    return [
        {"id": f"node{number}", "poc_port": ports[number % len(ports)], "poc_segment": f"/node{number}", **same}
        for number in range(count)
    ]


class ManyNodes:
    """All of the nodes; ``websockets`` are the open ones, ``calls`` the number of calls that were answered."""

    def __init__(self) -> None:
        self.websockets: set[_Connection] = set()
        self.calls = 0
        self._changed = asyncio.Event()

    async def listen(self) -> list[int]:
        """Listen; return the ports."""
        ports = []
        for _ in range(_PORTS):
            server = await asyncio.get_running_loop().create_server(
                lambda: _Connection(self, self._changed.set), "127.0.0.1", 0, backlog=4096
            )
            ports.append(server.sockets[0].getsockname()[1])
        return ports

    async def when_open(self, count: int, seconds: float) -> None:
        """Wait until so many WebSockets are open; TimeoutError when they are not within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while len(self.websockets) < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise TimeoutError(f"{len(self.websockets)} of {count} WebSockets are open after {seconds:g} s") from error

    def close_all(self) -> None:
        """End all WebSockets at once, as a common restart of the nodes does."""
        ended, self.websockets = self.websockets, set()
        for connection in ended:
            connection.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, nodes: ManyNodes, changed: Callable[[], object]) -> None:
        self._nodes = nodes
        self._changed = changed
        self._inbox = b""
        self._is_websocket = False
        self._pinging: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._nodes.websockets.discard(self)
        if self._pinging is not None:
            self._pinging.cancel()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        if self._is_websocket:
            self._read_frames()
            return
        head, ends, body = self._inbox.partition(b"\r\n\r\n")
        if not ends:
            return
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        if len(body) < int(headers.get(b"content-length", 0)):
            return
        path = b"/" + head.split(b" ")[1].split(b"/", 2)[2]
        if path == _WEBSOCKET:
            self._transport.write(upgrade_answer(self._inbox))
            self._inbox, self._is_websocket = b"", True
            self._nodes.websockets.add(self)
            # Not all at once.
            self._pinging = asyncio.get_running_loop().call_later(random.random() * _PING_SECONDS, self._ping)
            self._changed()
            return
        self._nodes.calls += 1
        answer = json.dumps(_ANSWERS[path]).encode()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(answer), answer)
        )
        self._transport.close()

    def _ping(self) -> None:
        self._transport.write(_PING)
        self._pinging = asyncio.get_running_loop().call_later(_PING_SECONDS, self._ping)

    def _read_frames(self) -> None:
        """Answer pings and closes; nothing else comes, since there is nothing to acknowledge."""
        while len(self._inbox) >= 6 and len(self._inbox) >= 6 + (size := self._inbox[1] & 0x7F):
            opcode, payload = self._inbox[0] & 0x0F, unmasked(self._inbox[2:6], self._inbox[6 : 6 + size])
            self._inbox = self._inbox[6 + size :]
            if opcode == 9:
                self._transport.write(bytes((0x8A, size)) + payload)
            elif opcode == 8:
                self._transport.write(bytes((0x88, size)) + payload)
                self._transport.close()
