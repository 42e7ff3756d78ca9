"""A stage's batches from a simulated chain through two simulated nodes that validate, and the verdicts back."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.web.server import Site

from dapi.broker.node_worker import NodeWorker
from dapi.broker.node_worker_commands import StopNodeCommand
from dapi.broker.nodes import Node
from dapi.chain.rpc import ChainRpc
from dapi.messages import ValidatedBatch, decode_validated
from dapi.messages.sizes import MIB
from dapi.mlnode.client import R_TARGET, TEST_NETWORK_PARAMS, InitRequest, MLNodeClient, PowState
from dapi.orchestration.samples import query_samples
from dapi.orchestration.stage_work import StageWork
from dapi.orchestration.stages import StageBook, StageRecord
from dapi.orchestration.validation import StageValidation, ValidationTools
from dapi.phases.phases import EpochParameters, regular_stage
from dapi.phases.stage_queries import PreservedNodes, preserved_nodes
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.chain.state import GroupMember, GroupNode
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import quick_settings
from dapi.timing.retry import RetryDelay
from tests.chain_tools import SECOND_NS, Key, Packed, batch, transaction
from tests.integration.simulated_node import Callbacks
from tests.integration.waiting import soon, until
from tests.nodes import node_config

reactor: Any = global_reactor
PARAMS = EpochParams(epoch_length=400, poc_validation_duration=100)
STAGE = regular_stage(
    EpochParameters(
        epoch_length=PARAMS.epoch_length,
        poc_stage_duration=PARAMS.poc_stage_duration,
        poc_exchange_duration=PARAMS.poc_exchange_duration,
        poc_validation_delay=PARAMS.poc_validation_delay,
        poc_validation_duration=PARAMS.poc_validation_duration,
    ),
    epoch_index=1,
    poc_start=10,
)
KEYS = [Key(seed) for seed in range(1, 7)]
VALIDATE = "/api/v1/pow/validate"
HOUR = 3600.0
BEGUN = StopNodeCommand()


class Worker(NodeWorker):
    """A worker that only validates."""

    def __init__(self, client: MLNodeClient) -> None:
        self.node = Node(node_config(client.node_id), 1)
        self.ml_client = client
        self.last_begun = BEGUN


class NothingAnswered(StageBook):
    """Keeps nothing of the stage."""

    def __init__(self) -> None:
        pass

    def participants_answered(self, height: int) -> Deferred[set[str]]:
        return succeed(set())

    def record_handed_out(self, height: int) -> Deferred[None]:
        return succeed(None)


class ValidatedStage:
    """A chain in its stage with accounts for all keys, two nodes that validate, and where their verdicts go."""

    def __init__(self) -> None:
        self.chain = SimulatedChain(
            reactor, random.Random(0), block_seconds=None, epochs=Epochs(10, PARAMS), first_height=10
        )
        self.numbers = {key.address: self.chain.add_account(key.public).number for key in KEYS}
        self.chain.startService()
        self.rpc = ChainRpc(reactor, [self.chain.url])
        self.callbacks = Callbacks()
        self.listening = reactor.listenTCP(0, Site(self.callbacks, reactor=reactor), interface="127.0.0.1")
        self.nodes = {name: SimulatedMLNode(reactor, random.Random(1), settings=quick_settings()) for name in "ab"}
        self.clients: dict[str, MLNodeClient] = {}
        self.silent: list[str] = []
        self.when_silent: Deferred[str] = Deferred()
        self.validation: StageValidation
        self.over: Deferred[None] | None = None
        self._seen = 0

    async def begin(self) -> None:
        for name, node in self.nodes.items():
            node.startService()
            self.clients[name] = MLNodeClient(reactor, node.base_url, node_id=name)
            await self.init(name)

    async def init(self, name: str) -> None:
        request = InitRequest(
            block_hash="ABCDEF",
            block_height=STAGE.height,
            public_key=KEYS[0].public.hex(),
            params=TEST_NETWORK_PARAMS,
            node_num=1,
            node_count=3,
            url=f"http://127.0.0.1:{self.listening.getHost().port}/v1/poc-batches",
        )
        status = await soon(self.clients[name].init_validate(request))
        assert status.status is PowState.VALIDATING

    async def end(self) -> None:
        if self.over is not None:
            self.validation.stop()
            await soon(self.over)
        await soon(gatherResults([node.stopService() for node in self.nodes.values()]))
        await soon(gatherResults([client.close() for client in self.clients.values()]))
        await soon(self.rpc.close())
        await soon(self.chain.stopService())
        await self.listening.stopListening()

    def submit(self, key: Key, *batches: Packed) -> None:
        """Have a participant's batches in the next block."""
        timeout_ns = self.chain.blockchain.latest.time_ns + 60 * SECOND_NS
        raw = transaction(key, *batches, timeout_ns=timeout_ns, account_number=self.numbers[key.address])
        assert self.chain.broadcast(raw).code == 0

    def batch(self, key: Key, batch_id: str = "b", **changes: Any) -> Packed:
        return batch(key.address, height=STAGE.height, batch_id=batch_id, **changes)

    def advance(self, height: int) -> None:
        while self.chain.height < height:
            self.chain.produce_block()

    def validate(self, *, silent_seconds: float = 60.0, retry_seconds: tuple[float, float] = (0.05, 0.1)) -> None:
        """Begin to validate the stage."""
        tools = ValidationTools(
            reactor=reactor,
            stages=NothingAnswered(),
            query=partial(query_samples, self.rpc, max_bytes=MIB),
            height=lambda: self.chain.height,
            workers=lambda: [Worker(client) for client in self.clients.values()],
            retry_delay=RetryDelay(random.Random(1), *retry_seconds),
            hand_out=lambda height, pairs: succeed(None),
            public_key=KEYS[0].public.hex(),
            secret=b"secret",
            look_seconds=0.02,
            silent_seconds=silent_seconds,
        )
        work = StageWork(StageRecord(STAGE, 3, False), "ABCDEF", tools.public_key, PreservedNodes())
        self.validation = StageValidation(tools, work, 5, self.note_silent)
        self.over = self.validation.start()

    def note_silent(self, node_id: str) -> None:
        self.silent.append(node_id)
        if not self.when_silent.called:
            self.when_silent.callback(node_id)

    async def verdicts(self, count: int) -> list[ValidatedBatch]:
        """What came to the callback, once it is so many; the validation is told of all, as the intake does."""
        while self._seen < count:
            await self.callbacks.when_called(self._seen + 1)
            for _, body in self.callbacks.calls[self._seen :]:
                verdict = decode_validated(body)
                self.validation.record_verdict(verdict.public_key, verdict.block_height)
            self._seen = len(self.callbacks.calls)
        return [decode_validated(body) for _, body in self.callbacks.calls]

    async def finish(self) -> None:
        """Wait for the end: nothing is left to do."""
        assert self.over is not None
        await soon(self.over)


