"""dapi with nothing but the network's own environment variables and node-config.json, on a simulated network."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor as global_reactor

from dapi.messages import content_id
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings
from tests.batches import generated_batch
from tests.integration.ports import free_port
from tests.integration.service.services import call
from tests.integration.twistd_process import Run, admin_port, get, twistd
from tests.integration.waiting import until

__all__ = ["twistd"]

reactor: Any = global_reactor
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "keyring.json").read_text(encoding="utf-8"))
FIRST_POC = 6
# Windows that are longer than the test.
LONG = EpochParams(epoch_length=5000, poc_stage_duration=1500, poc_exchange_duration=500, poc_validation_duration=1500)


class Network:
    """A chain and an ML node, and what the network's own set-up gives the api container of a host."""

    def __init__(self, folder: Path) -> None:
        self.chain = SimulatedChain(reactor, random.Random(1), epochs=Epochs(FIRST_POC, LONG), block_seconds=0.5)
        self.chain.add_account(bytes.fromhex(VECTORS["participant"]["public_key"]))
        self.chain.startService()
        self.node = SimulatedMLNode(reactor, random.Random(1), name="node1", settings=quick_settings())
        self.node.startService()
        self.callback_port = free_port()
        for name, text in VECTORS["files"].items():
            if name.startswith("keyring-file/"):
                path = folder / ".inference" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        node_config = [
            {
                "id": "node1",
                "host": "127.0.0.1",
                "inference_port": self.node.port,
                "poc_port": self.node.port,
                "max_concurrent": 500,
                "models": {"simulated": {"args": []}},
            }
        ]
        (folder / "node-config.json").write_text(json.dumps(node_config))
        public_key = bytes.fromhex(VECTORS["participant"]["public_key"])
        self.environ = {
            "HOME": str(folder),
            "KEY_NAME": "participant",
            "ACCOUNT_PUBKEY": base64.b64encode(public_key).decode(),
            "KEYRING_BACKEND": "file",
            "KEYRING_PASSWORD": VECTORS["password"],
            "NODE_CONFIG_PATH": str(folder / "node-config.json"),
            "IS_TEST_NET": "true",
            "DAPI_API__POC_CALLBACK_URL": f"http://127.0.0.1:{self.callback_port}",
            "DAPI_API__PUBLIC_URL": "http://host.example:8000",
            "DAPI_API__PUBLIC_SERVER_PORT": "9000",
            "DAPI_CHAIN_NODE__URL": self.chain.url,
            "DAPI_CHAIN_NODE__SEED_API_URL": "http://seed.example:8000",
            "DAPI_CHAIN_NODE__P2P_URL": "tcp://host.example:5000",
        }

    def batch_ids(self) -> set[str]:
        """The ids of the batches that the chain has taken."""
        return {batch_id for _, _, batch_id in self.chain.state.batches}

    def produce_to(self, height: int) -> None:
        while self.chain.height < height:
            self.chain.produce_block()

    async def end(self) -> None:
        await self.node.stopService()
        await self.chain.stopService()


@pytest_twisted.async_yield_fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    network = Network(tmp_path)
    yield network
    await network.end()


@pytest_twisted.ensureDeferred
async def test_in_the_place_of_the_api_container(network: Network, twistd: Run) -> None:
    process = twistd(callback_port=network.callback_port, environ=network.environ)
    port = await admin_port(process)
    # What of that set-up is not dapi's, it names.
    await process.when_written(r"It does not use .*DAPI_API__PUBLIC_URL")

    await process.when_written("node1: registered")
    (node,) = await get(port, "/admin/v1/nodes")
    assert node["node"]["id"] == "node1"
    network.produce_to(FIRST_POC)
    # From the node's init to a block, by dapi alone.
    await until(lambda: len(network.batch_ids()) >= 3 and list(network.chain.state.seeds))


@pytest_twisted.ensureDeferred
async def test_beside_an_api_container_that_commands_the_nodes(network: Network, twistd: Run) -> None:
    beside = {"DAPI_POC__FOLLOW_CHAIN": "false", "DAPI_API__CALLBACK_AUTH": "optional"}
    process = twistd(callback_port=network.callback_port, environ={**network.environ, **beside})
    await process.when_written("node1: registered")
    network.produce_to(FIRST_POC + 1)
    # As a node posts it that the container has commanded.
    batch = generated_batch(node_id=1, block_height=FIRST_POC)
    assert (await call(network.callback_port, "/v1/poc-batches/generated", batch))[0] == 200
    await until(lambda: content_id(batch) in network.batch_ids())
    # No command, and no seed: that is the container's.
    assert network.node.run is None
    assert not list(network.chain.state.seeds)
