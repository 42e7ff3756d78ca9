"""``python -m dapi.simulator.demo_v2``: one stage of PoC v2, without dapi and with it, side by side.

Two hosts, each with an api container and three vLLMs that make the same artifacts, see the same outages at the same
moments. The nodes of one post to the container, those of the other to a whole dapi with its relay. Nothing is hastened:
a block a second, senders and container with their real times. After 95 s the stage ends, and the last line says in JSON
what was made and what was committed. ``--scale 0.3`` makes all times shorter, but dapi's own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from dapi.config import ApiConfig, Config, PocV2Config, StorageConfig
from dapi.messages.sizes import MIB
from dapi.service import DapiService, make_service
from dapi.simulator.api.api import SimulatedApi
from dapi.simulator.api.settings import MODEL, START, ApiSettings
from dapi.simulator.api.stages import Durations, Stage
from dapi.simulator.ports import free_ports
from dapi.simulator.vllm.sender import SimulatedVllm
from dapi.simulator.vllm.settings import SenderSettings

_BLOCKS = 95
_NODES = (1, 2, 3)
_STAGE = Stage(START, Durations(poc_stage_duration=_BLOCKS))


class Outage(NamedTuple):
    """A container that is killed at a block, and is away for some blocks."""

    at: int
    blocks: int


# The last one is over 15 blocks before the stage ends, while a node without dapi sleeps on.
_OUTAGES = (Outage(18, 2), Outage(37, 3), Outage(56, 22))
_LEGEND = """\
Each host has an api container and three nodes; each node makes 200 artifacts a second. The container has them in
memory, and brings them to disk each 5 s; only what is on disk is committed. It is killed at the blocks 18, 37 and 56,
and is away for 2, 3 and 22 blocks: what it had in memory is lost, and what the nodes cannot deliver waits with them,
or with dapi.
made       what the nodes made so far
delivered  what was answered with 200: by the container without dapi, and by dapi, which then has it on disk
committed  what counts: the last commit on the chain, which takes none after block 95"""


class Side:
    """One host: its container, its nodes, and dapi where ``folder`` is given."""

    def __init__(self, reactor: Any, name: str, ports: Sequence[int], scale: float, folder: str | None) -> None:
        self.name = name
        self._reactor = reactor
        self._scale = scale
        settings = ApiSettings(flush_seconds=5.0 * scale, unsynced_seconds=0.4 * scale)
        self.api = SimulatedApi(reactor, settings, nodes=dict.fromkeys(_NODES, MODEL), ports=ports)
        self.api.stage, self.api.height = _STAGE, START
        self._folder = folder
        self._service: DapiService | None = None
        self._senders: list[SimulatedVllm] = []
        self._crashing: list[Deferred[None]] = []

    def start(self) -> None:
        """Start all of it."""
        self.api.startService()
        base = self.api.callback_url
        if self._folder is not None:
            base = self._start_dapi(Path(self._folder))
        settings = SenderSettings(artifacts_per_second=200 / self._scale).scaled(self._scale)
        for number in _NODES:
            sender = SimulatedVllm(
                self._reactor, base, node_num=number, node_count=len(_NODES) + 1, model=MODEL, settings=settings
            )
            self._senders.append(sender)
            sender.generate(START)

    def _start_dapi(self, folder: Path) -> str:
        """Start a dapi with its relay; return the URL that the container would tell the nodes."""
        path = folder / "outbox.db"
        config = Config(
            api=ApiConfig(ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0),
            storage=StorageConfig(path=str(path), reserve_bytes=8 * MIB),
            poc_v2=PocV2Config(
                relay=True,
                api_url=self.api.callback_url,
                api_public_url=self.api.public_url,
                api_admin_url=self.api.admin_url,
            ),
        )
        self._service = make_service(config, self._reactor)
        self._service.startService()
        prefix = Path(f"{path}-relay.prefix").read_text(encoding="ascii").strip()
        return f"http://127.0.0.1:{self._service.callback_listener.port}{prefix}"

    def see_block(self, height: int) -> None:
        """Have a block come, and what happens at it."""
        self.api.see_block(height)
        for outage in _OUTAGES:
            if height == START + outage.at:
                self._crashing.append(Deferred.fromCoroutine(self.api.crash(outage.blocks * self._scale)))

    @property
    def counts(self) -> tuple[int, int, int]:
        """What was made, delivered and committed."""
        made = sum(sender.counts.made for sender in self._senders)
        delivered = sum(sender.counts.delivered for sender in self._senders)
        return made, delivered, self.api.committed(START, MODEL)

    def line(self) -> str:
        """Say how it stands."""
        made, delivered, committed = self.counts
        away = "" if self.api.running else " (away)"
        return f"{self.name}: made {made}, delivered {delivered}, committed {committed}{away}"

    async def stop(self) -> None:
        """Stop all of it."""
        await gatherResults([sender.stop() for sender in self._senders])
        await gatherResults(self._crashing)
        if self._service is not None:
            await self._service.stopService()
        if self.api.running:
            await self.api.stopService()


class Demo:
    """Runs both sides through one stage; ``result`` is what the last line says."""

    def __init__(self, reactor: Any, random: Random, folder: str, scale: float) -> None:
        self.result: dict[str, dict[str, int]] = {}
        self._reactor = reactor
        self._scale = scale
        # The containers are killed, and nobody may have their ports meanwhile.
        ports = free_ports(random, 6)
        self._sides = {
            "without": Side(reactor, "without dapi", ports[:3], scale, None),
            "with": Side(reactor, "with dapi", ports[3:], scale, folder),
        }
        self._height = START
        self._made: dict[str, int] = {}

    async def run(self) -> None:
        """Run the stage."""
        print(_LEGEND, flush=True)
        for side in self._sides.values():
            side.start()
        blocks = LoopingCall(self._block)
        blocks.clock = self._reactor
        ended = blocks.start(self._scale, now=False)
        await deferLater(self._reactor, (_BLOCKS + 1.5) * self._scale)
        blocks.stop()
        await ended
        for name, side in self._sides.items():
            self.result[name] = {"made": self._made[name], "committed": side.counts[2]}
        await gatherResults([Deferred.fromCoroutine(side.stop()) for side in self._sides.values()])

    def _block(self) -> None:
        self._height += 1
        for name, side in self._sides.items():
            side.see_block(self._height)
            if self._height <= _STAGE.end:
                # What is made later can count nothing.
                self._made[name] = side.counts[0]
        if (self._height - START) % 5 == 0:
            lines = " | ".join(side.line() for side in self._sides.values())
            print(f"block {self._height - START:3} | {lines}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo to its end; return the exit code: 0, or 1 when something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m dapi.simulator.demo_v2", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="how long a second of the demo is (default: 1)")
    options = parser.parse_args(arguments)
    from twisted.internet import reactor as installed

    reactor: Any = installed
    # What goes wrong on purpose is told by the lines of the demo.
    serious = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.critical)])
    globalLogBeginner.beginLoggingTo([serious], redirectStandardIO=False)
    failures: list[Failure] = []
    with tempfile.TemporaryDirectory(prefix="dapi-demo-") as folder:
        demo = Demo(reactor, Random(), folder, options.scale)  # noqa: S311 - ports are no secrets

        def start() -> None:
            running = Deferred.fromCoroutine(demo.run())
            running.addErrback(failures.append)
            running.addBoth(lambda _: reactor.stop())

        reactor.callWhenRunning(start)
        reactor.run()
    for failure in failures:
        print(f"the demo failed: {failure.getTraceback()}", file=sys.stderr, flush=True)
    print(json.dumps(demo.result), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
