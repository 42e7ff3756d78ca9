"""Both ports keep what their ``/openapi.json`` says, whatever schemathesis sends them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from zope.interface import implementer

from dapi.service import DapiService
from dapi.timing.log_levels import LogLevels
from tests.integration.processes import WatchedProcess
from tests.integration.service.conftest import start
from tests.integration.service.services import Start, config, entry, node
from tests.integration.waiting import soon

__all__ = ["start"]

reactor: Any = global_reactor

SCHEMATHESIS = str(Path(sys.executable).parent / "schemathesis")
_SECONDS = 240
# Nobody listens there.
_NOBODY = ("127.0.0.1", 1)


@implementer(IHostnameResolver)
class _Nowhere:
    """Knows one address for every name."""

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *_: Any, **__: Any) -> Any:
        receiver: Any = IResolutionReceiver(resolutionReceiver)
        receiver.resolutionBegan(self)
        receiver.addressResolved(IPv4Address("TCP", *_NOBODY))
        receiver.resolutionComplete()
        return receiver


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no connection be made: the nodes that are registered by chance have chance addresses."""
    connect = reactor.connectTCP
    monkeypatch.setattr(reactor, "connectTCP", lambda host, port, *more, **named: connect(*_NOBODY, *more, **named))
    before = reactor.installNameResolver(_Nowhere())
    yield
    reactor.installNameResolver(before)


# What a schema cannot tell: two nodes have two addresses, lists are of one length, 1.0 is no whole number to dapi.
_MORE_THAN_SCHEMAS = """
[[operations]]
include-path-regex = "/nodes|/poc/(start|validate)|/poc-batches/"
[operations.checks]
positive_data_acceptance.enabled = false
"""
# 503 is no fault but an answer: not now. A busy machine gives it more often.
_NOT_NOW = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]
"""
# A node, and a batch, may have these words for its id: then their paths take its methods, too.
_WORDS_OR_IDS = """
[[operations]]
include-path-regex = "/nodes/batch$|/retry$"
[operations.checks]
allow_header_conformance.enabled = false
"""


async def run(port: int, folder: Path, settings: str, *options: str) -> None:
    """Run schemathesis against a port; AssertionError with its report when it finds something."""
    (folder / "schemathesis.toml").write_text(settings + _NOT_NOW)
    process = WatchedProcess()
    url = f"http://127.0.0.1:{port}/openapi.json"
    command = [SCHEMATHESIS, "run", url, "--phases", "examples,coverage,fuzzing", "--max-examples", "4", "--seed", "1"]
    command += ["--generation-database", "none", "--no-color", "--warnings", "off", *options]
    # A busy machine is no finding.
    command += ["--suppress-health-check", "all", "--request-timeout", "60", "--request-retries", "2"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONWARNINGS": "ignore"}
    reactor.spawnProcess(process, SCHEMATHESIS, command, env=environment, path=str(folder))
    try:
        code = await soon(process.ended, _SECONDS)
    finally:
        await process.kill()
    assert code == 0, process.output + process.errors


async def begin(folder: Path, start: Start) -> DapiService:
    """Start dapi with a few batches."""
    service = await start(config(folder / "a.db", node("a")), log_levels=LogLevels("info"))
    for name in ("abcdefgh", "bcdefghi"):
        await service.outbox.put(entry(name))
    return service


@pytest_twisted.ensureDeferred
async def test_the_admin_port(tmp_path: Path, start: Start, nowhere: None) -> None:
    service = await begin(tmp_path, start)
    # A stream without an end; and copies of the database, at chance places of this machine.
    left_out = ("--exclude-path", "/events", "--exclude-path", "/admin/v1/backup")
    await run(service.admin_listener.port, tmp_path, _MORE_THAN_SCHEMAS + _WORDS_OR_IDS, *left_out)
    assert service.running


@pytest_twisted.ensureDeferred
async def test_the_callback_port(tmp_path: Path, start: Start, nowhere: None) -> None:
    service = await begin(tmp_path, start)
    (registered,) = service.broker.nodes()
    token = service._parts.callback_tokens.token(registered.num, registered.token_num)
    settings = f'parameters = {{ "path.token" = "{token}" }}\n{_MORE_THAN_SCHEMAS}'
    await run(service.callback_listener.port, tmp_path, settings)
    assert service.running
