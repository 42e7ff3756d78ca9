"""What one node that floods its WebSocket costs the others: their ack times without it, and beside it.

``python -m bench.abuse`` runs a dapi intake (one WebSocketClient a node, one outbox on disk) in a process of its own.
It has ``--nodes`` nodes that send one batch of 1,000 nonces a second, and one that sends nothing, or floods: bad JSON,
empty messages, frames without end, pings. It prints the 99th percentile of the good nodes' ack times, and by how much
the process grew.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.node import BusyNode, Load

_SETTLE_SECONDS = 3.0
# As many bytes as dapi reads at once.
_CHUNK = 65536
ABUSES = {
    "nothing": (b"", b""),
    "bad JSON": (b"", b"\x81\x08{broken}"),
    "empty messages": (b"", b"\x81\x00"),
    "2-byte fragments": (b"\x01\x02{ ", b"\x00\x02  "),
    "empty continuations": (b"\x01\x02{ ", b"\x00\x00"),
    "pings": (b"", b"\x89\x01x"),
}
"""What a flood begins with, and what it repeats, as frames."""


class SteadyNode(BusyNode):
    """Sends one batch a second, and keeps the ack times in milliseconds, from when ``is_measured`` is set."""

    def __init__(self, load: Load, first: int) -> None:
        super().__init__(load, 0, 0)
        self.times: list[float] = []
        self.waiting: dict[int, float] = {}
        self.is_measured = False
        self._numbers = itertools.count(first)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Upgrade, and exchange until the connection ends (an asyncio.start_server callback)."""
        sending = None
        try:
            await self._upgrade(reader, writer)
            sending = asyncio.ensure_future(self._send(writer))
            while True:
                opcode, payload = await self._frame(reader)
                if opcode == 1:
                    sent_at = self.waiting.pop(self._load.number(payload), None)
                    if sent_at is not None and self.is_measured:
                        self.times.append(1000 * (time.perf_counter() - sent_at))
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
            self.waiting[number] = time.perf_counter()
            writer.write(b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload)
            await asyncio.sleep(1)


class FloodingNode(BusyNode):
    """Sends the same frames as fast as they are read, over each connection; ``sent`` counts the bytes."""

    def __init__(self, first: bytes, repeated: bytes) -> None:
        super().__init__(Load(1), 0, 0)
        self._first = first
        self._chunk = repeated * (_CHUNK // max(1, len(repeated)))
        self.sent = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Upgrade, and flood (an asyncio.start_server callback)."""
        try:
            await self._upgrade(reader, writer)
            self.connections += 1
            writer.write(self._first)
            while self._chunk and not reader.at_eof():
                writer.write(self._chunk)
                self.sent += len(self._chunk)
                await writer.drain()
            await reader.read(-1)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def measure(name: str, nodes: int, seconds: float) -> tuple[list[float], float, FloodingNode]:
    """Return the good nodes' ack times in ms, by how many MB the process grew, and the node that flooded it."""
    load = Load(1_000)
    good = [SteadyNode(load, 10**6 * number) for number in range(nodes)]
    flooding = FloodingNode(*ABUSES[name])
    servers = [await asyncio.start_server(node.serve, "127.0.0.1", 0, limit=2**20) for node in (*good, flooding)]
    ports = [str(server.sockets[0].getsockname()[1]) for server in servers]
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.abuse", "--intake", folder, *ports)
        try:
            await asyncio.sleep(_SETTLE_SECONDS)
            before = _resident_mb(process.pid)
            for node in good:
                node.is_measured = True
            await asyncio.sleep(seconds)
            # What has not come by now took at least so long.
            now = time.perf_counter()
            late = [1000 * (now - sent_at) for node in good for sent_at in node.waiting.values()]
            times = [each for node in good for each in node.times] + [each for each in late if each > 1000]
            return times, _resident_mb(process.pid) - before, flooding
        finally:
            process.kill()
            await process.wait()
            for server in servers:
                server.close()


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run_intake(folder: str, ports: list[str]) -> None:
    """Run the intake of the nodes at these ports, until the process is killed."""
    from twisted.internet import reactor as global_reactor

    from dapi.database import Database
    from dapi.outbox.cosmos_message_client import CosmosMessageClient
    from dapi.outbox.outbox import Outbox
    from dapi.poc.batch_handler import BatchHandler
    from dapi.poc.websocket_client import WebSocketClient

    reactor: Any = global_reactor
    database = Database(reactor, f"{folder}/outbox.db", on_broken=sys.exit)
    database.startService()
    recorder = CosmosMessageClient(Outbox(reactor, database))
    sys.setswitchinterval(0.0005)
    for number, port in enumerate(ports, start=1):
        handler = BatchHandler(f"node{number}", number, recorder)
        url = f"ws://127.0.0.1:{port}"
        WebSocketClient(reactor, url, handler, node_id=f"node{number}", random=random.Random(number)).startService()
    reactor.run()


async def main(nodes: int, seconds: float, names: list[str]) -> None:
    """Print a line for each abuse."""
    print(f"{nodes} good nodes, one batch of 1,000 nonces a second each, for {seconds:g} s; ack times in ms")
    print(
        f"{'beside them':>20} {'acks':>6} {'median':>8} {'p99':>9} {'MB more':>8} {'flood MB':>9} {'connections':>11}"
    )
    for name in names:
        times, grown, flooding = await measure(name, nodes, seconds)
        p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else float("nan")
        median = statistics.median(times) if times else float("nan")
        line = f"{name:>20} {len(times):>6} {median:>8.1f} {p99:>9.1f} {grown:>8.1f} {flooding.sent / 1e6:>9.1f}"
        print(f"{line} {flooding.connections:>11}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--abuse", choices=ABUSES, action="append", help="this one alone; may be given again")
    parser.add_argument("--intake", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.intake:
        run_intake(arguments.intake[0], arguments.intake[1:])
    else:
        asyncio.run(main(arguments.nodes, arguments.seconds, arguments.abuse or list(ABUSES)))