@pytest_twisted.async_yield_fixture
async def stage() -> AsyncIterator[ValidatedStage]:
    stage = ValidatedStage()
    await stage.begin()
    yield stage
    await stage.end()


def keys_of(verdicts: list[ValidatedBatch]) -> list[str]:
    return sorted(verdict.public_key for verdict in verdicts)


def everybody() -> list[str]:
    return sorted(key.public.hex() for key in KEYS)


def put_all(stage: ValidatedStage) -> None:
    for key in KEYS:
        stage.submit(key, stage.batch(key))
    stage.advance(STAGE.validation_start)


@pytest_twisted.ensureDeferred
async def test_every_participants_verdict_comes_once(stage: ValidatedStage) -> None:
    for key in KEYS:
        first = stage.batch(key, "b-1", nonces=[1, 2, 3], dist=[0.1, 0.2, 0.3])
        stage.submit(key, first, stage.batch(key, "b-2", nonces=[3, 4], dist=[0.9, 0.4]))
    stage.advance(STAGE.validation_start)
    stage.validate()
    verdicts = await stage.verdicts(len(KEYS))
    await stage.finish()
    assert keys_of(verdicts) == everybody()
    for verdict in verdicts:
        claimed = dict(zip(verdict.nonces, verdict.received_dist, strict=True))
        assert claimed == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
        assert (verdict.block_height, verdict.block_hash, verdict.node_num) == (STAGE.height, "ABCDEF", 0)
    status = stage.validation.status()
    assert (status["answered"], status["unanswered"], status["is_over"]) == (len(KEYS), 0, True)
    handed = [node["handed"] for node in status["nodes"].values()]
    # Two calls to each are begun at once; whose ends first gets the next one.
    assert sum(handed) == len(KEYS)
    assert min(handed) >= 2


@pytest_twisted.ensureDeferred
async def test_a_batch_of_the_last_block_is_validated(stage: ValidatedStage) -> None:
    stage.submit(KEYS[0], stage.batch(KEYS[0]))
    stage.advance(STAGE.batches.last - 1)
    stage.submit(KEYS[1], stage.batch(KEYS[1]))
    stage.advance(STAGE.batches.last)
    assert stage.chain.height == STAGE.validation_start, "the same block"
    stage.validate()
    assert keys_of(await stage.verdicts(2)) == sorted(key.public.hex() for key in KEYS[:2])
    await stage.finish()


