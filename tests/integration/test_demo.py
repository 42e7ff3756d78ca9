"""The demo as its users run it: a process."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorProcess
from twisted.web.client import Agent

from dapi.chain.rpc import ChainRpc
from tests.integration.processes import WatchedProcess

# Between two parts, in one line or in two.
BAR = r"\s+\| "
# A second in which each node has delivered the way that it can, and node 2 some batches twice.
ALL_ARRIVED = BAR.join(
    (
        r"^ *\d+ s \| block \d+: PoCGenerate\w*, the window closes in \d+ blocks?",
        r"paid 0",
        r"node1 sent [1-9]\d* = [1-9]\d* WebSocket \+ \d+ HTTP \(\d+ twice\)",
        r"node2 sent [1-9]\d* = [1-9]\d* WebSocket \+ [1-9]\d* HTTP \([1-9]\d* twice\)",
        r"node3 sent [1-9]\d* = 0 WebSocket \+ [1-9]\d* HTTP \(0 twice\)",
        r"dapi keeps \d+ = [1-9]\d* batches \+ 0 verdicts \+ [1-9]\d* own",
        r"of these \d+ = \d+ to send \+ \d+ in transactions"
        r" \+ [1-9]\d* in blocks \(newest: \d+\) \+ 0 failed or expired$",
    )
)


def assert_sums(output: str) -> None:
    """Each second, what is equal is equal: each node's deliveries, and what dapi keeps by kind and by state."""
    assert max(map(len, output.splitlines())) <= 110
    whole = r"^ *\d+ s \|(?:.*\n)+?.* failed or expired$"
    seconds = re.findall(whole, output, re.MULTILINE)
    assert seconds
    for second in seconds:
        _, _, _paid, *nodes, kept, by_state = re.split(r"\s+\| ", re.sub(r"\([^)]*\)", "", second))
        assert len(nodes) == 3
        # Without the digit of the node's name.
        totals = [
            {sum(map(int, re.findall(r"\b\d+\b", side))) for side in part.split(" = ")}
            for part in (*nodes, kept, by_state)
        ]
        assert all(len(total) == 1 for total in totals), second
        assert totals[-2] == totals[-1], second


class DemoProcess(WatchedProcess):
    """A running demo."""

    async def end(self, signal: str = "", *, may_be_late: bool = False) -> None:
        """Send the signal, if any, and wait for a clean end; with quick blocks a busy machine may miss windows."""
        if signal:
            self.signal(signal)
        code = await self.when_ended()
        errors = [line for line in self.errors.splitlines() if not (may_be_late and " expired: " in line)]
        assert (code, errors) == (0, [])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., DemoProcess]]:
    """Start demos whose temporary folders lie in the test's; kill what still runs at the end."""
    demos: list[DemoProcess] = []

    def start(*options: str, module: str = "dapi.simulator.demo") -> DemoProcess:
        demo = DemoProcess()
        command = [sys.executable, "-m", module, *options]
        IReactorProcess(reactor).spawnProcess(
            demo, sys.executable, command, env=os.environ | {"TMPDIR": str(tmp_path)}, path=os.getcwd()
        )
        demos.append(demo)
        return demo

    yield start
    for demo in demos:
        pytest_twisted.blockon(demo.kill())
        # Shown when the test fails.
        print(f"== the demo\n{demo.output}\n{demo.errors}")


async def get_batches(admin: str) -> list[dict[str, Any]]:
    response = await treq.get(f"{admin}/admin/v1/batches?limit=1000", agent=Agent(reactor))
    body = await treq.content(response)
    assert response.code == 200, body
    batches: list[dict[str, Any]] = json.loads(body)["batches"]
    return batches


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
    start: Callable[..., DemoProcess], tmp_path: Path
) -> None:
    # Slow blocks give a busy machine the time to have all in one PoC, and each batch in one of the next three blocks.
    demo = start("--block-seconds", "2")
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
    await demo.end("INT")
    assert demo.output.endswith("\nstopped: paid 0\n")
    assert_sums(demo.output)
    assert list(tmp_path.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_whole_epochs_run_by_themselves(start: Callable[..., DemoProcess]) -> None:
    demo = start()
    for phase in ("PoCGenerate", "PoCValidate", "Inference", "PoCGenerate"):
        # Each of them after the one before.
        seen = len(demo.output)
        await demo.when_written(rf"\| block \d+: {phase}, ", after=seen)
    admin = await demo.when_written(r"^admin: (http://127\.0\.0\.1:\d+)$")
    batches = await get_batches(admin[1])
    assert {batch["kind"] for batch in batches} == {"generated", "validated"}
    await demo.end("INT")
    assert not re.search(r"\b[1-9]\d* failed or expired", demo.output)
    assert_sums(demo.output)


@pytest_twisted.ensureDeferred
async def test_after_the_first_full_epoch_the_participant_is_paid(start: Callable[..., DemoProcess]) -> None:
    demo = start("--block-seconds", "0.5")
    admin = (await demo.when_written(r"^admin: (http://127\.0\.0\.1:\d+)$"))[1]
    # An epoch's PoC, another one until the epoch is settled, and the claim.
    await demo.when_written(r"\| block \d+: PoCValidate, ")
    await demo.when_written(r"\| paid 1000000 for 1 epoch$")
    response = await treq.get(f"{admin}/admin/v1/epochs", agent=Agent(reactor))
    (epoch,) = [stage for stage in (await treq.json_content(response))["epochs"] if stage["epoch_index"] == 1]
    assert epoch["weight"] == epoch["effective_weight"] > 0
    await demo.end("INT", may_be_late=True)
    assert demo.output.endswith("\nstopped: paid 1000000 for 1 epoch\n")


@pytest_twisted.ensureDeferred
async def test_sigterm_ends_it_too(start: Callable[..., DemoProcess], tmp_path: Path) -> None:
    demo = start()
    await demo.when_written(r"^node3: .* no WebSocket$")
    # Twice, as when `make` passes it on to a process that had it already.
    demo.signal("TERM")
    await demo.end("TERM")
    assert list(tmp_path.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_it_ends_by_itself(start: Callable[..., DemoProcess]) -> None:
    demo = start("--seconds", "1")
    await demo.end()
    assert len(re.findall(r"^ *\d+ s \|", demo.output, re.MULTILINE)) == 1


@pytest_twisted.ensureDeferred
async def test_the_demo_of_v2_ends_by_itself_with_numbers_that_add_up(start: Callable[..., DemoProcess]) -> None:
    demo = start("--scale", "0.1", module="dapi.simulator.demo_v2")
    await demo.end()
    result = json.loads(demo.output.splitlines()[-1])
    assert set(result) == {"without", "with"}
    for side in result.values():
        assert 0 < side["committed"] <= side["made"]
    lines = [line for line in demo.output.splitlines() if line.startswith("block")]
    # A busy machine may show two blocks at once.
    assert 5 <= len(lines) <= 19
    for line in lines:
        for made, delivered, committed in re.findall(r"made (\d+), delivered (\d+), committed (\d+)", line):
            assert max(int(delivered), int(committed)) <= int(made)
