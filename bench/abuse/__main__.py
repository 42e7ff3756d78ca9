"""Measures each abuse and prints the table: ``python -m bench.abuse``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.abuse.attacks import ABUSES, RETURNING, RETURNING_NODES
from bench.abuse.good import AckTimes, SteadyNode, post_steadily
from bench.abuse.limits import Limits, broken_limits, p99
from bench.processes import folder

_SETTLE_SECONDS = 2.0
_CONNECT_SECONDS = 30.0
_SAMPLE_SECONDS = 0.2
# Of the good nodes, one in so many delivers by HTTP.
_BY_HTTP = 5
_ABUSER = "abuser"
_COLUMNS = (
    *("beside them", "its connections, MB", "acks", "median before", "median"),
    *("p99 before", "p99", "limit", "MB more", ""),
)


class Measured(NamedTuple):
    """Ack times in ms without and beside an abuse, and by how many MB dapi's process grew at most.

    The abuse made so many ``connections``, and sent so many MB.
    """

    quiet: list[float]
    beside: list[float]
    grown_mb: float
    connections: int
    sent_mb: float


async def measure(name: str, nodes: int, quiet_seconds: float, seconds: float) -> Measured:
    """Measure one abuse with a dapi of its own."""
    times = AckTimes()
    posters = max(1, nodes // _BY_HTTP)
    good = [SteadyNode(number, times) for number in range(posters, nodes)]
    async with contextlib.AsyncExitStack() as stack:
        ports = {}
        for number, node in enumerate(good, start=posters):
            server = await asyncio.start_server(node.serve, "127.0.0.1", 0, limit=2**20)
            stack.callback(server.close)
            ports[f"good{number}"] = server.sockets[0].getsockname()[1]
        abuser = await stack.enter_async_context(_process("bench.abuse.attacks", name))
        abuser_port = int(await _line(abuser))
        abusers = [f"{_ABUSER}{number}" for number in range(RETURNING_NODES if name == RETURNING else 1)]
        # Nothing listens there: a node that delivers by HTTP alone.
        by_http = {f"good{number}": 9 for number in range(posters)}
        path = stack.enter_context(folder())
        dapi = await stack.enter_async_context(_process("bench.abuse.intake", path))
        every_node = {**ports, **by_http, **dict.fromkeys(abusers, abuser_port)}
        _tell(dapi, {"nodes": every_node, "compression": "compressed" in name})
        told = json.loads(await _line(dapi))
        for number in range(posters):
            posting = asyncio.ensure_future(post_steadily(number, told["bases"][f"good{number}"], times))
            stack.callback(posting.cancel)
        async with asyncio.timeout(_CONNECT_SECONDS):
            for node in good:
                await node.connected.wait()
        await asyncio.sleep(_SETTLE_SECONDS)
        times.begin()
        await asyncio.sleep(quiet_seconds)
        quiet, before = times.end(), _resident_mb(dapi)
        _tell(abuser, {"port": told["port"], "base": told["bases"][abusers[0]]})
        times.begin()
        highest = before
        for _ in range(round(seconds / _SAMPLE_SECONDS)):
            await asyncio.sleep(_SAMPLE_SECONDS)
            highest = max(highest, _resident_mb(dapi))
        beside = times.end()
        abuser.kill()
        assert abuser.stdout is not None
        said = (await abuser.stdout.read()).splitlines()
        connections, sent_mb = json.loads(said[-1]) if said else (0, 0.0)
        return Measured(quiet, beside, highest - before, connections, sent_mb)


@contextlib.asynccontextmanager
async def _process(module: str, *arguments: str) -> AsyncIterator[Process]:
    command = (sys.executable, "-m", module, *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=2**20)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _line(process: Process) -> bytes:
    assert process.stdout is not None
    async with asyncio.timeout(_CONNECT_SECONDS):
        return await process.stdout.readline()


def _tell(process: Process, value: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(value).encode() + b"\n")


def _resident_mb(process: Process) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def main(nodes: int, quiet_seconds: float, seconds: float, names: list[str]) -> list[str]:
    """Print a row for each abuse, and return what broke a limit."""
    limits, broken = Limits(), []
    print(f"{nodes} good nodes, one batch of 1,000 nonces a second each; ack times in ms, first without the abuse.\n")
    print(f"| {' | '.join(_COLUMNS)} |")
    print("| --- " * len(_COLUMNS) + "|", flush=True)
    for name in names:
        quiet, beside, grown, connections, sent_mb = await measure(name, nodes, quiet_seconds, seconds)
        found = broken_limits(quiet, beside, grown, limits)
        broken += [f"{name}: {each}" for each in found]
        medians = [statistics.median(times) if times else float("nan") for times in (quiet, beside)]
        cells = [
            f"{connections}, {sent_mb:.0f}",
            f"{len(beside)}",
            *(f"{median:.1f}" for median in medians),
            f"{p99(quiet):.1f}",
        ]
        cells += [f"{p99(beside):.1f}", f"{limits.p99_ms(quiet):.1f}", f"{grown:.0f}", "broken" if found else "ok"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return broken


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--quiet-seconds", type=float, default=8.0, help="before each abuse")
    parser.add_argument("--seconds", type=float, default=12.0, help="beside each abuse")
    parser.add_argument("--abuse", choices=ABUSES, action="append", help="this one alone; may be given again")
    given = parser.parse_args()
    problems = asyncio.run(main(given.nodes, given.quiet_seconds, given.seconds, given.abuse or list(ABUSES)))
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)
