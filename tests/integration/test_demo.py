"""The demo as its users run it: a process."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.client import Agent

from dapi.chain.rpc import ChainRpc

PATIENCE_SECONDS = 30

# One line in which each node has delivered the way that it can, and node 2 some batches twice.
ALL_ARRIVED = (
    r"^ *\d+ s \| block \d+, PoCGenerate, \d+ blocks left"
    r" \| node1: websocket [1-9]\d*, http \d+, doubled \d+, stored [1-9]\d*"
    r" \| node2: websocket [1-9]\d*, http [1-9]\d*, doubled [1-9]\d*, stored [1-9]\d*"
    r" \| node3: websocket 0, http [1-9]\d*, doubled 0, stored [1-9]\d*"
    r" \| stored \d+, in flight \d+, confirmed [1-9]\d* \(newest in block \d+\), failed 0$"
)


class Demo(ProcessProtocol):
    """A running demo; ``output`` and ``errors`` are what it wrote."""

    def __init__(self) -> None:
        self.output = ""
        self.errors = ""
        self.ended: Deferred[Any] = Deferred()
        self._waiting: list[tuple[re.Pattern[str], Deferred[re.Match[str]]]] = []

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()
        for pattern, fired in self._waiting:
            found = pattern.search(self.output)
            if found and not fired.called:
                fired.callback(found)

    def errReceived(self, data: bytes) -> None:
        self.errors += data.decode()

    def processEnded(self, reason: Failure) -> None:
        for _, fired in self._waiting:
            if not fired.called:
                fired.errback(AssertionError(f"ended too soon:\n{self.output}\n{self.errors}"))
        self.ended.callback(reason.value.exitCode)

    def when_written(self, pattern: str) -> Deferred[re.Match[str]]:
        fired: Deferred[re.Match[str]] = Deferred()
        self._waiting.append((re.compile(pattern, re.MULTILINE), fired))
        self.outReceived(b"")
        return fired.addTimeout(PATIENCE_SECONDS, reactor)

    def when_ended(self) -> Deferred[Any]:
        """Fire with the exit code, None when a signal ended it."""
        return self.ended.addTimeout(PATIENCE_SECONDS, reactor)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start demos whose temporary folders lie in the test's; kill what still runs at the end."""
    demos: list[Demo] = []

    def start(*options: str) -> Demo:
        demo = Demo()
        command = [sys.executable, "-m", "dapi.simulator.demo", *options]
        reactor.spawnProcess(
            demo, sys.executable, command, env=os.environ | {"TMPDIR": str(tmp_path)}, path=os.getcwd()
        )
        demos.append(demo)
        return demo

    yield start
    for demo in demos:
        if not demo.ended.called:
            with suppress(ProcessExitedAlready):
                demo.transport.signalProcess("KILL")
            pytest_twisted.blockon(demo.when_ended())


async def get_batches(admin: str) -> list[dict[str, Any]]:
    response = await treq.get(f"{admin}/admin/v1/batches?limit=1000", agent=Agent(reactor))
    body = await treq.content(response)
    assert response.code == 200, body
    return json.loads(body)["batches"]


async def assert_within_3_blocks(chain: str, confirmed: list[dict[str, Any]]) -> None:
    """What was received after a block has to be in one of the three that follow it."""
    rpc = ChainRpc(reactor, [chain])
    for batch in confirmed:
        assert batch["included_height"] > batch["height"]
        three_before = await rpc.block(batch["included_height"] - 3)
        assert three_before.time_ns / 10**9 <= datetime.fromisoformat(batch["received_at"]).timestamp(), batch
    await rpc.close()


@pytest_twisted.ensureDeferred
async def test_batches_of_all_three_nodes_arrive_and_each_is_there_once(
    start: Callable[..., Demo], tmp_path: Path
) -> None:
    demo = start()
    admin = (await demo.when_written(r"^admin: (http://127\.0\.0\.1:\d+)$"))[1]
    chain = (await demo.when_written(r"^chain: (http://127\.0\.0\.1:\d+),"))[1]
    await demo.when_written(ALL_ARRIVED)
    batches = await get_batches(admin)
    assert len({batch["batch_id"] for batch in batches}) == len(batches)
    assert {batch["kind"] for batch in batches} == {"generated"}
    ways = {(batch["node_id"], batch["via"]) for batch in batches}
    assert {("node1", "websocket"), ("node2", "websocket"), ("node3", "http")} <= ways
    assert ("node3", "websocket") not in ways
    assert any(batch["seen"] > 1 for batch in batches if batch["node_id"] == "node2")
    assert all(batch["seen"] == 1 for batch in batches if batch["node_id"] == "node3")
    confirmed = [batch for batch in batches if batch["state"] == "confirmed"]
    assert confirmed
    assert {batch["state"] for batch in batches} <= {"stored", "in_flight", "confirmed"}
    await assert_within_3_blocks(chain, confirmed)
    demo.transport.signalProcess("INT")
    assert await demo.when_ended() == 0
    assert demo.output.endswith("\nstopped\n")
    assert demo.errors == ""
    assert list(tmp_path.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_whole_epochs_run_by_themselves(start: Callable[..., Demo]) -> None:
    demo = start()
    for phase in ("PoCGenerate", "PoCValidate", "Inference", "PoCGenerate"):
        # Each of them after the one before.
        seen = len(demo.output)
        await demo.when_written(rf"(?s)\A.{{{seen}}}.*block \d+, {phase}, \d+ blocks left")
    admin = re.search(r"^admin: (http://127\.0\.0\.1:\d+)$", demo.output, re.MULTILINE)
    assert admin is not None
    batches = await get_batches(admin[1])
    assert {batch["kind"] for batch in batches} == {"generated", "validated"}
    assert not re.search(r"failed [1-9]", demo.output)
    demo.transport.signalProcess("INT")
    assert await demo.when_ended() == 0
    assert demo.errors == ""


@pytest_twisted.ensureDeferred
async def test_sigterm_ends_it_too(start: Callable[..., Demo], tmp_path: Path) -> None:
    demo = start()
    await demo.when_written(r"^node3: .* no WebSocket$")
    # Twice, as when `make` passes it on to a process that had it already.
    demo.transport.signalProcess("TERM")
    demo.transport.signalProcess("TERM")
    assert await demo.when_ended() == 0
    assert demo.errors == ""
    assert list(tmp_path.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_it_ends_by_itself(start: Callable[..., Demo]) -> None:
    demo = start("--seconds", "1")
    assert await demo.when_ended() == 0
    assert len(re.findall(r"^ *\d+ s \|", demo.output, re.MULTILINE)) == 1
    assert demo.errors == ""
