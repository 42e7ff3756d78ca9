"""A whole dapi between a simulated chain and simulated nodes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest_twisted
from twisted.internet import reactor as global_reactor

from dapi.broker.nodes import NodeConfig, decode_node_config
from dapi.chain.keyring import SigningKey
from dapi.chain_service import ChainService
from dapi.config import ApiConfig, ChainNodeConfig, Config, PocConfig, PocV2Config, StorageConfig
from dapi.messages import ProofBatch, State, content_id
from dapi.orchestration.conductor import Conductor
from dapi.orchestration.phase_status import PhaseStatus
from dapi.service import DapiService, make_service
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings
from tests.integration.ports import free_port
from tests.integration.waiting import until, until_awaited

reactor: Any = global_reactor
SECRET = b"\1" * 32
FIRST_POC = 6
# Stages that last as long as a test waits at two blocks a second, with time for what comes at the switch to be sent.
LONG = EpochParams(
    epoch_length=1000,
    poc_stage_duration=150,
    poc_exchange_duration=60,
    poc_validation_delay=60,
    poc_validation_duration=200,
)
GENERATION_END = FIRST_POC + LONG.poc_stage_duration
VALIDATION_START = GENERATION_END + LONG.poc_validation_delay
VALIDATION_END = VALIDATION_START + LONG.poc_validation_duration
SECOND_POC = FIRST_POC + LONG.epoch_length


class WholeDapi:
    """A chain, nodes that dapi knows, and dapi, which may be stopped and started again on its database.

    ``height`` is reached by making blocks as fast as can be; a block comes every ``block_seconds`` besides. The chain's
    own clock goes on by ``block_time_seconds`` a block; None: it is this machine's. ``chain_settings`` are settings of
    ``chain_node``, ``api_settings`` of ``api``, and ``poc_v2`` is that section, from the next start on.
    """

    def __init__(
        self,
        folder: Path,
        params: EpochParams = LONG,
        block_seconds: float = 0.5,
        block_time_seconds: float | None = None,
    ) -> None:
        self.folder = folder
        self.key_file = folder / "key"
        self.key_file.write_text(SECRET.hex())
        self.key_file.chmod(0o600)
        self.key = SigningKey(SECRET)
        self.nodes: dict[str, SimulatedMLNode] = {}
        self.service: DapiService | None = None
        self.chain_settings: dict[str, Any] = {}
        self.api_settings: dict[str, Any] = {}
        self.poc_v2 = PocV2Config()
        # Host and port, of nodes that dapi reaches otherwise than they listen.
        self.addresses: dict[str, tuple[str, int]] = {}
        # The same over a restart: another one would make another init.
        self.callback_port = free_port()
        self.chain = SimulatedChain(
            reactor,
            random.Random(1),
            epochs=Epochs(FIRST_POC, params),
            block_seconds=block_seconds,
            block_time_seconds=block_time_seconds,
            port=free_port(),
        )
        self.chain.add_account(self.key.public_key)
        self.chain.startService()

    def node(self, name: str, *, prefix: str = "", **settings: Any) -> SimulatedMLNode:
        """Start one more node; dapi is told of it when it starts next."""
        number = len(self.nodes) + 1
        quick = quick_settings(**settings)
        rng, port = random.Random(number), free_port()
        node = SimulatedMLNode(reactor, rng, name=name, settings=quick, prefix=prefix, port=port)
        node.startService()
        self.nodes[name] = node
        return node

    def start(self) -> DapiService:
        """Start dapi."""
        api = ApiConfig(
            ml_server_host="127.0.0.1", ml_server_port=self.callback_port, admin_server_port=0, **self.api_settings
        )
        config = Config(
            api=api,
            chain_node=ChainNodeConfig(
                **{"url": self.chain.url, "key_file": str(self.key_file), **self.chain_settings},
            ),
            poc=PocConfig(follow_chain=True, network="test"),
            poc_v2=self.poc_v2,
            storage=StorageConfig(path=str(self.folder / "outbox.db"), reserve_bytes=2**20),
            nodes=tuple(self.config_of(node) for node in self.nodes.values()),
        )
        self.service = make_service(config, reactor)
        self.service.startService()
        return self.service

    def config_of(self, node: SimulatedMLNode) -> NodeConfig:
        """A node as it is registered."""
        host, port = self.addresses.get(node.node_name, ("127.0.0.1", node.port))
        return decode_node_config(
            {
                "id": node.node_name,
                "host": host,
                "poc_port": port,
                "inference_port": port,
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

    @property
    def chain_service(self) -> ChainService:
        """What talks to the chain in the dapi that runs."""
        assert self.service is not None
        assert self.service.chain is not None
        return self.service.chain

    @property
    def conductor(self) -> Conductor:
        assert self.chain_service.conductor is not None
        return self.chain_service.conductor

    @property
    def phases(self) -> PhaseStatus:
        assert self.chain_service.phase_status is not None
        return self.chain_service.phase_status

    async def when_all(self, phase: str | None) -> None:
        """Wait until every node is in this phase (None: inference)."""
        for node in self.nodes.values():
            await when_in(node, phase)

    async def when_seen(self, height: int) -> None:
        """Wait until the conductor has done what is to be done at a height."""
        await until(lambda: self.conductor.situation is not None and self.conductor.situation.height >= height)

    async def when_finished(self) -> dict[str, int]:
        """Wait until no message is stored or in flight; return how many are in each state."""
        service = self.service
        assert service is not None

        async def is_finished() -> bool:
            counts = await service.outbox.counts()
            return counts[State.STORED] == counts[State.IN_FLIGHT] == 0

        await until_answered(is_finished)
        return await service.outbox.counts()

    async def when_handed_out(self) -> None:
        """Wait until the validation of the latest stage needs nothing more."""

        async def is_handed_out() -> bool:
            (stage,) = await self.phases.latest_stages(1)
            return bool(stage["is_handed_out"])

        await until_answered(is_handed_out)

    async def when_all_is_sent(self) -> None:
        """Wait until each message is in a transaction, or in a block."""
        service = self.service
        assert service is not None

        async def is_sent() -> bool:
            return (await service.outbox.counts())[State.STORED] == 0

        await until_answered(is_sent)

    async def when_nothing_is_left(self) -> None:
        """Wait until all that the nodes delivered is confirmed, and see that it is on the chain, each batch once.

        Nodes that go on to generate leave no moment at which nothing is left.
        """
        assert self.service is not None
        # Before anything is waited for: what comes meanwhile is not on the chain yet.
        delivered = {
            content_id(msgspec.convert(entry.batch, ProofBatch))
            for node in self.nodes.values()
            for entry in node.ledger.delivered(kind="generated")
        }
        counts = await self.when_finished()
        failed = (await self.service.outbox.batches(state=State.FAILED)).batches
        assert counts[State.FAILED] == counts[State.EXPIRED] == 0, (counts, failed)
        on_chain = {batch_id for _, _, batch_id in self.chain.state.batches}
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


async def until_answered(ask: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Wait until the answer is yes; what becomes of a database has no event to wait for."""
    await until_awaited(ask)


async def when_in(node: SimulatedMLNode, phase: str | None) -> None:
    """Wait until a node is in this phase."""
    await until(lambda: phase_of(node) == phase)


async def when_all_is_delivered(node: SimulatedMLNode) -> None:
    """Wait until a node that makes nothing new has delivered what it made."""
    await until(lambda: node.ledger.counts["made"] == node.ledger.counts["delivered"])


@pytest_twisted.async_yield_fixture
async def whole(tmp_path: Path) -> AsyncIterator[WholeDapi]:
    """All of it, with long stages, stopped at the end."""
    whole = WholeDapi(tmp_path)
    yield whole
    await whole.end()
