"""``dapi`` as a process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest_twisted
from twisted.internet import reactor

from tests.integration.processes import WatchedProcess

DAPI = str(Path(sys.executable).parent / "dapi")


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    output: str
    errors: str

    def json(self) -> Any:
        return json.loads(self.output)


Begin = Callable[..., WatchedProcess]


@pytest_twisted.async_yield_fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    """Begins commands of ``dapi`` in the test's folder; what still runs at the end is killed."""
    begun: list[WatchedProcess] = []

    def begin(*arguments: str, **environ: str) -> WatchedProcess:
        process = WatchedProcess()
        environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment |= {"HOME": str(tmp_path), "COLUMNS": "80", **environ}
        reactor.spawnProcess(process, DAPI, [DAPI, *arguments], env=environment, path=str(tmp_path))
        begun.append(process)
        return process

    yield begin
    for process in begun:
        await process.kill()


async def ended(process: WatchedProcess) -> Ended:
    """Wait until a command ends."""
    code = await process.when_ended()
    return Ended(code, process.output, process.errors)