@pytest_twisted.ensureDeferred
async def test_a_node_that_fails_its_calls(stage: ValidatedStage) -> None:
    stage.nodes["a"].settings.http_failures[VALIDATE] = 500
    put_all(stage)
    stage.validate()
    assert keys_of(await stage.verdicts(len(KEYS))) == everybody()
    await stage.finish()
    nodes = stage.validation.status()["nodes"]
    assert (nodes["a"]["handed"], nodes["b"]["handed"]) == (0, len(KEYS))
    assert nodes["a"]["refused"] > 0


@pytest_twisted.ensureDeferred
async def test_both_nodes_fail_for_a_while(stage: ValidatedStage) -> None:
    for node in stage.nodes.values():
        node.settings.http_failures[VALIDATE] = 400
    put_all(stage)
    stage.validate()
    await soon(stage.nodes["a"].ledger.when_called(VALIDATE, 5))
    for node in stage.nodes.values():
        node.settings.http_failures.clear()
    assert keys_of(await stage.verdicts(len(KEYS))) == everybody()
    await stage.finish()


@pytest_twisted.ensureDeferred
async def test_a_poisoned_distance_kills_no_sender(stage: ValidatedStage) -> None:
    poisoned, all_poison = KEYS[0], KEYS[1]
    stage.submit(poisoned, stage.batch(poisoned, nonces=[1, 2, 3], dist=[0.5, R_TARGET, 1.5]))
    stage.submit(all_poison, stage.batch(all_poison, nonces=[1, 2], dist=[R_TARGET, 99.0]))
    for key in KEYS[2:]:
        stage.submit(key, stage.batch(key))
    stage.advance(STAGE.validation_start)
    stage.validate()
    verdicts = await stage.verdicts(len(KEYS) - 1)
    await stage.finish()
    assert keys_of(verdicts) == sorted(set(everybody()) - {all_poison.public.hex()})
    (verdict,) = [verdict for verdict in verdicts if verdict.public_key == poisoned.public.hex()]
    assert (list(verdict.nonces), list(verdict.received_dist)) == ([1], [0.5])
    assert all(node.is_sender_alive for node in stage.nodes.values())
    dropped = stage.validation.status()["dropped"]
    assert (dropped.nonces, dropped.participants) == (4, 1)


@pytest_twisted.ensureDeferred
async def test_a_dead_sender_is_reported_and_its_work_is_done_by_the_other(stage: ValidatedStage) -> None:
    stage.nodes["a"].kill_sender()
    put_all(stage)
    stage.validate(silent_seconds=HOUR)
    await until(lambda: stage.validation.status()["handed"] == len(KEYS))
    await stage.verdicts(stage.validation.status()["nodes"]["b"]["handed"])
    # As if an hour had gone by, in which the other one owed nothing.
    stage.validation._assignments._nodes["a"].heard_at -= HOUR
    assert await soon(stage.when_silent) == "a"
    assert keys_of(await stage.verdicts(len(KEYS))) == everybody()
    await stage.finish()
    assert stage.silent == ["a"]
    nodes = stage.validation.status()["nodes"]
    assert (nodes["a"]["silent"], nodes["a"]["answered"], nodes["b"]["answered"]) == (1, 0, len(KEYS))


@pytest_twisted.ensureDeferred
async def test_a_chain_that_cannot_be_asked_at_first(stage: ValidatedStage) -> None:
    stage.chain.switches.answers_500 = True
    put_all(stage)
    stage.validate(retry_seconds=(0.01, 0.02))
    while "500" not in (stage.validation.status()["problem"] or ""):
        await soon(stage.rpc.status().addErrback(lambda _: None))
    stage.chain.switches.answers_500 = False
    assert keys_of(await stage.verdicts(len(KEYS))) == everybody()
    await stage.finish()


@pytest_twisted.ensureDeferred
async def test_nodes_that_stay_in_inference(stage: ValidatedStage) -> None:
    address = KEYS[0].address
    nodes = (GroupNode("node1", (True, True)), GroupNode("node2", (True, False)))
    stage.chain.state.epoch_groups[0, ""] = (GroupMember(address),)
    stage.chain.state.epoch_groups[0, "Qwen/Qwen2.5-7B-Instruct"] = (GroupMember(address, nodes),)
    # The PoC of epoch 1 is under way: the epoch in force is the one before, and epoch 1 has no models' groups yet.
    assert (await soon(Deferred.fromCoroutine(preserved_nodes(stage.rpc, 0, address)))).own == {"node1"}
    assert (await soon(Deferred.fromCoroutine(preserved_nodes(stage.rpc, 1, address)))).own == set()
