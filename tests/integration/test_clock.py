"""Somebody sets the machine's clock: all that dapi waits for goes on as before."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Factory, Protocol

from dapi.chain.keyring import SigningKey
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings
from tests.batches import PUBLIC_KEY
from tests.integration.test_pull_the_plug import node_config
from tests.integration.twistd_process import Run, admin_port, customized, get, post, twistd
from tests.integration.waiting import until, until_awaited

__all__ = ["twistd"]

reactor: Any = global_reactor
SECRET = b"\1" * 32
STAGE = 10
HOUR = 3600.0


class SilentServer(Factory[Protocol]):
    """Accepts connections and says nothing; ``accepted`` are all that there were."""

    noisy = False

    def __init__(self) -> None:
        self.accepted: list[Protocol] = []

    def buildProtocol(self, _address: object) -> Protocol:
        protocol = Protocol()
        self.accepted.append(protocol)
        return protocol


@pytest.fixture
def silent() -> Iterator[tuple[SilentServer, int]]:
    """A server and its port."""
    server = SilentServer()
    listening = reactor.listenTCP(0, server, interface="127.0.0.1")
    yield server, listening.getHost().port
    pytest_twisted.blockon(listening.stopListening())


@pytest_twisted.async_yield_fixture
async def node() -> AsyncIterator[SimulatedMLNode]:
    """A node that delivers by HTTP, slowly and for ever."""
    settings = quick_settings(walk_seconds=0.5, batches_per_walk=1, websocket=False)
    node = SimulatedMLNode(reactor, random.Random(1), name="node1", settings=settings)
    node.startService()
    yield node
    await node.stopService()


@pytest_twisted.async_yield_fixture
async def chain() -> AsyncIterator[SimulatedChain]:
    """A chain that takes what comes for its first stage, for as long as the test needs."""
    # The epoch is in preparation until its validators are set, which is when verdicts are no longer taken.
    durations = EpochParams(
        epoch_length=40_000, poc_stage_duration=5, poc_exchange_duration=19_000, poc_validation_duration=19_000
    )
    chain = SimulatedChain(
        reactor,
        random.Random(1),
        epochs=Epochs(STAGE, durations),
        block_seconds=0.2,
        first_height=STAGE,
    )
    chain.add_account(SigningKey(SECRET).public_key)
    chain.startService()
    yield chain
    await chain.stopService()


@pytest.mark.parametrize("shift", [-HOUR, HOUR])
@pytest_twisted.ensureDeferred
async def test_everything_goes_on(
    twistd: Run,
    tmp_path: Path,
    chain: SimulatedChain,
    node: SimulatedMLNode,
    silent: tuple[SilentServer, int],
    shift: float,
) -> None:
    server, silent_port = silent
    clock, key_file = tmp_path / "clock", tmp_path / "key"
    clock.write_text("0")
    key_file.write_text(SECRET.hex())
    key_file.chmod(0o600)
    environ = customized(
        tmp_path,
        "shifted_clock",
        CLOCK_SHIFT=str(clock),
        DAPI_CHAIN_NODE__KEY_FILE=str(key_file),
        DAPI_POC__FOLLOW_CHAIN="false",
    )
    process = twistd("--chain-url", chain.url, environ=environ)
    port = await admin_port(process)
    await process.when_written(r"\d+ nodes loaded")
    await post(port, "/admin/v1/nodes", {**node_config(node), "websocket_url": f"ws://127.0.0.1:{silent_port}/ws"})
    stage = {"block_height": STAGE, "block_hash": "AB" * 32, "public_key": PUBLIC_KEY}
    results = (await post(port, "/admin/v1/poc/start", stage))["results"]
    assert all(result["succeeded"] for result in results.values()), results

    async def confirmed() -> int:
        return int((await get(port, "/admin/v1/status"))["batches"]["confirmed"])

    await until_awaited(confirmed)
    await until(lambda: len(server.accepted) >= 1)
    clock.write_text(str(shift))

    # Batches come and get onto the chain.
    before = await confirmed()

    async def has_more_confirmed() -> bool:
        return await confirmed() > before + 1

    await until_awaited(has_more_confirmed)
    # The time-out of the upgrade, and the delay before the next attempt.
    await until(lambda: len(server.accepted) >= 2)
    began = time.monotonic()
    transport: Any = server.accepted[1].transport
    transport.abortConnection()
    await until(lambda: len(server.accepted) >= 3)
    assert time.monotonic() - began > 2.5
    # What is shown is the time on the wall.
    websocket = (await get(port, "/admin/v1/status"))["nodes"][0]["websocket"]
    assert abs(websocket["since"] - (time.time() + shift)) < 60
    assert "waits by the wall clock" not in process.output
