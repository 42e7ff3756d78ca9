"""``twistd -n dapi`` as a process, and calls of its admin API."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.web.client import Agent

from tests.integration.processes import WatchedProcess
from tests.integration.waiting import soon

TWISTD = str(Path(sys.executable).parent / "twistd")


class Twistd(WatchedProcess):
    """A running ``twistd``; its ``output`` is what it wrote, log and errors together."""

    errReceived = WatchedProcess.outReceived  # noqa: N815

    def last_line(self) -> str:
        return self.output.rstrip().rpartition("\n")[2]


Run = Callable[..., Twistd]


@pytest.fixture
def twistd(tmp_path: Path) -> Any:
    """Runs ``twistd -n dapi`` in the test's folder, with its database there; what still runs at the end is killed."""
    runs: list[Twistd] = []

    def run(
        *options: str,
        database: str = "outbox.db",
        admin_port: int = 0,
        callback_port: int = 0,
        environ: dict[str, str] | None = None,
        log_file: str = "-",
    ) -> Twistd:
        process = Twistd()
        ports = ("--callback-host", "127.0.0.1", "--callback-port", str(callback_port))
        database_path = str(tmp_path / database)
        command = [TWISTD, "-n", "-l", log_file, "dapi", "--database", database_path, *ports]
        command += ["--admin-port", str(admin_port), *options]
        reactor.spawnProcess(process, TWISTD, command, env={**_environ(), **(environ or {})}, path=str(tmp_path))
        runs.append(process)
        return process

    yield run
    for number, process in enumerate(runs, start=1):
        pytest_twisted.blockon(process.kill())
        # Shown when the test fails.
        print(f"== twistd, run {number}\n{process.output}")


def customized(folder: Path, module: str, **environ: str) -> dict[str, str]:
    """Return an environment in which each Python process runs a module of ``tests.integration`` before all else."""
    (folder / "sitecustomize.py").write_text((Path(__file__).parent / f"{module}.py").read_text())
    return {"PYTHONPATH": str(folder), **environ}


def _environ() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


async def admin_port(process: Twistd) -> int:
    return int((await process.when_written(r"admin: listening on 127\.0\.0\.1:(\d+)"))[1])


async def get(port: int, path: str) -> Any:
    """GET from the admin API; return the decoded answer of a 200."""
    return await _call("GET", port, path)


async def post(port: int, path: str, body: Any = None) -> Any:
    """POST to the admin API; return the decoded answer of a 200."""
    return await _call("POST", port, path, json=body)


async def put(port: int, path: str, body: Any) -> Any:
    """PUT to the admin API; return the decoded answer of a 200."""
    return await _call("PUT", port, path, json=body)


async def _call(method: str, port: int, path: str, **body: Any) -> Any:
    url = f"http://127.0.0.1:{port}{path}"
    response = await soon(treq.request(method, url, agent=Agent(reactor), **body))
    answer = await treq.content(response)
    assert response.code == 200, answer
    return json.loads(answer)
