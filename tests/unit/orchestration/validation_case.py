"""A stage to validate: participants, nodes that take what they are told to, and a chain's height."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.broker.node_worker import NodeWorker
from dapi.broker.node_worker_commands import StopNodeCommand
from dapi.broker.nodes import Node
from dapi.errors import ChainError, MLNodeError, StoreError
from dapi.messages import ProofBatch
from dapi.mlnode.client import MLNodeClient, PowState, PowStatus
from dapi.orchestration.samples import Sampler, Samples, Sampling
from dapi.orchestration.stage_work import StageWork
from dapi.orchestration.stages import StageBook, StageRecord
from dapi.orchestration.validation import StageValidation, ValidationTools
from dapi.phases.phases import EpochParameters, regular_stage
from dapi.phases.stage_queries import PreservedNodes
from dapi.timing.retry import RetryDelay
from tests.chain_tools import Key
from tests.logs import log_of
from tests.nodes import node_config
from tests.stage_answers import Stored, encode_stage, stored

DURATIONS = EpochParameters(
    epoch_length=400,
    poc_stage_duration=10,
    poc_exchange_duration=2,
    poc_validation_delay=2,
    poc_validation_duration=100,
)
STAGE = regular_stage(DURATIONS, epoch_index=1, poc_start=10)
START, END = STAGE.validations.first - 1, STAGE.validations.last
KEYS = [Key(seed) for seed in range(1, 21)]
HEX = [key.public.hex() for key in KEYS]


class FakeNode(MLNodeClient):
    """A node that validates: what it ``took``, and how it is: ``refuses``, ``hangs`` or ``loads``."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.took: list[int] = []
        self.asked = 0
        self.nonces: list[int] = []
        self.refuses = False
        self.hangs = False
        self.loads = False
        self.calls: list[Deferred[None]] = []
        self.last_begun = StopNodeCommand()

    def validate(self, batch: ProofBatch) -> Deferred[None]:
        self.asked += 1
        if self.refuses:
            return fail(MLNodeError(self.node_id, "pow/validate", "refused", 400))
        call: Deferred[None] = Deferred()
        call.addCallback(lambda _: self._take(batch))
        if self.hangs:
            self.calls.append(call)
        else:
            call.callback(None)
        return call

    def pow_status(self) -> Deferred[PowStatus]:
        if self.refuses:
            return fail(MLNodeError(self.node_id, "pow/status", "refused", 409))
        return succeed(PowStatus(PowState.VALIDATING, not self.loads))

    def _take(self, batch: ProofBatch) -> None:
        self.took.append(HEX.index(batch.public_key))
        self.nonces = list(batch.nonces)


class FakeWorker(NodeWorker):
    """A worker of a fake node."""

    def __init__(self, node: FakeNode) -> None:
        self.node = Node(node_config(node.node_id), 1)
        self.ml_client = node
        self.last_begun = node.last_begun


class FakeStages(StageBook):
    """Knows the addresses of those who have a verdict from an earlier run, and the stages that were handed out."""

    def __init__(self) -> None:
        self.answered: set[str] = set()
        self.failure: Exception | None = None
        self.finished: list[int] = []
        self.end_failure: StoreError | None = None

    def participants_answered(self, height: int) -> Deferred[set[str]]:
        return succeed(self.answered) if self.failure is None else fail(self.failure)

    def record_handed_out(self, height: int) -> Deferred[None]:
        self.finished.append(height)
        return succeed(None) if self.end_failure is None else fail(self.end_failure)


class ValidationTestCase(SynchronousTestCase):
    """Has a validation, not started, at the start of the window."""

    def setUp(self) -> None:
        self.reactor = Clock()
        self.height = START
        self.found: list[Stored] | ChainError | Deferred[Samples] = []
        self.queried: list[int] = []
        self.nodes: dict[str, FakeNode] = {}
        self.silent: list[str] = []
        # What was recorded as handed out, and what the disk answers to that when it does not do so at once.
        self.handed_out: list[tuple[int, str, str]] = []
        self.disk: Deferred[None] | None = None
        self.stages = FakeStages()
        self.log = log_of(self)

    def participants(self, *indices: int, nonces: int = 3) -> None:
        """Let the chain have batches of these."""
        self.found = [stored(KEYS[index], (list(range(nonces)), [0.5] * nonces)) for index in indices]

    def add_nodes(self, *names: str) -> None:
        for name in names:
            self.nodes[name] = FakeNode(name)

    def query(self, sampling: Sampling, at_height: int) -> Deferred[Samples]:
        self.queried.append(at_height)
        if isinstance(self.found, ChainError):
            return fail(self.found)
        if isinstance(self.found, Deferred):
            return self.found
        sampler = Sampler(sampling)
        sampler.feed(encode_stage(self.found))
        return succeed(sampler.finish())

    def start(self) -> None:
        """Begin; ``self.over`` is what the start returned."""
        tools = ValidationTools(
            reactor=self.reactor,
            stages=self.stages,
            query=self.query,
            height=lambda: self.height,
            workers=lambda: [FakeWorker(node) for node in self.nodes.values()],
            retry_delay=RetryDelay(random.Random(1)),
            hand_out=self.hand_out,
            public_key=HEX[0],
            secret=b"s",
        )
        work = StageWork(StageRecord(STAGE, 3, False), "AB", HEX[0], PreservedNodes())
        self.validation = StageValidation(tools, work, 0, self.silent.append)
        self.over = self.validation.start()
        self.addCleanup(self.end)

    def hand_out(self, height: int, pairs: Sequence[tuple[str, str]]) -> Deferred[None]:
        self.handed_out += [(height, *pair) for pair in pairs]
        return succeed(None) if self.disk is None else self.disk

    def end(self) -> None:
        self.validation.stop()
        self.successResultOf(self.over)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def answer(self, *indices: int) -> None:
        for index in indices:
            self.validation.record_verdict(HEX[index], STAGE.height)

    def wait(self, seconds: float) -> None:
        self.reactor.pump([0.5] * round(2 * seconds))

    def shown(self, *names: str) -> list[Any]:
        status = self.validation.status()
        return [status[name] for name in names]

    def assert_goes_on(self) -> None:
        self.assertNoResult(self.over)

    def assert_over(self) -> None:
        self.assertTrue(self.over.called)
        self.assertTrue(self.validation.status()["is_over"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
