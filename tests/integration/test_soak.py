"""The soak as it is run by hand, but a short one: it keeps its promises, ends by itself, and leaves nothing."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorProcess

from tests.integration.processes import WatchedProcess
from tests.integration.waiting import soon

SHORT = ("--nodes", "6", "--http-nodes", "2", "--epochs", "1", "--nonces", "20", "--block-seconds", "0.35")
# Seven of these blocks are 2.5 s: so long a disk, or the machine, may be somebody else's.
WINDOWS = ("--chances", "7")
FAULTS = ("--faults", "stalls,stale,grant", "--index", "off")
# What the soak says of a machine that is too busy, and how often it may say so.
NO_VERDICT, TRIES = 2, 3
# Several times what it takes where nothing else runs.
PATIENCE_SECONDS = 300


async def short_soak(folder: Path) -> tuple[int, WatchedProcess]:
    """Run it; return its exit code, and what it wrote."""
    soak = WatchedProcess()
    command = [sys.executable, "-m", "bench.soak", *SHORT, *WINDOWS, *FAULTS]
    environment = os.environ | {"TMPDIR": str(folder)}
    IReactorProcess(reactor).spawnProcess(soak, sys.executable, command, env=environment, path=os.getcwd())
    try:
        code = await soon(soak.ended, PATIENCE_SECONDS)
    finally:
        await soak.kill()
    return code, soak


@pytest_twisted.ensureDeferred
async def test_a_short_soak_keeps_all_promises(tmp_path: Path) -> None:
    for _ in range(TRIES):
        code, soak = await short_soak(tmp_path)
        if code != NO_VERDICT:
            break
    assert code == 0, soak.output + soak.errors
    for line in (r"seeds +2 of 2", r"claims +1 of 1", r"doubled +0", r"paid +([1-9]\d+) of \1 that the chain owed"):
        assert re.search(f"^{line}$", soak.output, re.MULTILINE), soak.output
    by_way = re.search(r"^acknowledged +(\d+) \((\d+) by WebSocket, (\d+) by HTTP\)$", soak.output, re.MULTILINE)
    assert by_way is not None, soak.output
    assert all(int(count) for count in by_way.groups())
    assert soak.output.endswith("\nall promises kept\n")
    assert list(tmp_path.iterdir()) == []
