"""What thousands of nodes cost: ``python -m bench.nodes`` runs a dapi of its own with so many nodes (``--nodes``).

From the start of the process until the callback port is open and all nodes are registered; from a common
``POST poc/start`` until all WebSockets are open; how long they need after all have ended at once (each waits 3 to 5 s
first); the memory of a node, the CPU time for each, that of an idle dapi, and of ``GET status``. dapi has a core for
itself. Memory is what the same dapi has more than one with a single node.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench.comparison import spread
from bench.many_nodes import ManyNodes, node_configs
from bench.processes import RECEIVERS_CORES, SENDERS_CORES, cpu_seconds, folder, on
from bench.results import Section

_PATIENCE_SECONDS = 300.0
_CALLS = 5
# The nodes send no batches; such a connection would be replaced after a minute.
_NO_IDLENESS = {"DAPI_WEBSOCKET__IDLE_SECONDS": "86400"}
_STAGE = {"block_height": 1000, "block_hash": "CD" * 32, "public_key": "02" + "ab" * 32}


class Dapi:
    """A dapi that twistd runs. ``port_open_s`` and ``registered_s`` are seconds since its process began."""

    def __init__(self, process: asyncio.subprocess.Process, nodes: int) -> None:
        self.port_open_s = self.registered_s = 0.0
        self._process = process
        self._nodes = nodes
        self._begun_at = time.perf_counter()
        self._admin_port = 0
        self._registered = 0
        self._ready = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, where: str, nodes: list[dict[str, object]]) -> Dapi:
        """Start it, and wait until all of these nodes are registered."""
        Path(where, "node-config.json").write_text(json.dumps(nodes))
        ports = ("--callback-host", "127.0.0.1", "--callback-port", "0", "--admin-port", "0")
        command = [sys.executable, str(Path(sys.executable).parent / "twistd"), "-n", "-l", "-", "dapi", *ports]
        with on(RECEIVERS_CORES):
            process = await asyncio.create_subprocess_exec(
                *(*command, "--database", "outbox.db", "--node-config", "node-config.json"),
                cwd=where,
                env=os.environ | _NO_IDLENESS,
                stdout=asyncio.subprocess.PIPE,
            )
        dapi = cls(process, len(nodes))
        try:
            await asyncio.wait_for(dapi._ready.wait(), _PATIENCE_SECONDS)
        except BaseException:
            await dapi.end()
            raise
        return dapi

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            now = time.perf_counter() - self._begun_at
            if found := re.search(rb"(callbacks|admin): listening on 127.0.0.1:(\d+)", line):
                if found[1] == b"callbacks":
                    self.port_open_s = now
                else:
                    self._admin_port = int(found[2])
            elif b": registered, number " in line:
                self._registered += 1
                self.registered_s = now
            if self._registered == self._nodes and self._admin_port:
                self._ready.set()

    def cpu_seconds(self) -> float:
        """Return its CPU time so far."""
        return cpu_seconds(self._process.pid)

    def memory_kb(self) -> int:
        """Return its resident memory in kB of 1,000 bytes."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        return int(found[1]) * 1024 // 1000 if found else 0

    async def call(self, method: str, path: str, body: object = None) -> tuple[float, float]:
        """Make a call of the admin API; return the milliseconds and those of dapi's CPU that it took."""
        began, cpu = time.perf_counter(), self.cpu_seconds()
        await asyncio.to_thread(self._call, method, path, body)
        return 1000 * (time.perf_counter() - began), 1000 * (self.cpu_seconds() - cpu)

    def _call(self, method: str, path: str, body: object) -> None:
        url = f"http://127.0.0.1:{self._admin_port}/admin/v1/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:
            answer.read()

    async def idle_percent(self, seconds: float) -> float:
        """Return how much of a core it uses while nothing is asked of it for so long."""
        cpu, began = self.cpu_seconds(), time.perf_counter()
        await asyncio.sleep(seconds)
        return 100 * (self.cpu_seconds() - cpu) / (time.perf_counter() - began)

    async def end(self) -> None:
        """End the process."""
        self._reading.cancel()
        self._process.kill()
        await self._process.wait()


async def measure(count: int, idle_seconds: float) -> dict[str, Any]:
    """Measure a dapi with so many nodes, beside one with a single node."""
    nodes = ManyNodes()
    configs = node_configs(await nodes.listen(), count)
    with folder() as where:
        dapi = await Dapi.start(where, configs[:1])
        port_open_s, memory_kb = dapi.port_open_s, dapi.memory_kb()
        await dapi.end()
    with folder() as where:
        dapi = await Dapi.start(where, configs)
        try:
            found: dict[str, Any] = {
                "nodes": count,
                "port_open_s": dapi.port_open_s,
                "port_open_with_one_node_s": port_open_s,
                "registered_s": dapi.registered_s,
                "kb_a_registered_node": (dapi.memory_kb() - memory_kb) / count,
            }
            found |= await _measure_websockets(dapi, nodes, count, min(2.0, idle_seconds))
            found["kb_a_node"] = (dapi.memory_kb() - memory_kb) / count
            found["idle_cpu_percent"] = await dapi.idle_percent(idle_seconds)
            for name, path in (("status", "status"), ("nodes_list", "nodes")):
                calls = [await dapi.call("GET", path) for _ in range(_CALLS)]
                found[f"{name}_ms"] = spread(ms for ms, _ in calls)
                found[f"{name}_cpu_ms"] = spread(cpu for _, cpu in calls)
        finally:
            await dapi.end()
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in found.items()}


async def _measure_websockets(dapi: Dapi, nodes: ManyNodes, count: int, settle_seconds: float) -> dict[str, Any]:
    """Start PoC on all nodes, then restart all of them at once; what either leaves to do ends in ``settle_seconds``."""
    began, cpu = time.perf_counter(), dapi.cpu_seconds()
    accepted_ms, _ = await dapi.call("POST", "poc/start", _STAGE)
    await nodes.when_open(count, _PATIENCE_SECONDS)
    opened_s, opening = time.perf_counter() - began, dapi.cpu_seconds() - cpu
    await asyncio.sleep(settle_seconds)
    began, cpu = time.perf_counter(), dapi.cpu_seconds()
    nodes.close_all()
    await nodes.when_open(count, _PATIENCE_SECONDS)
    reopened_s, reopening = time.perf_counter() - began, dapi.cpu_seconds() - cpu
    await asyncio.sleep(settle_seconds)
    return {
        "poc_start_accepted_ms": accepted_ms,
        "poc_start_until_open_s": opened_s,
        "poc_start_cpu_ms_a_node": 1000 * opening / count,
        "restart_until_open_s": reopened_s,
        "restart_cpu_ms_a_node": 1000 * reopening / count,
    }


def main() -> None:
    """Print each figure, and write them into the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2_000)
    parser.add_argument("--idle-seconds", type=float, default=10.0, help="how long an idle dapi is watched")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    section = Section("nodes")
    with on(SENDERS_CORES):
        found = asyncio.run(measure(arguments.nodes, arguments.idle_seconds))
    for name, value in found.items():
        text = f"{value['median']:g} ({value['min']:g}-{value['max']:g})" if isinstance(value, dict) else f"{value:g}"
        print(f"{name.replace('_', ' '):>28} {text}")
    section.write(found)


if __name__ == "__main__":
    main()
