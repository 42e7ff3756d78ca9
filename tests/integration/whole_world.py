"""A whole dapi between a simulated chain and simulated nodes."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from dapi.broker.nodes import decode_node_config
from dapi.chain.keyring import SigningKey
from dapi.config import ApiConfig, ChainNodeConfig, Config, PocConfig, StorageConfig
from dapi.messages import ProofBatch, State, content_id
from dapi.service import DapiService, make_service
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings

reactor: Any = global_reactor
PATIENCE_SECONDS = 30
# Two blocks, or this: what a node may take to be where the phase wants it.
SOON_SECONDS = 10
SECRET = b"\1" * 32
FIRST_POC = 6
# Stages that last longer than SOON_SECONDS at two blocks a second, with time for what comes at the switch to be sent.
LONG = EpochParams(
    epoch_length=200,
    poc_stage_duration=30,
    poc_exchange_duration=12,
    poc_validation_delay=12,
    poc_validation_duration=40,
)


class World:
    """A chain, nodes that dapi knows, and dapi, which may be stopped and started again on its database.

    ``height`` is reached by making blocks as fast as can be; a block comes every ``block_seconds`` besides.
    """

    def __init__(self, folder: Path, params: EpochParams = LONG, block_seconds: float = 0.5) -> None:
        self.folder = folder
        self.key_file = folder / "key"
        self.key_file.write_text(SECRET.hex())
        self.key_file.chmod(0o600)
        self.key = SigningKey(SECRET)
        self.nodes: dict[str, SimulatedMLNode] = {}
        self.service: DapiService | None = None
        # The same over a restart: another one would make another init.
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.callback_port = free.getsockname()[1]
        self.chain = SimulatedChain(
            reactor,
            random.Random(1),
            epochs=Epochs(FIRST_POC, params),
            block_seconds=block_seconds,
        )
        self.chain.add_account(self.key.public_key)
        self.chain.startService()

    def node(self, name: str, **settings: Any) -> SimulatedMLNode:
        """Start one more node; dapi is told of it when it starts next."""
        number = len(self.nodes) + 1
        node = SimulatedMLNode(reactor, random.Random(number), name=name, settings=quick_settings(**settings))
        node.startService()
        self.nodes[name] = node
        return node

    def start(self) -> DapiService:
        """Start dapi."""
        api = ApiConfig(ml_server_host="127.0.0.1", ml_server_port=self.callback_port, admin_server_port=0)
        config = Config(
            api=api,
            chain_node=ChainNodeConfig(url=self.chain.url, key_file=str(self.key_file)),
            poc=PocConfig(follow_chain=True, network="test"),
            storage=StorageConfig(path=str(self.folder / "outbox.db"), reserve_bytes=2**20),
            nodes=tuple(self.config_of(node) for node in self.nodes.values()),
        )
        self.service = make_service(config, reactor)
        self.service.startService()
        return self.service

    def config_of(self, node: SimulatedMLNode) -> Any:
        """A node as it is registered."""
        return decode_node_config(
            {
                "id": node.node_name,
                "host": "127.0.0.1",
                "poc_port": node.port,
                "inference_port": node.port,
                "models": {"simulated": {"args": []}},
            }
        )

    async def stop(self) -> None:
        """Stop dapi."""
        assert self.service is not None
        await self.service.stopService()
        self.service = None

    def produce_to(self, height: int) -> None:
        """Make blocks up to this height at once."""
        while self.chain.height < height:
            self.chain.produce_block()

    async def when(self, predicate: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until something is so; what happens in a simulated node or chain has no one event to wait for."""
        deadline = reactor.seconds() + seconds
        while not predicate():
            assert reactor.seconds() < deadline, f"not within {seconds} s: {what}, at height {self.chain.height}"
            await deferLater(reactor, 0.02)

    async def when_all(self, phase: str | None) -> None:
        """Wait until every node is in this phase (None: inference), which has to be soon."""
        for node in self.nodes.values():
            await self.when(lambda node=node: phase_of(node) == phase, f"{node.node_name}: {phase}", SOON_SECONDS)

    async def when_nothing_is_left(self) -> None:
        """Wait until all that the nodes delivered is confirmed, and see that it is on the chain, each batch once."""
        assert self.service is not None
        deadline = reactor.seconds() + PATIENCE_SECONDS
        while True:
            counts = await self.service.outbox.counts()
            if counts[State.STORED] == counts[State.IN_FLIGHT] == 0:
                break
            assert reactor.seconds() < deadline, counts
            await deferLater(reactor, 0.05)
        failed = (await self.service.outbox.batches(state=State.FAILED)).batches
        assert counts[State.FAILED] == counts[State.EXPIRED] == 0, (counts, failed)
        on_chain = {batch_id for _, _, batch_id in self.chain.state.batches}
        delivered = {
            content_id(msgspec.convert(entry.batch, ProofBatch))
            for node in self.nodes.values()
            for entry in node.ledger.delivered(kind="generated")
        }
        assert delivered
        assert delivered <= on_chain
        assert not self.chain.blockchain.doubles()

    async def end(self) -> None:
        """Stop everything."""
        if self.service is not None:
            await self.stop()
        for node in self.nodes.values():
            if node.running:
                await node.stopService()
        await self.chain.stopService()


def phase_of(node: SimulatedMLNode) -> str | None:
    """What a node does: ``generate``, ``validate``, or None in inference; ``nothing`` when it has stopped."""
    if node.run is not None:
        return node.run.phase
    return None if node.state == "INFERENCE" else "nothing"


@pytest_twisted.async_yield_fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """All of it, with long stages, stopped at the end."""
    world = World(tmp_path)
    yield world
    await world.end()
