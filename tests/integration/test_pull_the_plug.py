"""kill -9 of dapi under load, again and again: no acknowledged batch is lost, none is doubled."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from dapi.messages import ProofBatch, content_id
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings
from tests.batches import PUBLIC_KEY
from tests.integration.ports import free_port
from tests.integration.twistd_process import Run, admin_port, get, post, twistd
from tests.integration.waiting import soon

__all__ = ["twistd"]

# `make faults` kills it more often.
KILLS = int(os.environ.get("DAPI_FAULT_ROUNDS", "4"))
# Of each node, at random.
DELIVERED_BEFORE_A_KILL = (10, 150)
PATIENCE_SECONDS = 120
# No chain takes anything, so all that a hundred rounds bring waits.
NO_QUOTA = {"DAPI_STORAGE__MAX_NODE_MESSAGES": "1000000"}
POC = {"block_height": 1000, "block_hash": "AB" * 32, "public_key": PUBLIC_KEY}


@pytest_twisted.async_yield_fixture
async def nodes() -> AsyncIterator[list[SimulatedMLNode]]:
    """Two nodes with a WebSocket, every fourth ack of which is lost, and one without."""
    load = {"walk_seconds": 0.02, "batches_per_walk": 10, "ack_wait_seconds": 0.2}
    settings = (
        quick_settings(**load, double_every=4),
        quick_settings(**load, double_every=4),
        quick_settings(**load, websocket=False),
    )
    nodes = [
        SimulatedMLNode(reactor, random.Random(number), name=f"node{number}", settings=each, remembered=10**6)
        for number, each in enumerate(settings, start=1)
    ]
    for node in nodes:
        node.startService()
    yield nodes
    await gatherResults([node.stopService() for node in nodes])


async def all_batches(port: int) -> list[dict[str, Any]]:
    """Page through the whole list."""
    batches, cursor = [], ""
    while True:
        page = await get(port, f"/admin/v1/batches?limit=1000{cursor}")
        batches += page["batches"]
        if page["next"] is None:
            return batches
        cursor = f"&cursor={page['next']}"


@pytest_twisted.ensureDeferred
async def test_nothing_acknowledged_is_lost_and_nothing_is_doubled(twistd: Run, nodes: list[SimulatedMLNode]) -> None:
    # The nodes know one callback address, so each dapi comes back at the same ports.
    ports = {"admin_port": free_port(), "callback_port": free_port()}
    process = twistd(environ=NO_QUOTA, **ports)
    port = await admin_port(process)
    await process.when_written(r"\d+ nodes loaded")
    for node in nodes:
        await post(port, "/admin/v1/nodes", node_config(node))
    moments, delivered = random.Random(KILLS), 0
    for _ in range(KILLS):
        results = (await post(port, "/admin/v1/poc/start", POC))["results"]
        assert all(result["succeeded"] for result in results.values()), results
        delivered += moments.randint(*DELIVERED_BEFORE_A_KILL)
        await gatherResults(
            [node.ledger.when_delivered(delivered).addTimeout(PATIENCE_SECONDS, reactor) for node in nodes]
        )
        assert await process.kill() == -9
        process = twistd(environ=NO_QUOTA, **ports)
        await admin_port(process)
        await process.when_written(r"\d+ nodes loaded")
    for node in nodes:
        node.settings.batches_per_walk = 0
    await gatherResults([soon(node.ledger.when(partial(is_empty, node)), PATIENCE_SECONDS) for node in nodes])

    batches = await all_batches(port)
    assert len({batch["batch_id"] for batch in batches}) == len(batches)
    made = {
        node.node_name: {content_id(msgspec.convert(entry.batch, ProofBatch)) for entry in node.ledger.batches}
        for node in nodes
    }
    for name, ids in made.items():
        assert {batch["batch_id"] for batch in batches if batch["node_id"] == name} == ids
    # Not a test of nothing: both ways were used, and batches did come twice.
    assert {batch["via"] for batch in batches} == {"websocket", "http"}
    assert max(batch["seen"] for batch in batches) > 1
    for node in nodes:
        assert node.ledger.counts["made"] >= delivered


def is_empty(node: SimulatedMLNode) -> bool:
    """Tell whether a node has delivered all that it made."""
    return node.ledger.counts["delivered"] == node.ledger.counts["made"]


def node_config(node: SimulatedMLNode) -> dict[str, Any]:
    """A node as it is registered."""
    return {
        "id": node.node_name,
        "host": "127.0.0.1",
        "poc_port": node.port,
        "inference_port": node.port,
        "models": {"simulated": {"args": []}},
    }
