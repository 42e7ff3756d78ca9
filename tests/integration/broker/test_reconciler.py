"""Nodes on real sockets are where they are intended to be, whatever happens to them or to dapi."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor as global_reactor

from dapi.broker.duties import Intention
from dapi.broker.nodes import NodeConfig, decode_node_config
from dapi.broker.reconciler import Reconciler
from dapi.config import ApiConfig, Config, StorageConfig
from dapi.phases.duty import Duty
from dapi.service import DapiService, make_service
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings
from dapi.timing.retry import RetryDelay
from tests.batches import PUBLIC_KEY
from tests.integration.ports import free_port
from tests.integration.waiting import soon, until

reactor: Any = global_reactor

GENERATE = Intention(Duty.GENERATE, 1000, "AB" * 32, PUBLIC_KEY, 9)
NEXT = Intention(Duty.GENERATE, 2000, "CD" * 32, PUBLIC_KEY, 9)
VALIDATE = Intention(Duty.VALIDATE, 1000, "AB" * 32, PUBLIC_KEY, 9)
INFERENCE = Intention(Duty.INFERENCE)


class DapiWithNodes:
    """dapi with a reconciler of its own, and simulated nodes for it."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "outbox.db")
        self.nodes: dict[str, SimulatedMLNode] = {}
        # The same over a restart: another one would make another init.
        self._callback_port = free_port()
        self.start_dapi()

    def start_dapi(self) -> None:
        api = ApiConfig(ml_server_host="127.0.0.1", ml_server_port=self._callback_port, admin_server_port=0)
        storage = StorageConfig(path=self._path, reserve_bytes=2**20)
        self.service: DapiService = make_service(Config(api=api, storage=storage, nodes=()), reactor)
        self.service.startService()
        # Shorter delays than in earnest.
        retry_delay = RetryDelay(random.Random(1), 0.3, 0.5)
        self.reconciler = Reconciler(reactor, self.service.broker, retry_delay, poll_seconds=2)
        self.reconciler.startService()

    async def stop_dapi(self) -> None:
        await self.reconciler.stopService()
        await self.service.stopService()

    def make_node(self, name: str) -> SimulatedMLNode:
        rng, port = random.Random(name), free_port()
        node = SimulatedMLNode(reactor, rng, name=name, settings=quick_settings(), port=port)
        node.startService()
        self.nodes[name] = node
        return node

    async def add(self, *names: str) -> None:
        # Nothing can be added before the nodes are loaded; this waits for it.
        await self.service.broker.register_missing([])
        for name in names:
            node = self.nodes.get(name) or self.make_node(name)
            await self.service.broker.add_node(registered(name, node.port))

    def is_at(self, *names: str, current: str) -> Callable[[], bool]:
        return lambda: all(self.reconciler.status()[name].current == current for name in names)

    async def end(self) -> None:
        await self.stop_dapi()
        for node in self.nodes.values():
            await node.stopService()


def registered(name: str, port: int) -> NodeConfig:
    return decode_node_config(
        {"id": name, "host": "127.0.0.1", "poc_port": port, "inference_port": port, "models": {"simulated": {}}}
    )


def inits(node: SimulatedMLNode) -> list[Any]:
    return [call.body for call in node.ledger.calls if "/pow/init/" in call.path]


@pytest_twisted.async_yield_fixture
async def dapi(tmp_path: Path) -> AsyncIterator[DapiWithNodes]:
    """dapi without nodes."""
    dapi = DapiWithNodes(tmp_path)
    yield dapi
    await dapi.end()


@pytest_twisted.ensureDeferred
async def test_node_restarted_in_each_phase(dapi: DapiWithNodes) -> None:
    await dapi.add("a", "b", "c")
    intentions = {"a": GENERATE, "b": VALIDATE, "c": INFERENCE}
    dapi.reconciler.intend(intentions)
    at_work = {"a": "GENERATING", "b": "VALIDATING", "c": "INFERENCE"}
    await until(lambda: all(dapi.reconciler.status()[name].current == at_work[name] for name in at_work))
    await soon(dapi.nodes["a"].ledger.when_delivered(1, via="websocket"))
    for node in dapi.nodes.values():
        await node.crash()
    for node in dapi.nodes.values():
        node.startService()
    assert {node.state for node in dapi.nodes.values()} == {"STOPPED"}
    a, b, c = dapi.nodes.values()
    await until(lambda: all(node.run is not None and node.run.phase for node in (a, b)) and c.state == "INFERENCE")
    assert a.run is not None
    assert b.run is not None
    assert (a.run.phase, a.run.request.block_height) == ("generate", 1000)
    assert (b.run.phase, b.run.request.block_height) == ("validate", 1000)
    before = a.ledger.counts["websocket"]
    await soon(a.ledger.when_delivered(before + 1, via="websocket"))
    await soon(b.when_client_connected())


