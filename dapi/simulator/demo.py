"""``python -m dapi.simulator.demo``: dapi between a simulated chain and three simulated ML nodes, told each second.

Everything runs in this process, on ports of 127.0.0.1 that the system picks, in a temporary folder that is removed at
the end. The chain makes a block a second (``--block-seconds``), and its epochs are short: the nodes generate, validate
and serve inference, again and again. Nodes 1 and 2 have a WebSocket. Every third ack to node 2 is lost, so node 2
delivers those batches by HTTP as well. Node 3 has no WebSocket. At the start the chain knows none of them: dapi
declares them, and claims what they earn. Ctrl-C, SIGTERM or ``--seconds`` end the demo; the last line says what was
paid.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import treq
from coincurve import PrivateKey
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from dapi.broker.nodes import NodeConfig, decode_node_config
from dapi.config import ApiConfig, ChainNodeConfig, Config, PocConfig, StorageConfig
from dapi.messages.sizes import MIB
from dapi.service import DapiService, make_service
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import MLNodeSettings, scaled_settings

_HOST = "127.0.0.1"
# Of the participant; a key that is worth nothing.
_SECRET = b"\1" * 32
# The first PoC starts when all nodes are registered.
_FIRST_POC = 5
_EPOCHS = EpochParams(
    epoch_length=30,
    poc_stage_duration=10,
    poc_exchange_duration=2,
    poc_validation_delay=3,
    poc_validation_duration=8,
)
_MODELS: dict[str, Any] = {"simulated": {"args": []}}
_COLUMNS = 110
_BETWEEN = " | "
# A node's ledger must not fill the memory of a demo that runs for days.
_REMEMBERED = 100
_LEGEND = """\
block   the newest block of the chain, the chain's phase, and the blocks until the next change:
        a window is the time in which the chain accepts batches (PoCGenerate) or verdicts (PoCValidate)
paid    what the chain has paid so far, in its smallest coin: an epoch is paid after the PoC of the next one
nodeN   what the node has sent and got rid of, by the node's own count: over the WebSocket + by HTTP;
        "twice" are those that came by HTTP because their ack over the WebSocket was lost
dapi    the messages that dapi keeps for the chain, each once: the nodes' batches + their verdicts
        + dapi's own (seeds, declared nodes, claims); and how far these are: still to be sent
        + in a transaction + in a block + failed or expired"""


def _node_settings(**changes: Any) -> MLNodeSettings:
    """Return settings with three tenths of a real node's times (a walk each 1.5 s), to have something to see."""
    return scaled_settings(0.3, **changes)


