"""Measures each abuse and prints the table: ``python -m bench.abuse``, with ``--write`` into the documents, too."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bench import results as bench_results
from bench.abuse.attacks import ABUSES, RETURNING, RETURNING_NODES
from bench.abuse.good import AckTimes, SteadyNode, post_steadily
from bench.abuse.limits import p99
from bench.abuse.report import cells, write_documents
from bench.abuse.results import Results, Row, Run, Side, now, write
from bench.processes import folder

_SETTLE_SECONDS = 2.0
_CONNECT_SECONDS = 30.0
_SAMPLE_SECONDS = 0.2
# Of the good nodes, one in so many delivers by HTTP.
_BY_HTTP = 5
_ABUSER = "abuser"
_COLUMNS = (
    *("beside them", "its connections, MB", "acks", "median ms", "p99 ms", "limit"),
    *("longest turn ms", "longest write ms", "MB more", ""),
)


async def measure(name: str, nodes: int, quiet_seconds: float, seconds: float) -> Run:
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
        await _longest(dapi)
        times.begin()
        await asyncio.sleep(quiet_seconds)
        without, before = _side(times.end(), await _longest(dapi)), _resident_mb(dapi)
        _tell(abuser, {"port": told["port"], "base": told["bases"][abusers[0]]})
        times.begin()
        highest = before
        for _ in range(round(seconds / _SAMPLE_SECONDS)):
            await asyncio.sleep(_SAMPLE_SECONDS)
            highest = max(highest, _resident_mb(dapi))
        beside = _side(times.end(), await _longest(dapi))
        abuser.kill()
        assert abuser.stdout is not None
        said = (await abuser.stdout.read()).splitlines()
        connections, sent_mb = json.loads(said[-1]) if said else (0, 0.0)
        return Run(without, beside, round(highest - before, 1), connections, round(sent_mb))


def _side(times: list[float], longest: dict[str, float]) -> Side:
    """Return what was measured; ``times`` are those of the acks, in ms."""
    median, slow = (statistics.median(times), p99(times)) if times else (None, None)
    rounded = [None if each is None else round(each, 1) for each in (median, slow)]
    return Side(acks=len(times), median_ms=rounded[0], p99_ms=rounded[1], **longest)


async def _longest(dapi: Process) -> dict[str, float]:
    """Return what took longest of dapi and of the disk, since this was asked last."""
    _tell(dapi, "lap")
    found: dict[str, float] = json.loads(await _line(dapi))
    return found


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


async def measure_row(name: str, nodes: int, quiet_seconds: float, seconds: float, again: int) -> Row:
    """Measure an abuse once, and so often again when it breaks a limit the first time."""
    runs = [await measure(name, nodes, quiet_seconds, seconds)]
    if runs[0].broken():
        runs += [await measure(name, nodes, quiet_seconds, seconds) for _ in range(again)]
    return Row(name, runs)


async def main(nodes: int, quiet_seconds: float, seconds: float, again: int, names: list[str]) -> Results:
    """Measure these abuses, and print a line of each run."""
    begun_at, load = time.time(), bench_results.load()
    print(f"{nodes} good nodes, one batch of 1,000 nonces a second each; without the abuse → beside it.\n")
    print(f"| {' | '.join(_COLUMNS)} |")
    print("| --- " * len(_COLUMNS) + "|", flush=True)
    rows = []
    for name in names:
        row = await measure_row(name, nodes, quiet_seconds, seconds, again)
        rows.append(row)
        for run in row.runs:
            sizes = f"{run.connections}, {run.sent_mb}", f"{run.beside.acks}"
            print(f"| {' | '.join((name, *sizes, *cells(run), '; '.join(run.broken()) or 'ok'))} |", flush=True)
    return Results(
        at=now(),
        commit=bench_results.commit(),
        machine=bench_results.machine(),
        load=(load, bench_results.load()),
        seconds=round(time.time() - begun_at),
        nodes=nodes,
        rows=rows,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--quiet-seconds", type=float, default=8.0, help="before each abuse")
    parser.add_argument("--seconds", type=float, default=12.0, help="beside each abuse")
    parser.add_argument("--abuse", choices=ABUSES, action="append", help="this one alone; may be given again")
    parser.add_argument("--again", type=int, default=2, help="so often more is measured what breaks a limit")
    parser.add_argument("--write", action="store_true", help="put what all abuses came to into the documents")
    given = parser.parse_args()
    if given.again % 2:
        parser.error("most of the runs decide: --again is an even number")
    if given.write and given.abuse:
        parser.error("the documents tell of all abuses: leave --abuse out")
    times = given.quiet_seconds, given.seconds
    results = asyncio.run(main(given.nodes, *times, given.again, given.abuse or list(ABUSES)))
    if given.write:
        write(results)
        write_documents()
    broken = [row for row in results.rows if not row.is_within()]
    for row in broken:
        for run in row.runs:
            print(f"{row.abuse}: {'; '.join(run.broken()) or 'this time within its limits'}", file=sys.stderr)
    sys.exit(1 if broken else 0)
