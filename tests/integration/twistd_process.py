"""``twistd -n dapi`` as a process, and calls of its admin API."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.client import Agent

TWISTD = str(Path(sys.executable).parent / "twistd")
PATIENCE_SECONDS = 30


class Twistd(ProcessProtocol):
    """A running ``twistd``: ``output`` is what it wrote, log and errors together."""

    def __init__(self) -> None:
        self.output = ""
        self.ended: Deferred[int] = Deferred()
        self._waiting: list[tuple[re.Pattern[str], Deferred[str]]] = []

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()
        for wanted in list(self._waiting):
            pattern, fired = wanted
            found = pattern.search(self.output)
            if found:
                self._waiting.remove(wanted)
                fired.callback(found[found.lastindex or 0])

    errReceived = outReceived  # noqa: N815

    def processEnded(self, reason: Failure) -> None:
        for _, fired in self._waiting:
            fired.errback(AssertionError(f"ended too soon:\n{self.output}"))
        code = reason.value.exitCode
        self.ended.callback(-reason.value.signal if code is None else code)

    def when_written(self, pattern: str) -> Deferred[str]:
        """Fire with the first group of the pattern once the output has it."""
        fired: Deferred[str] = Deferred()
        self._waiting.append((re.compile(pattern), fired))
        self.outReceived(b"")
        return fired.addTimeout(PATIENCE_SECONDS, reactor)

    def when_ended(self) -> Deferred[int]:
        """Fire with the exit code, negative for a signal."""
        return self.ended.addTimeout(PATIENCE_SECONDS, reactor)

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
    ) -> Twistd:
        process = Twistd()
        ports = ("--callback-host", "127.0.0.1", "--callback-port", str(callback_port))
        database_path = str(tmp_path / database)
        command = [TWISTD, "-n", "dapi", "--database", database_path, *ports, "--admin-port", str(admin_port), *options]
        reactor.spawnProcess(process, TWISTD, command, env={**_environ(), **(environ or {})}, path=str(tmp_path))
        runs.append(process)
        return process

    yield run
    for process in runs:
        if not process.ended.called:
            process.transport.signalProcess("KILL")
            pytest_twisted.blockon(process.when_ended())


def _environ() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


async def admin_port(process: Twistd) -> int:
    return int(await process.when_written(r"admin: listening on 127\.0\.0\.1:(\d+)"))


async def get(port: int, path: str) -> Any:
    """GET from the admin API; return the decoded answer of a 200."""
    return await _call("GET", port, path)


async def post(port: int, path: str, body: Any = None) -> Any:
    """POST to the admin API; return the decoded answer of a 200."""
    return await _call("POST", port, path, json=body)


async def _call(method: str, port: int, path: str, **body: Any) -> Any:
    url = f"http://127.0.0.1:{port}{path}"
    response = await treq.request(method, url, agent=Agent(reactor), **body).addTimeout(PATIENCE_SECONDS, reactor)
    answer = await treq.content(response)
    assert response.code == 200, answer
    return json.loads(answer)