@pytest_twisted.ensureDeferred
async def test_unreachable_and_back(dapi: DapiWithNodes) -> None:
    node = dapi.make_node("a")
    await node.crash()
    await dapi.add("a")
    dapi.reconciler.intend({"a": GENERATE})
    await until(lambda: dapi.reconciler.status()["a"].tries >= 2)
    assert "refused" in str(dapi.reconciler.status()["a"].problem)
    node.startService()
    await soon(node.ledger.when_delivered(1, via="websocket"))
    await until(dapi.is_at("a", current="GENERATING"))
    standing = dapi.reconciler.status()["a"]
    assert (standing.tries, standing.problem) == (0, None)
    assert len(inits(node)) == 1


@pytest_twisted.ensureDeferred
async def test_added_in_the_middle(dapi: DapiWithNodes) -> None:
    await dapi.add("a")
    dapi.reconciler.intend({"a": GENERATE, "b": GENERATE})
    await until(dapi.is_at("a", current="GENERATING"))
    await dapi.add("b")
    await soon(dapi.nodes["b"].ledger.when_delivered(1, via="websocket"))
    run = dapi.nodes["b"].run
    assert run is not None
    assert (run.request.node_num, run.request.node_count) == (2, 9)
    assert len(inits(dapi.nodes["a"])) == 1


@pytest_twisted.ensureDeferred
async def test_start_does_not_wait_for_inference_that_comes_up(dapi: DapiWithNodes) -> None:
    await dapi.add("a")
    node = dapi.nodes["a"]
    node.settings.inference_up_seconds = 3600
    dapi.reconciler.intend({"a": INFERENCE})
    await soon(node.ledger.when_called("/api/v1/inference/up/status"))
    assert node.state == "INFERENCE"
    dapi.reconciler.intend({"a": GENERATE})
    await soon(node.ledger.when_delivered(1, via="websocket"))
    await until(dapi.is_at("a", current="GENERATING"))
    assert dapi.reconciler.status()["a"].problem is None


@pytest_twisted.ensureDeferred
async def test_newer_intention_wins(dapi: DapiWithNodes) -> None:
    await dapi.add("a")
    node = dapi.nodes["a"]
    node.settings.http_delays["/api/v1/pow/init/generate"] = 3600
    dapi.reconciler.intend({"a": GENERATE})
    await soon(node.ledger.when(lambda: node.run is not None))
    node.settings.http_delays.clear()
    dapi.reconciler.intend({"a": NEXT})
    await until(dapi.is_at("a", current="GENERATING"))
    await soon(node.ledger.when_delivered(1, via="websocket"))
    assert node.run is not None
    assert (node.run.request.block_height, node.run.request.block_hash) == (2000, "CD" * 32)
    assert [body["block_height"] for body in inits(node)] == [1000, 2000]


@pytest_twisted.ensureDeferred
async def test_nodes_at_work_are_not_disturbed_by_a_restart_of_dapi(dapi: DapiWithNodes) -> None:
    await dapi.add("a", "b")
    a, b = dapi.nodes.values()
    dapi.reconciler.intend({"a": GENERATE, "b": VALIDATE})
    await until(dapi.is_at("a", current="GENERATING"))
    await until(dapi.is_at("b", current="VALIDATING"))
    await soon(a.ledger.when_delivered(1, via="websocket"))
    runs = (a.run, b.run)
    await dapi.stop_dapi()
    dapi.start_dapi()
    dapi.reconciler.intend({"a": GENERATE, "b": VALIDATE})
    before = a.ledger.counts["websocket"]
    await soon(a.ledger.when_delivered(before + 1, via="websocket"))
    await soon(b.when_client_connected())
    assert (a.run, b.run) == runs
    assert len(inits(a)) == 2
    assert inits(a)[0] == inits(a)[1]
