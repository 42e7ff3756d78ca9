"""What ``GET status`` says is wrong, on real sockets."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import LoopingCall
from twisted.logger import LogLevel

from dapi.config import ApiConfig, PocConfig
from dapi.diagnosis import callbacks, nodes, websockets
from dapi.diagnosis.problem import Problem
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings
from tests.integration.ports import free_port
from tests.integration.service.services import Start, call, config, node
from tests.integration.waiting import soon, until
from tests.integration.whole_dapi import (
    FIRST_POC,
    VALIDATION_END,
    VALIDATION_START,
    WholeDapi,
    until_answered,
    when_all_is_delivered,
    whole,
)
from tests.logs import Log

__all__ = ["whole"]

BLOCK = {"block_height": 5, "block_hash": "AB", "public_key": "02aa"}


async def problems(whole: WholeDapi) -> list[str]:
    assert whole.service is not None
    _, status = await call(whole.service.admin_listener.port, "/admin/v1/status")
    return [each["problem"] for each in status["problems"]]


async def until_told(whole: WholeDapi, *said: str) -> None:
    """Wait until there are problems that say this, each in one, and no others."""

    async def is_told() -> bool:
        found = await problems(whole)
        return len(found) == len(said) and all(any(each in problem for problem in found) for each in said)

    await until_answered(is_told)


@pytest_twisted.ensureDeferred
async def test_no_false_alarm_over_a_whole_epoch(whole: WholeDapi) -> None:
    ml_nodes = [whole.node("node1"), whole.node("node2")]
    service = whole.start()
    seen: set[str] = set()
    looking = LoopingCall(lambda: seen.update(f"{each.id}: {each.problem}" for each in service.problems()))
    looked = looking.start(0.2)
    for height, phase in ((FIRST_POC, "generate"), (VALIDATION_START, "validate"), (VALIDATION_END, None)):
        whole.produce_to(height)
        await whole.when_all(phase)
        if phase == "generate":
            for node in ml_nodes:
                await soon(node.ledger.when_delivered(2))
                node.settings.batches_per_walk = 0
            await when_all_is_delivered(ml_nodes[0])
            await when_all_is_delivered(ml_nodes[1])
            await whole.when_finished()
        await until_told(whole)
    looking.stop()
    await looked
    assert seen == set()


@pytest.mark.parametrize(
    ("changes", "problem_id"),
    [
        ({"refuse_upgrade": 404}, "websocket-not-found"),
        ({"refuse_upgrade": 403}, "websocket-forbidden"),
        ({"websocket_ready": False}, "websocket-policy"),
        ({"http_failures": {"*": 503}}, "node-refusing"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_wrong_with_a_node_until_it_is_mended(
    whole: WholeDapi, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], problem_id: str
) -> None:
    monkeypatch.setattr(websockets, "_LASTING_SECONDS", 0.5)
    monkeypatch.setattr(nodes, "_AWAY_SECONDS", 0.5)
    node = whole.node("node1")
    service = whole.start()
    whole.produce_to(FIRST_POC + 1)
    await whole.when_all("generate")
    await soon(node.ledger.when_delivered(1))

    def ids() -> set[str]:
        return {str(problem.id) for problem in service.problems()}

    before = {name: getattr(node.settings, name) for name in changes}
    for name, value in changes.items():
        setattr(node.settings, name, value)
    service.broker.worker_by_num(1).websocket_client.restart()
    await until(lambda: problem_id in ids())
    for name, value in before.items():
        setattr(node.settings, name, value)
    await until(lambda: ids() == set())


@pytest_twisted.ensureDeferred
async def test_a_chain_that_halts(whole: WholeDapi) -> None:
    node = whole.node("node1")
    service = whole.start()
    whole.produce_to(FIRST_POC + 1)
    await whole.when_all("generate")
    await soon(node.ledger.when_delivered(1))
    await until_told(whole)

    def ids() -> set[str]:
        return {str(problem.id) for problem in service.problems()}

    whole.chain.is_halted = True
    await until(lambda: ids() == {"chain-halted"})
    whole.chain.is_halted = False
    await until(lambda: ids() == set())


@pytest_twisted.ensureDeferred
async def test_nothing_is_wrong_in_poc_until_something_is(whole: WholeDapi, log: Log) -> None:
    whole.node("node1")
    whole.start()
    whole.produce_to(FIRST_POC + 1)
    await whole.when_all("generate")
    await until(lambda: bool(whole.nodes["node1"].ledger.delivered(kind="generated")))
    await until_told(whole)
    clock_offset = whole.chain_service._clock_offset
    clock_offset._now = lambda: time.time() + 60
    whole.produce_to(whole.chain.height + 9)
    await until_told(whole, "s ahead of the time of the blocks")
    assert len(log.warnings("ahead of the time of the blocks: have the clock set by NTP")) == 1
    clock_offset._now = time.time
    whole.produce_to(whole.chain.height + 2)
    await until_told(whole)
    await whole.nodes["node1"].stopService()
    await until_told(whole, "node1: ")
    (problem,) = await problems(whole)
    assert "Connection was refused" in problem or "closed the connection" in problem, problem
    await whole.chain.stopService()
    await until_told(whole, "node1: ", "nothing is sent: not reachable", "chain node 127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_a_callback_url_that_a_node_cannot_reach(
    start: Start, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the simulated node's 5 s are shorter here.
    monkeypatch.setattr(callbacks, "CALLBACK_SECONDS", 1.0)
    ml_node = SimulatedMLNode(reactor, random.Random(1), name="a", settings=quick_settings(websocket=False))
    ml_node.startService()
    nobody = free_port()
    api = ApiConfig(
        ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0, poc_callback_url=f"http://localhost:{nobody}"
    )
    settings = config(tmp_path / "a.db", node("a", poc_port=ml_node.port), api=api, poc=PocConfig(network="test"))
    service = await start(settings)
    port, listening = service.admin_listener.port, service.callback_listener.port
    status, _ = await call(port, "/admin/v1/poc/start", BLOCK)
    assert status == 200
    await until(lambda: bool(log.lines(LogLevel.error, "has never delivered")))
    (line,) = log.lines(LogLevel.error, "has never delivered")
    assert line.startswith(f"a: generates, has no WebSocket, and has never delivered to http://localhost:{nobody}/v1")
    assert f"the URL has port {nobody}, and dapi listens on {listening}" in line
    assert "set api.poc_callback_url" in line
    shown: list[dict[str, Any]] = (await call(port, "/admin/v1/status"))[1]["problems"]
    (problem,) = [each for each in shown if each["id"] == "callback-url-port"]
    assert line == f"{problem['problem']}: {problem['to_do']}"
    assert (problem["severity"], problem["node_id"]) == ("critical", "a")
    assert problem["since"].endswith("Z")
    assert msgspec.convert(shown, list[Problem]) == service.problems()
    await soon(service.stopService())
    await ml_node.stopService()


@pytest_twisted.ensureDeferred
async def test_a_disk_without_room(start: Start, tmp_path: Path) -> None:
    api = ApiConfig(ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0)
    settings = config(tmp_path / "a.db", api=api)
    storage = msgspec.structs.replace(settings.storage, reserve_bytes=2**60)
    service = await start(msgspec.structs.replace(settings, storage=storage))
    _, status = await call(service.admin_listener.port, "/admin/v1/status")
    full, no_chain, not_driving = status["problems"]
    assert full["problem"].startswith("the database is full: ")
    assert "make room" in full["to_do"]
    assert no_chain["problem"].startswith("no chain is configured")
    assert not_driving["problem"].startswith("dapi does not drive the nodes")