class Demo:
    """The chain, the nodes and dapi; ``folder`` is where dapi keeps its database."""

    def __init__(self, reactor: Any, folder: str, block_seconds: float) -> None:
        self._reactor = reactor
        self._nodes = [
            SimulatedMLNode(
                reactor,
                random.Random(number),  # noqa: S311 - so that two demos are alike
                name=f"node{number}",
                settings=settings,
                remembered=_REMEMBERED,
            )
            for number, settings in enumerate(
                (_node_settings(), _node_settings(double_every=3), _node_settings(websocket=False)), start=1
            )
        ]
        epochs = Epochs(_FIRST_POC, _EPOCHS)
        self._chain = SimulatedChain(reactor, random.Random(0), epochs=epochs, block_seconds=block_seconds)  # noqa: S311
        self._chain.add_account(PrivateKey(_SECRET).public_key.format())
        self._folder = folder
        self._service: DapiService | None = None
        self._http = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))
        self.is_stopping = False
        self._showing: Deferred[None] | None = None
        self._kinds: Counter[str] = Counter()
        self._last_seq = 0
        self._admin_url = ""
        # By epoch.
        self._paid: dict[int, int] = {}

    def start(self, seconds: float) -> Deferred[None]:
        """Start all, and show what happens.

        The Deferred fires after so many seconds or at the stop, and fails when something goes wrong.
        """
        self._showing = Deferred.fromCoroutine(self._show(seconds))
        self._showing.addErrback(self._unless_stopping)
        return self._showing

    def stop(self) -> Deferred[None]:
        """Stop all; the Deferred fires when nothing is left."""
        return Deferred.fromCoroutine(self._stop())

    def _unless_stopping(self, failure: Failure) -> Failure | None:
        # The stop cuts off a call of the admin API, which then fails.
        return None if self.is_stopping else failure

    async def _stop(self) -> None:
        self.is_stopping = True
        if self._showing is not None:
            self._showing.cancel()
        if self._service is not None:
            await self._service.stopService()
        await gatherResults([node.stopService() for node in self._nodes])
        await self._chain.stopService()

    async def _show(self, seconds: float) -> None:
        for node in self._nodes:
            node.startService()
        self._chain.startService()
        service = self._service = make_service(self._config(), self._reactor)
        service.startService()
        self._admin_url = f"http://{_HOST}:{service.admin_listener.port}"
        print(f"admin: {self._admin_url}", flush=True)
        print(f"callbacks: {service.callback_url}", flush=True)
        print(f"chain: {self._chain.url}, PoC starts at block {_FIRST_POC}", flush=True)
        # All at once, so that dapi declares them on the chain with one message.
        await service.broker.register_missing([_registered(node) for node in self._nodes])
        for node, added in zip(self._nodes, service.broker.nodes(), strict=True):
            way = "WebSocket" if node.settings.websocket else "no WebSocket"
            print(f"{added.id}: {node.base_url}, number {added.num}, {way}", flush=True)
        print(_LEGEND, flush=True)
        began = self._reactor.seconds()
        while self._reactor.seconds() - began < seconds:
            await deferLater(self._reactor, 1.0)
            status = await self._consistent_status()
            await self._look_at_payments()
            parts = [
                _phase_in(status),
                self.paid(),
                *map(_deliveries_of, self._nodes),
                *await self._messages_in(status),
            ]
            print("\n".join(lines_of(f"{self._reactor.seconds() - began:4.0f} s", parts)), flush=True)

    def _config(self) -> Config:
        key_file = Path(self._folder) / "key"
        key_file.touch(mode=0o600)
        key_file.write_text(_SECRET.hex())
        return Config(
            api=ApiConfig(ml_server_host=_HOST, ml_server_port=0, admin_server_host=_HOST, admin_server_port=0),
            chain_node=ChainNodeConfig(url=self._chain.url, key_file=str(key_file)),
            storage=StorageConfig(path=str(Path(self._folder) / "outbox.db"), reserve_bytes=8 * MIB),
            poc=PocConfig(network="test"),
        )

    async def _consistent_status(self) -> Any:
        """Return a status for which the batches of each kind are counted: no message came during the two calls."""
        while True:
            before = await self._call("GET", "/admin/v1/status")
            page = await self._call("GET", "/admin/v1/batches?limit=1000")
            # The newest come first.
            for batch in takewhile(lambda batch: batch["seq"] > self._last_seq, page["batches"]):
                self._kinds[batch["kind"]] += 1
            self._last_seq = max((batch["seq"] for batch in page["batches"]), default=0)
            after = await self._call("GET", "/admin/v1/status")
            if sum(before["batches"].values()) == sum(after["batches"].values()):
                return after

    async def _messages_in(self, status: Any) -> tuple[str, str]:
        """Say what dapi keeps, by kind and by how far it is."""
        counts = status["batches"]
        kept = sum(counts.values())
        own = kept - self._kinds.total()
        newest = (await self._call("GET", "/admin/v1/batches?state=confirmed&limit=1"))["batches"]
        block = f" (newest: {newest[0]['included_height']})" if newest else ""
        return (
            f"dapi keeps {kept} = {self._kinds['generated']} batches + {self._kinds['validated']} verdicts + {own} own",
            f"of these {kept} = {counts['stored']} to send + {counts['in_flight']} in transactions"
            f" + {counts['confirmed']} in blocks{block} + {counts['failed'] + counts['expired']} failed or expired",
        )

    async def _look_at_payments(self) -> None:
        for stage in (await self._call("GET", "/admin/v1/epochs"))["epochs"]:
            claim = stage.get("claim")
            if claim is not None and claim["paid"] is not None:
                self._paid[stage["epoch_index"]] = claim["paid"]

    def paid(self) -> str:
        """Say what the participant has earned."""
        count = len(self._paid)
        epochs = f" for {count} epoch{'s' if count != 1 else ''}" if count else ""
        return f"paid {sum(self._paid.values())}{epochs}"

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        response = await self._http.request(method, self._admin_url + path, json=body)
        answer = await treq.json_content(response)
        if response.code >= 400:
            raise RuntimeError(f"{method} {path}: {response.code}: {answer.get('error')}")
        return answer


