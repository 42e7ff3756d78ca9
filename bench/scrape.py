"""How long a scrape of the metrics takes with many nodes, and for how long it holds the reactor up.

``python -m bench.scrape`` registers nodes in a whole dapi, and scrapes it again and again. A turn of the reactor is as
long as the time between two calls that are due at once; without a scrape it shows what the machine itself takes.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from bench.comparison import spread
from bench.processes import folder
from bench.results import Section
from dapi.broker.nodes import decode_node_config
from dapi.config import ApiConfig, Config, StorageConfig
from dapi.messages.sizes import MIB
from dapi.server.metrics import Metrics
from dapi.service import make_service
from dapi.tap import SWITCH_INTERVAL_SECONDS

_SCRAPES = 5


class Turns:
    """Measures the longest turn since it was asked last."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._last = time.perf_counter()
        self._longest = 0.0
        self._call = reactor.callLater(0, self._turn)

    def longest_ms(self) -> float:
        """Return it in ms, and begin anew."""
        longest, self._longest = self._longest, 0.0
        return 1000 * longest

    def stop(self) -> None:
        """Measure no more."""
        self._call.cancel()

    def _turn(self) -> None:
        now = time.perf_counter()
        self._longest, self._last = max(self._longest, now - self._last), now
        self._call = self._reactor.callLater(0, self._turn)


async def measure(reactor: Any, nodes: int, folder: Path) -> None:
    """Print a line for each scrape."""
    api = ApiConfig(ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0)
    fields = {"host": "127.0.0.1", "inference_port": 1, "models": {"m": {}}}
    config = Config(
        api=api,
        storage=StorageConfig(path=str(folder / "outbox.db"), reserve_bytes=8 * MIB),
        nodes=tuple(decode_node_config({**fields, "id": f"node-{n}", "poc_port": 2 + n}) for n in range(nodes)),
    )
    service = make_service(config, reactor)
    service.startService()
    await service.broker.register_missing([])
    # As twistd's plugin does.
    gc.collect()
    gc.freeze()
    metrics = Metrics(reactor, service._snapshot)
    turns = Turns(reactor)
    section, took_ms, turns_ms = Section("scrape"), [], []
    for _ in range(_SCRAPES):
        await deferLater(reactor, 1)
        idle = turns.longest_ms()
        began = time.perf_counter()
        text = await metrics.text()
        seconds = time.perf_counter() - began
        took_ms.append(1000 * seconds)
        turns_ms.append(turns.longest_ms())
        print(
            f"{nodes} nodes: {len(text.splitlines())} lines in {took_ms[-1]:.0f} ms; the longest turn had "
            f"{turns_ms[-1]:.1f} ms, {idle:.1f} ms in the second before",
            flush=True,
        )
    section.write({"nodes": nodes, "scrape_ms": spread(took_ms), "longest_turn_ms": spread(turns_ms)})
    turns.stop()
    await service.stopService()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    arguments = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    with folder() as found:
        react(lambda reactor: Deferred.fromCoroutine(measure(reactor, arguments.nodes, Path(found))))
