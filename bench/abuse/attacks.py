"""The abuser, a process of its own: ``python -m bench.abuse.attacks NAME`` says its port, and begins when it is told.

What it is told is one line of JSON: dapi's callback port, and the callback base of the abusive node. Twice a second it
says how many connections it has made, and how many MB it has sent over them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.abuse.floods import FLOODS, Done, FloodingNode, ReturningNodes, load_of

RETURNING_NODES = 1000
_NICE = 10
# More than one address: dapi shares its connections among addresses.
_ADDRESSES = 8
_HALF_OPEN, _SLOW_HEADS, _SLOW_BODIES, _RECONNECTORS, _POSTERS = 2000, 800, 400, 32, 8
_LARGE_BODY_NONCES = 1_100_000


class Target(NamedTuple):
    """Where dapi's callbacks are, and the path of the abusive node's base."""

    port: int
    path: str
    done: Done

    async def connect(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect from one of the addresses."""
        local = (f"127.0.0.{2 + number % _ADDRESSES}", 0)
        connection = await asyncio.open_connection("127.0.0.1", self.port, local_addr=local)
        self.done.connections += 1
        return connection


def _post(path: str, length: int) -> bytes:
    return f"POST {path}/generated HTTP/1.1\r\nHost: dapi\r\nContent-Length: {length}\r\n\r\n".encode()


async def _post_maximal(target: Target, number: int) -> None:
    load = load_of(_LARGE_BODY_NONCES)
    for message in itertools.count(10**12 + 10**6 * number):
        reader, writer = await target.connect(number)
        body = load.batch(message)
        writer.write(_post(target.path, len(body)) + body)
        await writer.drain()
        await reader.readline()
        writer.close()
        target.done.bytes += len(body)


async def _send_slowly(target: Target, number: int, head: bytes, rest: bytes) -> None:
    _, writer = await target.connect(number)
    writer.write(head)
    for byte in rest:
        await asyncio.sleep(1)
        writer.write(bytes((byte,)))
        await writer.drain()


async def _slow_head(target: Target, number: int) -> None:
    await _send_slowly(target, number, b"POST ", b"/" * 10**5)


async def _slow_body(target: Target, number: int) -> None:
    await _send_slowly(target, number, _post(target.path, 10**6), b" " * 10**6)


async def _half_open(target: Target, number: int) -> None:
    reader, _ = await target.connect(number)
    await reader.read()


async def _reconnect(target: Target, number: int) -> None:
    reader, writer = await target.connect(number)
    writer.write(_post("/v1/poc-batches", 10**6))
    await reader.readline()
    writer.close()


Attack = Callable[[Target, int], Awaitable[None]]
_ON_CALLBACKS: dict[str, tuple[int, Attack]] = {
    "maximal bodies by HTTP": (_POSTERS, _post_maximal),
    "slow heads": (_SLOW_HEADS, _slow_head),
    "slow bodies": (_SLOW_BODIES, _slow_body),
    "2,000 half-open connections": (_HALF_OPEN, _half_open),
    "reconnects as fast as they go": (_RECONNECTORS, _reconnect),
}
RETURNING = "a thousand nodes that come back at once"
ABUSES = (*FLOODS, *_ON_CALLBACKS, RETURNING)
"""Their names, in the order of the table."""


async def _for_ever(attack: Attack, target: Target, number: int) -> None:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await attack(target, number)
        # What dapi closes at once is opened again, yet not by a busy loop.
        await asyncio.sleep(0.005)


async def main(name: str) -> None:
    """Run one abuse until the process is killed."""
    os.nice(_NICE)
    go = asyncio.Event()
    done = Done()
    if _ON_CALLBACKS.get(name, (0, _half_open))[1] is _post_maximal:
        load_of(_LARGE_BODY_NONCES)
    node = FloodingNode(name, go, done) if name in FLOODS else ReturningNodes(go, done)
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0, limit=2**20, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    told = json.loads(await asyncio.to_thread(sys.stdin.readline))
    go.set()
    target = Target(told["port"], urlsplit(told["base"]).path, done)
    number, attack = _ON_CALLBACKS.get(name, (0, _half_open))
    await asyncio.gather(_tell(done), *(_for_ever(attack, target, each) for each in range(number)))


async def _tell(done: Done) -> None:
    while True:
        await asyncio.sleep(0.5)
        print(json.dumps([done.connections, done.bytes / 1e6]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
