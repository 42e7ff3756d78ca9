"""How fast the WebSocket intake is: batches a second and ack times, acks after fsync.

``python -m bench.intake`` runs, size by size and in turns, three clients of the same busy node (``bench.node``), each
in a process of its own:

- ``dapi``: the whole way, an ack means that the batch is on disk;
- ``memory``: the same with a recorder that keeps nothing;
- ``websockets``: a bare client on the ``websockets`` library, msgspec decode and ack, keeping nothing.

The rate is the median of the rounds; ratios are dapi's rate over the other's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile

from bench.node import BusyNode, Load

CLIENTS = ("dapi", "memory", "websockets")
OUTSTANDING = 16


async def run(client: str, load: Load, total: int) -> tuple[float, float]:
    """Return batches a second and the 99th percentile of the ack time in ms."""
    node = BusyNode(load, total, OUTSTANDING)
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.intake_clients", client, str(port), folder
        )
        try:
            times = await asyncio.wait_for(node.finished, 120)
        finally:
            process.terminate()
            await process.wait()
            server.close()
    return total / node.elapsed_seconds, 1000 * statistics.quantiles(times, n=100)[98]


async def main(rounds: int, sizes: dict[int, int]) -> None:
    """Print a line for each size and client."""
    print(f"{OUTSTANDING} outstanding, {rounds} rounds; rate in batches/s, p99 of the ack in ms")
    print(f"{'nonces':>7} {'client':>11} {'rate':>9} {'p99':>8}  dapi's rate is")
    for nonces, total in sizes.items():
        load = Load(nonces)
        results: dict[str, list[tuple[float, float]]] = {client: [] for client in CLIENTS}
        for _ in range(rounds):
            for client in CLIENTS:
                results[client].append(await run(client, load, total))
        rates = {client: statistics.median(rate for rate, _ in results[client]) for client in CLIENTS}
        for client in CLIENTS:
            p99 = statistics.median(p99 for _, p99 in results[client])
            ratio = "" if client == "dapi" else f"{rates['dapi'] / rates[client]:.2f}x of {client}"
            print(f"{nonces:>7} {client:>11} {rates[client]:>9.0f} {p99:>8.2f}  {ratio}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of few batches: to see that it runs")
    arguments = parser.parse_args()
    if arguments.quick:
        asyncio.run(main(1, {20: 2_000, 1_000: 500, 20_000: 50}))
    else:
        asyncio.run(main(arguments.rounds, {20: 40_000, 1_000: 12_000, 20_000: 900}))
