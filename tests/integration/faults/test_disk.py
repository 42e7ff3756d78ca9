"""The system itself refuses dapi's writes and syncs, or leaves it waiting: what was acknowledged is on disk.

With ``DAPI_FAULT_ROUNDS`` the disk hangs, too, until dapi says so, which takes it 10 s.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import gatherResults

from dapi.messages import ProofBatch, content_id
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings
from tests.integration.ports import free_port
from tests.integration.test_pull_the_plug import POC, all_batches, node_config
from tests.integration.twistd_process import Run, Twistd, admin_port, get, post, twistd
from tests.integration.waiting import soon, until, until_awaited

__all__ = ["twistd"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the disk is made to fail by LD_PRELOAD")

reactor: Any = global_reactor
SOURCE = Path(__file__).parent / "disk.c"
PATIENCE_SECONDS = 120
# What the system does, and the problem that dapi shows; None: it ends, and says why.
FAULTS = [
    (f"write {errno.ENOSPC}", "database-full"),
    (f"sync {errno.EIO}", None),
    (f"write {errno.EIO}", None),
]
if "DAPI_FAULT_ROUNDS" in os.environ:
    FAULTS.append(("sync hang", "disk-hangs"))


class Disk:
    """dapi with a disk that can be made to fail."""

    def __init__(self, folder: Path, twistd: Run) -> None:
        self._twistd = twistd
        self._fault = folder / "fault"
        self._ports = {"admin_port": free_port(), "callback_port": free_port()}
        self.port = self._ports["admin_port"]
        library = folder / "disk.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        self._environ = {"LD_PRELOAD": str(library), "DISK_FAULT": str(self._fault)}

    async def start(self) -> Twistd:
        process = self._twistd(environ=self._environ, **self._ports)
        await admin_port(process)
        await process.when_written(r"\d+ nodes loaded")
        return process

    def fail(self, fault: str) -> None:
        new = self._fault.with_suffix(".new")
        new.write_text(fault)
        new.replace(self._fault)

    def heal(self) -> None:
        self._fault.unlink()

    async def when_problem(self, problem: str, shown: bool) -> None:
        async def is_so() -> bool:
            problems = (await get(self.port, "/admin/v1/status"))["problems"]
            return (problem in {each["id"] for each in problems}) is shown

        await until_awaited(is_so, PATIENCE_SECONDS)

    async def have_all_generate(self) -> None:
        results = (await post(self.port, "/admin/v1/poc/start", POC))["results"]
        assert all(result["succeeded"] for result in results.values()), results


@pytest_twisted.async_yield_fixture
async def nodes() -> AsyncIterator[list[SimulatedMLNode]]:
    """One with a WebSocket and one without."""
    nodes = [
        SimulatedMLNode(
            reactor,
            random.Random(number),
            name=f"node{number}",
            settings=quick_settings(walk_seconds=0.05, websocket=number == 1),
        )
        for number in (1, 2)
    ]
    for node in nodes:
        node.startService()
    yield nodes
    await gatherResults([node.stopService() for node in nodes])


def has_delivered_all(node: SimulatedMLNode) -> bool:
    return node.ledger.counts["made"] == node.ledger.counts["delivered"]


@pytest_twisted.ensureDeferred
async def test_what_was_acknowledged_is_on_disk(twistd: Run, nodes: list[SimulatedMLNode], tmp_path: Path) -> None:
    disk = Disk(tmp_path, twistd)
    process = await disk.start()
    for node in nodes:
        await post(disk.port, "/admin/v1/nodes", node_config(node))
    for fault, problem in FAULTS:
        await disk.have_all_generate()
        for node in nodes:
            await soon(node.ledger.when_delivered(node.ledger.counts["delivered"] + 5), PATIENCE_SECONDS)
        disk.fail(fault)
        if problem is None:
            assert await process.when_ended() == 1, fault
            assert "stopping: " in process.output
            disk.heal()
            process = await disk.start()
        else:
            await disk.when_problem(problem, shown=True)
            disk.heal()
            await disk.when_problem(problem, shown=False)
            assert not process.ended.called
    for node in nodes:
        node.settings.batches_per_walk = 0
    for node in nodes:
        await until(partial(has_delivered_all, node), PATIENCE_SECONDS)
    batches = await all_batches(disk.port)
    made = [content_id(msgspec.convert(entry.batch, ProofBatch)) for node in nodes for entry in node.ledger.batches]
    assert sorted(batch["batch_id"] for batch in batches) == sorted(made)
