"""Everything goes wrong at once, and dapi is killed again and again: each batch is on the chain exactly once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
import treq
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.web.client import Agent, RequestTransmissionFailed, ResponseFailed
from twisted.web.http_headers import Headers

from dapi.chain.keyring import SigningKey
from dapi.messages import content_id
from dapi.messages.addresses import address_of
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams, Epochs
from tests.batches import generated_batch, generated_fields, validated_fields
from tests.integration.ports import free_port
from tests.integration.test_pull_the_plug import all_batches
from tests.integration.twistd_process import Run, Twistd, admin_port, get, post, twistd
from tests.integration.waiting import until, until_awaited

__all__ = ["twistd"]

reactor: Any = global_reactor
BATCHES = 2000
VERDICTS = 40
# Each of them after so many callbacks were answered, or so many batches were in a block.
KILLS_AT_CALLBACKS = [400, 1100, 1700]
KILLS_AT_BLOCKED = (700, 1400)
# `make faults` kills it more often, at random.
if ROUNDS := int(os.environ.get("DAPI_FAULT_ROUNDS", "0")):
    KILLS_AT_CALLBACKS = sorted(random.Random(ROUNDS).sample(range(20, BATCHES), ROUNDS))
POSTERS = 8
STAGE = 10
BLOCK_SECONDS = 0.15
DROPPED = 0.2
BLOCK_NS = 6 * 10**9
PATIENCE_SECONDS = 150
SECRET = bytes(range(1, 33))
HEADERS = Headers({"content-type": ["application/json"]})


class Dice(random.Random):
    """Decides which transactions are dropped, and counts them."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.dropped = 0

    def random(self) -> float:
        drawn = super().random()
        self.dropped += drawn < DROPPED
        return drawn


class TroubledChain:
    """A chain that drops every fifth transaction, and has worse to come."""

    def __init__(self) -> None:
        self.time_ns = 1_700_000_000 * 10**9
        self.dice = Dice(5)
        durations = EpochParams(
            epoch_length=40_000, poc_stage_duration=5, poc_exchange_duration=19_000, poc_validation_duration=19_000
        )
        self.simulated = SimulatedChain(
            reactor,
            self.dice,
            now_ns=self.tick,
            epochs=Epochs(STAGE, durations),
            block_seconds=BLOCK_SECONDS,
            first_height=STAGE,
        )
        self.simulated.add_account(SigningKey(SECRET).public_key)
        self.simulated.switches.drop_fraction = DROPPED
        self.blockchain = self.simulated.blockchain
        assert self.blockchain.latest.height == STAGE
        self.stage_hash = self.blockchain.latest.hash
        self.troubles = 0

    def tick(self) -> int:
        self.time_ns += BLOCK_NS
        return self.time_ns

    async def make_trouble(self) -> None:
        """Once a good part has arrived: a full mempool, a halt, a restart that loses the mempool."""
        switches = self.simulated.switches
        await until(lambda: self.blocked >= 200, PATIENCE_SECONDS)
        switches.is_mempool_full = True
        await deferLater(reactor, 2)
        switches.is_mempool_full = False
        self.troubles += 1
        await until(lambda: self.blocked >= 500, PATIENCE_SECONDS)
        self.simulated.is_halted = True
        await deferLater(reactor, 2)
        self.simulated.is_halted = False
        self.troubles += 1
        await until(lambda: self.blocked >= 900, PATIENCE_SECONDS)
        await self.simulated.restart(down_seconds=1.5)
        self.troubles += 1

    @property
    def blocked(self) -> int:
        """How many batches are in a block."""
        return len(self.simulated.state.batches)


class Poster:
    """Delivers batches as ML nodes do: each again and again until it is answered with 200."""

    def __init__(self, port: int) -> None:
        self.answered = 0
        self._base = f"http://127.0.0.1:{port}/v1/poc-batches"
        self._agent = Agent(reactor, connectTimeout=1)
        self._waiting: list[tuple[str, dict[str, Any]]] = []

    def add(self, way: str, fields: dict[str, Any]) -> None:
        self._waiting.append((way, fields))

    async def run(self) -> None:
        await gatherResults([Deferred.fromCoroutine(self._post_all()) for _ in range(POSTERS)])

    async def _post_all(self) -> None:
        while self._waiting:
            way, fields = self._waiting.pop()
            body = json.dumps(fields).encode()
            while not await self._is_taken(f"{self._base}/{way}", body):
                await deferLater(reactor, 0.1)
            self.answered += 1
            # As fast as this machine can is not the point: the kills are to come in between.
            await deferLater(reactor, 0.01)

    async def _is_taken(self, url: str, body: bytes) -> bool:
        try:
            response = await treq.post(url, body, agent=self._agent, headers=HEADERS)
            await treq.content(response)
        except (ConnectError, RequestTransmissionFailed, ResponseFailed):
            return False
        return bool(response.code == 200)


