"""How much time and memory everybody's batches of a stage need: ``python -m bench.large_stage``.

A server (``bench.stage_server``) sends a stage's batches as a node of the chain does, and dapi makes its samples of
them, in a process of its own: ``dapi`` reads the answer in pieces, as it does; ``whole`` has all of the answer in
memory and joins each participant's nonces in a dictionary, as it did before. Both get a small stage; ``--megabytes``
adds a large one for dapi alone.

Printed are the rate in MB of JSON, the highest resident memory of the process, and for how long the reactor's thread
kept others waiting at most; for the latter two there are limits, and a higher value of dapi's makes the exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.results import Section
from bench.stage_server import StageServer, batches_for

SMALL_MEGABYTES = 40
LIMIT_MB = 300
LIMIT_MS = 50.0
SAMPLE_SIZE = 200


async def run(way: str, megabytes: int, participants: int) -> dict[str, float]:
    """Return what one process measured."""
    server = StageServer(participants, batches_for(megabytes * 10**6, participants))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.large_stage", "--read", way, str(port), stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        listening.close()
    measured: dict[str, float] = json.loads(output)
    if measured["samples"] != participants * SAMPLE_SIZE:
        raise RuntimeError(f"{measured['samples']} nonces were sampled of {participants} participants")
    return {**measured, "megabytes": server.sent_bytes / 10**6}


async def main(megabytes: int, participants: int) -> int:
    """Print a line for each way and size; return 1 when dapi is above a limit."""
    print(f"batches of {participants} participants, {SAMPLE_SIZE} nonces sampled of each")
    print(f"{'way':>6} {'MB':>6} {'seconds':>8} {'MB/s':>6} {'memory MB':>10} {'longest ms':>11}")
    section, results = Section("large_stage"), {}
    is_exceeded = False
    runs = [("dapi", SMALL_MEGABYTES), ("whole", SMALL_MEGABYTES)]
    for way, size in runs + ([("dapi", megabytes)] if megabytes > SMALL_MEGABYTES else []):
        measured = await run(way, size, participants)
        results[f"{way}, {size} MB"] = measured
        rate = measured["megabytes"] / measured["seconds"]
        print(
            f"{way:>6} {measured['megabytes']:>6.0f} {measured['seconds']:>8.2f} {rate:>6.0f}"
            f" {measured['memory_mb']:>10.0f} {measured['longest_ms']:>11.1f}",
            flush=True,
        )
        is_exceeded |= way == "dapi" and (measured["memory_mb"] > LIMIT_MB or measured["longest_ms"] > LIMIT_MS)
    section.write(results)
    print(f"limits {LIMIT_MB} MB and {LIMIT_MS:.0f} ms: {'EXCEEDED' if is_exceeded else 'kept'} by dapi")
    return int(is_exceeded)


class Lateness:
    """How late the reactor's thread came to what it had to do at a fixed time: the longest so far, in ms."""

    def __init__(self, reactor: Any) -> None:
        self.longest_ms = 0.0
        self._reactor = reactor
        self._due = 0.0

    def start(self) -> None:
        """Begin, and go on for ever."""
        self._due = time.perf_counter() + 0.005
        self._reactor.callLater(0.005, self._look)

    def _look(self) -> None:
        self.longest_ms = max(self.longest_ms, 1000 * (time.perf_counter() - self._due))
        self.start()


def read(way: str, port: int) -> None:
    """Read the stage, and print what it took (in a process of its own)."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    from dapi.chain.rpc import ChainRpc
    from dapi.orchestration.samples import Sampling
    from dapi.tap import SWITCH_INTERVAL_SECONDS

    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    ways: dict[str, Callable[..., Any]] = {"dapi": read_in_pieces, "whole": read_whole}
    rpc = ChainRpc(reactor, [f"http://127.0.0.1:{port}"], timeout_seconds=60)
    sampling = Sampling(
        public_key="02" + "ab" * 32, block_hash="CD" * 32, block_height=17280, size=SAMPLE_SIZE, secret=b"secret"
    )
    lateness = Lateness(reactor)

    async def measure() -> None:
        try:
            # The first call imports and makes what later ones find.
            await rpc.abci_query("", b"", max_bytes=1).addErrback(lambda _: None)
            lateness.start()
            begin = time.perf_counter()
            samples = await ways[way](reactor, rpc, sampling)
            seconds = time.perf_counter() - begin
            print(json.dumps({"samples": samples, "seconds": seconds, **_figures(lateness)}))
        finally:
            reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(measure()).addErrback(_print_error))
    reactor.run()


async def read_in_pieces(_reactor: Any, rpc: Any, sampling: Any) -> int:
    """Read it as dapi does; return how many nonces were sampled."""
    from dapi.orchestration.samples import query_samples

    samples = await query_samples(rpc, sampling, 17350, max_bytes=2**32)
    return sum(len(batch.nonces) for batch in samples.batches)


async def read_whole(reactor: Any, rpc: Any, sampling: Any) -> int:
    """Read it as dapi did before."""
    from twisted.internet.threads import deferToThreadPool

    answer = await rpc.abci_query("PocBatchesForStage", b"", 17350, max_bytes=2**32)
    return await deferToThreadPool(reactor, reactor.getThreadPool(), sample_whole, answer.value, sampling)


def sample_whole(value: bytes, sampling: Any) -> int:
    """Decode all batches, then join and sample those of each participant; return how many nonces were sampled."""
    import random

    from dapi.phases.batch_reader import BatchReader, Participant, StoredNonces

    stages: list[list[StoredNonces]] = []
    for event in BatchReader().feed(value):
        if isinstance(event, Participant):
            stages.append([])
        elif isinstance(event, StoredNonces):
            stages[-1].append(event)
    sampled = 0
    for batches in stages:
        joined: dict[int, float] = {}
        for batch in reversed(batches):
            joined.update(zip(reversed(batch.nonces), reversed(batch.dist), strict=True))
        usable = [nonce for nonce, distance in joined.items() if distance < 1.4]
        sampled += len(random.Random(sampling.secret).sample(usable, sampling.size))
    return sampled


def _figures(lateness: Lateness) -> dict[str, float]:
    status = Path("/proc/self/status").read_text()
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return {"memory_mb": int(peak) * 1024 / 10**6, "longest_ms": lateness.longest_ms}


def _print_error(failure: Any) -> None:
    failure.printTraceback()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=SMALL_MEGABYTES)
    parser.add_argument("--participants", type=int, default=50)
    parser.add_argument("--read", nargs=2, metavar=("WAY", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read[0], int(arguments.read[1]))
    else:
        sys.exit(asyncio.run(main(arguments.megabytes, arguments.participants)))
