"""A node that forgets its open connection is back on the WebSocket: at once when dapi did it, soon when nobody told.

How soon is a matter of unit tests, which have a clock of their own.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor as global_reactor

from dapi.broker.nodes import decode_node_config
from dapi.config import ApiConfig, Config, StorageConfig
from dapi.phases.duty import Duty
from dapi.service import DapiService, make_service
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings
from tests.batches import PUBLIC_KEY
from tests.integration.waiting import soon

reactor: Any = global_reactor


@pytest_twisted.async_yield_fixture
async def node() -> AsyncIterator[SimulatedMLNode]:
    """A node that walks each 0.25 s, and waits for an ack as long as a busy machine may take."""
    settings = quick_settings(ack_wait_seconds=10)
    node = SimulatedMLNode(reactor, random.Random(1), name="node1", settings=settings)
    node.startService()
    yield node
    await node.stopService()


@pytest_twisted.async_yield_fixture
async def service(node: SimulatedMLNode, tmp_path: Path) -> AsyncIterator[DapiService]:
    """dapi with that node."""
    registered = decode_node_config(
        {
            "id": "node1",
            "host": "127.0.0.1",
            "poc_port": node.port,
            "inference_port": node.port,
            "models": {"simulated": {"args": []}},
        }
    )
    api = ApiConfig(ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0)
    storage = StorageConfig(path=str(tmp_path / "outbox.db"), reserve_bytes=2**20)
    service = make_service(Config(api=api, storage=storage, nodes=(registered,)), reactor)
    service.startService()
    await service.broker.register_missing([])
    yield service
    await service.stopService()


async def start_poc(service: DapiService, height: int) -> None:
    commanded = await service.broker.command_all(Duty.GENERATE, height, "AB" * 32, PUBLIC_KEY)
    results = await commanded.ended()
    assert results["node1"].succeeded, results


@pytest_twisted.ensureDeferred
async def test_after_the_init_that_did_it(node: SimulatedMLNode, service: DapiService) -> None:
    await start_poc(service, 1000)
    await soon(node.ledger.when_delivered(2, via="websocket"))
    await start_poc(service, 2000)
    # PoW was restarted under the open connection: the old one is dead, so these came over a fresh one.
    new = node.ledger.counts["websocket"] + 2
    await soon(node.ledger.when_delivered(new, via="websocket"))
    assert node.ledger.batches[-1].batch["block_height"] == 2000
    accepted = [connection for connection in node.ledger.connections if connection.refused is None]
    assert len(accepted) == 2
    assert accepted[0].close_code == 1000


@pytest_twisted.ensureDeferred
async def test_soon_when_nobody_told_dapi(node: SimulatedMLNode, service: DapiService) -> None:
    await start_poc(service, 1000)
    await soon(node.ledger.when_delivered(1, via="websocket"))
    worker = service.broker.worker_by_num(1)
    opened_at = worker.websocket_client.status().since
    node.restart_pow()
    await soon(node.ledger.when_delivered(1, via="http"))
    before = node.ledger.counts["websocket"]
    # The rule spares a connection of the last 5 s, within which a batch may still be on its way by HTTP.
    await soon(node.ledger.when_delivered(before + 1, via="websocket"))
    assert worker.websocket_client.status().since > opened_at
    assert worker.websocket_client.status().connections == 2
