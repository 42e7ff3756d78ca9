"""The examples of docs/embedding.md run, as they stand there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest_twisted
import treq
from twisted.internet import reactor as global_reactor
from twisted.web.client import Agent

from tests.batches import generated_batch
from tests.integration.ports import free_port
from tests.integration.processes import WatchedProcess
from tests.integration.service.services import call, config, node, when_loaded
from tests.integration.waiting import soon, until_awaited

reactor: Any = global_reactor
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


class Embedded(WatchedProcess):
    """A process with dapi in it, whose log is on the error output."""

    errReceived = WatchedProcess.outReceived  # noqa: N815


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def text_of(port: int, path: str) -> str:
    response = await soon(treq.get(f"http://127.0.0.1:{port}{path}", agent=Agent(reactor)))
    assert response.code == 200
    content: bytes = await soon(treq.content(response))
    return content.decode()


@pytest_twisted.ensureDeferred
async def test_a_complete_process(tmp_path: Path) -> None:
    settings = tmp_path / "config.yaml"
    settings.write_text(
        "api: {ml_server_host: 127.0.0.1, ml_server_port: 0, admin_server_port: 0}\n"
        f"storage: {{path: {tmp_path / 'outbox.db'}}}\n"
    )
    process = Embedded()
    command = [sys.executable, str(EXAMPLES / "embedded.py"), str(settings)]
    reactor.spawnProcess(process, sys.executable, command, env={}, path=str(tmp_path))
    try:
        port = int((await process.when_written(r"admin: listening on 127\.0\.0\.1:(\d+)"))[1])
        _, status = await call(port, "/admin/v1/status")
        assert status["database"]["state"] == "ok"
        process.signal("TERM")
        assert await process.when_ended() == 0
    finally:
        await process.kill()


@pytest_twisted.ensureDeferred
async def test_a_process_that_cannot_start_says_why_and_ends_with_1(tmp_path: Path) -> None:
    process = Embedded()
    command = [sys.executable, str(EXAMPLES / "embedded.py"), str(tmp_path / "none.yaml")]
    reactor.spawnProcess(process, sys.executable, command, env={}, path=str(tmp_path))
    try:
        assert await process.when_ended() == 1
        assert "cannot start: " in process.output
    finally:
        await process.kill()


@pytest_twisted.ensureDeferred
async def test_two_dapis_beside_another_service(tmp_path: Path) -> None:
    configs = {name: config(tmp_path / f"{name}.db", node("a")) for name in ("first", "second")}
    overview_port = free_port()
    process, dapis = example("two_dapis").make_process(reactor, configs, overview_port)
    process.startService()
    try:
        first, second = dapis["first"], dapis["second"]
        await when_loaded(first)
        batch = generated_batch(node_id=1)
        assert (await call(first.callback_listener.port, "/v1/poc-batches/generated", batch))[0] == 200
        found = {}
        for name, dapi in dapis.items():
            port = dapi.admin_listener.port
            assert "<title>" in await text_of(port, "/")
            assert "dapi_problems" in await text_of(port, "/metrics")
            found[name] = (await call(port, "/admin/v1/status"))[1]["batches"]["stored"]
        assert found == {"first": 1, "second": 0}
        assert len({first.admin_listener.port, second.admin_listener.port}) == 2

        async def both_are_told() -> bool:
            problems: dict[str, list[str]] = msgspec.json.decode(await text_of(overview_port, "/"))
            return set(problems) == {"first", "second"} and all(
                "chain-not-configured" in ids for ids in problems.values()
            )

        # The watch looks for problems every few seconds.
        await until_awaited(both_are_told)
    finally:
        await soon(process.stopService())