def lines_of(time: str, parts: Sequence[str]) -> list[str]:
    """Put parts one after the other into lines that fit a terminal; the first one begins with the time."""
    lines = [f"{time} | {parts[0]}"]
    for part in parts[1:]:
        if len(lines[-1]) + len(_BETWEEN) + len(part) <= _COLUMNS:
            lines[-1] += _BETWEEN + part
        else:
            lines.append(" " * len(time) + _BETWEEN + part)
    return lines


def _registered(node: SimulatedMLNode) -> NodeConfig:
    """Return a node as it is registered."""
    config = {"id": node.node_name, "host": _HOST, "poc_port": node.port, "inference_port": node.port}
    return decode_node_config({**config, "models": _MODELS})


def _deliveries_of(node: SimulatedMLNode) -> str:
    counts = node.ledger.counts
    ways = f"{counts['websocket']} WebSocket + {counts['http']} HTTP"
    return f"{node.node_name} sent {counts['delivered']} = {ways} ({counts['doubled']} twice)"


def _phase_in(status: Any) -> str:
    """Say where the chain is, as dapi sees it."""
    situation = status["chain"]["poc"]["situation"]
    if situation is None:
        return "no block yet"
    goal = "the next PoC starts" if situation["stage_height"] is None else "the window closes"
    left = situation["blocks_left"]
    return f"block {situation['height']}: {situation['phase']}, {goal} in {left} block{'s' if left != 1 else ''}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo to its end; return the exit code: 0, or 1 when something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m dapi.simulator.demo", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="stop after so many seconds (default: at Ctrl-C)"
    )
    parser.add_argument("--block-seconds", type=float, default=1.0, help="the time between two blocks (default: 1)")
    options = parser.parse_args(arguments)
    from twisted.internet import reactor as installed

    reactor: Any = installed
    # Errors alone, so that the demo's own lines stay readable.
    serious = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.error)])
    globalLogBeginner.beginLoggingTo([serious], redirectStandardIO=False)
    failures: list[Failure] = []

    def end() -> None:
        # `make` and `timeout` pass on a signal that this process got as well: only the first one counts.
        if not demo.is_stopping:
            demo.is_stopping = True
            reactor.stop()

    def over(result: Failure | None) -> None:
        if result is not None:
            failures.append(result)
            print(f"the demo failed: {result.getErrorMessage()}", file=sys.stderr, flush=True)
        end()

    def start() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: reactor.callFromThread(end))
        demo.start(options.seconds).addBoth(over)

    with tempfile.TemporaryDirectory(prefix="dapi-demo-") as folder:
        demo = Demo(reactor, folder, options.block_seconds)
        reactor.addSystemEventTrigger("before", "shutdown", lambda: demo.stop().addErrback(failures.append))
        reactor.callWhenRunning(start)
        reactor.run()
    print("failed" if failures else f"stopped: {demo.paid()}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
