"""The benchmarks as they are run by hand, but short: they end by themselves, and write results of the promised form."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorProcess

from tests.integration.processes import WatchedProcess
from tests.integration.waiting import soon

# Several times what it takes where nothing else runs.
PATIENCE_SECONDS = 120
TINY = ("--rounds", "2", "--seconds", "0.05", "--nonces", "20")


async def results_of(folder: Path, *command: str) -> dict[str, Any]:
    """Run a benchmark; return what it wrote."""
    bench = WatchedProcess()
    environment = os.environ | {"BENCH_DIR": str(folder), "BENCH_RESULTS": str(folder / "results.json")}
    arguments = [sys.executable, "-m", *command]
    IReactorProcess(reactor).spawnProcess(bench, sys.executable, arguments, env=environment, path=os.getcwd())
    try:
        code = await soon(bench.ended, PATIENCE_SECONDS)
    finally:
        await bench.kill()
    assert code == 0, bench.output + bench.errors
    assert [path.name for path in folder.iterdir()] == ["results.json"]
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


@pytest.mark.parametrize(
    ("name", "sections", "sides"),
    [
        ("intake", ("intake", "intake_1", "intake_256"), ("memory", "websockets", "picows", "sink")),
        ("http", ("http",), ("aiohttp",)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_comparison_writes_rates_and_ratios(
    name: str, sections: tuple[str, ...], sides: tuple[str, ...], tmp_path: Path
) -> None:
    results = await results_of(tmp_path, f"bench.{name}", *TINY)
    for section in sections:
        assert set(results[section]["20"]) == {"dapi", *sides}
        assert set(results["ratios"][section]["20"]) == set(sides)
        for side in results["rounds"][section]["20"].values():
            assert side["rate"]["min"] <= side["rate"]["median"] <= side["rate"]["max"]
            # In so short a time, on a busy machine, nothing else is sure.
            assert side["p99_ms"]["min"] >= side["p50_ms"]["min"] > 0
            assert side["cpu_us"]["min"] > 0
        assert set(results["measured"][section]) == {"at", "commit", "seconds", "load"}
    prefix = "http_" if name == "http" else ""
    assert set(results["cpu_us"]["20"]) == {f"{prefix}{side}" for side in ("dapi", *sides)}
    assert set(results["machine"]) == {"cpu", "cores", "kernel", "python", "versions", "load"}


@pytest_twisted.ensureDeferred
async def test_the_nodes_all_open_and_are_measured(tmp_path: Path) -> None:
    results = await results_of(tmp_path, "bench.nodes", "--nodes", "3", "--idle-seconds", "0.1")
    nodes = results["nodes"]
    assert nodes["nodes"] == 3
    assert 0 < nodes["port_open_s"] <= nodes["registered_s"]
    # After they have ended, each WebSocket is tried again 3 to 5 s later.
    assert nodes["restart_until_open_s"] > 2.5
    assert nodes["poc_start_until_open_s"] > 0
    assert nodes["status_ms"]["median"] > 0
    assert {"kb_a_node", "idle_cpu_percent", "poc_start_cpu_ms_a_node", "restart_cpu_ms_a_node"} <= set(nodes)


@pytest_twisted.ensureDeferred
async def test_the_steps_are_timed_by_size(tmp_path: Path) -> None:
    results = await results_of(tmp_path, "bench.steps", "--rounds", "1", "--seconds", "0.001")
    assert set(results["steps"]) == {"20", "1000", "20000"}
    for steps in results["steps"].values():
        assert {"decode", "content id", "chain's message", "whole handler", "ack", "msgspec"} == set(steps)
        assert all(step["min"] > 0 for step in steps.values())