@pytest_twisted.async_yield_fixture
async def chain() -> AsyncIterator[TroubledChain]:
    chain = TroubledChain()
    chain.simulated.startService()
    yield chain
    await chain.simulated.stopService()


async def when_all_confirmed(port: int, number: int) -> None:
    """Wait until so many, and a seed of dapi's own perhaps, are confirmed, and nothing else is there."""

    async def is_so() -> bool:
        counts = (await get(port, "/admin/v1/status"))["batches"]
        return bool(sum(counts.values()) == counts["confirmed"] >= number)

    await until_awaited(is_so, PATIENCE_SECONDS)


def batch_fields(number: int, block_hash: str) -> dict[str, Any]:
    # Those of node number 1 where there are numbers 0 and 1.
    nonces = list(range(40 * number + 1, 40 * number + 41, 2))
    run = {"block_hash": block_hash, "public_key": SigningKey(SECRET).public_key.hex()}
    return generated_fields(block_height=STAGE, nonces=nonces, dist=[0.5] * 20, **run)


def others_key(number: int) -> str:
    return SigningKey(number.to_bytes(32, "big")).public_key.hex()


def verdict_fields(number: int) -> dict[str, Any]:
    return validated_fields(block_height=STAGE, public_key=others_key(number))


def ask_for_verdicts(database: Path) -> None:
    """Have the node asked for all verdicts, as an earlier process did."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        asked_for = [(STAGE, address_of(others_key(number)), "node1") for number in range(1, VERDICTS + 1)]
        connection.executemany("INSERT INTO handed_out (height, address, node_id) VALUES (?, ?, ?)", asked_for)


@pytest_twisted.ensureDeferred
async def test_each_batch_is_on_the_chain_exactly_once(twistd: Run, chain: TroubledChain, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(SECRET.hex())
    key_file.chmod(0o600)
    ports = {"admin_port": free_port(), "callback_port": free_port()}
    environ = {"DAPI_CHAIN_NODE__KEY_FILE": str(key_file), "DAPI_API__CALLBACK_AUTH": "optional"}

    def start() -> Twistd:
        return twistd("--chain-url", chain.simulated.url, environ=environ, **ports)

    # The chain is only asked once the node is known: a stage shares its nonces among the nodes of its beginning.
    process = twistd(**ports)
    port = await admin_port(process)
    node = {"id": "node1", "host": "127.0.0.1", "poc_port": 1, "inference_port": 1, "models": {"m": {"args": []}}}
    assert (await post(port, "/admin/v1/nodes", node))["node_num"] == 1
    assert await process.kill() == -9
    ask_for_verdicts(tmp_path / "outbox.db")
    process = start()
    port = await admin_port(process)
    poster = Poster(ports["callback_port"])
    for number in range(BATCHES):
        poster.add("generated", batch_fields(number, chain.stage_hash))
    for number in range(1, VERDICTS + 1):
        poster.add("validated", verdict_fields(number))
    working = gatherResults([Deferred.fromCoroutine(poster.run()), Deferred.fromCoroutine(chain.make_trouble())])
    moments = [lambda number=number: poster.answered >= number for number in KILLS_AT_CALLBACKS]
    moments += [lambda number=number: chain.blocked >= number for number in KILLS_AT_BLOCKED]
    for is_time in moments:
        await until(is_time, PATIENCE_SECONDS)
        assert await process.kill() == -9
        process = start()
        await admin_port(process)
    await working
    await when_all_confirmed(port, BATCHES + VERDICTS)

    # Not a test of nothing.
    assert chain.troubles == 3
    assert chain.dice.dropped > 5
    ids = {content_id(generated_batch(**batch_fields(number, chain.stage_hash))) for number in range(BATCHES)}
    assert chain.blockchain.batch_counts() == dict.fromkeys(ids, 1)
    assert chain.blockchain.doubles() == {}
    assert len(chain.simulated.state.validations) == VERDICTS
    batches = await all_batches(port)
    assert {batch["state"] for batch in batches} == {"confirmed"}
    assert {batch["batch_id"] for batch in batches if batch["kind"] == "generated"} == ids
    assert len(batches) == BATCHES + VERDICTS
    for batch in batches:
        record = chain.blockchain.find(batch["tx_hash"])
        assert record is not None
        assert (record.code, record.height) == (0, batch["included_height"])
