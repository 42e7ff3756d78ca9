"""A stage to validate: participants, nodes that take what they are told to, and a chain's height."""

from __future__ import annotations

import random
from array import array
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import MLNodeError
from dapi.messages import ProofBatch
from dapi.mlnode.client import R_TARGET, PowState, PowStatus
from dapi.orchestration.validation import StageValidation, ValidationSettings
from dapi.orchestration.validation_batches import Sampling
from dapi.phases.phases import EpochParameters, regular_stage
from dapi.phases.stage_queries import ParticipantBatches, StoredNonces
from tests.chain_tools import Key
from tests.unit.threadless import ThreadlessReactor

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


class FakeNode:
    """A node that validates: what it ``took``, and how it is: ``refuses``, ``hangs`` or ``loads``."""

    def __init__(self, node_id: str) -> None:
        self.node = SimpleNamespace(id=node_id)
        self.ml_client: Any = self
        self.took: list[int] = []
        self.asked = 0
        self.refuses = False
        self.hangs = False
        self.loads = False
        self.calls: list[Deferred[None]] = []

    def validate(self, batch: ProofBatch) -> Deferred[None]:
        self.asked += 1
        if self.refuses:
            return fail(MLNodeError(self.node.id, "pow/validate", "refused", 400))
        index = HEX.index(batch.public_key)
        if not self.hangs:
            self.took.append(index)
            return succeed(None)
        call: Deferred[None] = Deferred()
        self.calls.append(call)
        return call.addCallback(lambda _: self.took.append(index))

    def pow_status(self) -> Deferred[PowStatus]:
        if self.refuses:
            return fail(MLNodeError(self.node.id, "pow/status", "refused", 409))
        return succeed(PowStatus(PowState.VALIDATING, not self.loads))


class ValidationTestCase(SynchronousTestCase):
    """Has a validation, not started, at the start of the window."""

    def setUp(self) -> None:
        self.reactor = ThreadlessReactor()
        self.height = START
        self.found: Any = []
        self.queried: list[int] = []
        self.nodes: dict[str, FakeNode] = {}
        self.silent: list[str] = []
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: LogEvent) -> None:
        if event["log_namespace"].startswith("dapi.orchestration") and event["log_level"] >= LogLevel.warn:
            self.lines.append(formatEvent(event))

    def participants(self, *indices: int, nonces: int = 3) -> None:
        """Let the chain have batches of these."""
        stored = (StoredNonces(array("q", range(nonces)), array("d", [0.5] * nonces)),)
        self.found = [ParticipantBatches(KEYS[index].address, HEX[index], stored) for index in indices]

    def add_nodes(self, *names: str) -> None:
        for name in names:
            self.nodes[name] = FakeNode(name)

    def query(self, at_height: int) -> Deferred[list[ParticipantBatches]]:
        self.queried.append(at_height)
        if isinstance(self.found, Exception):
            return fail(self.found)
        return self.found if isinstance(self.found, Deferred) else succeed(self.found)

    def start(self, **changes: Any) -> None:
        """Begin; ``self.over`` is what the start returned."""
        settings = ValidationSettings(**changes.pop("settings", {}))
        sampling = Sampling(
            public_key=HEX[0], block_hash="AB", block_height=STAGE.height, size=0, r_target=R_TARGET, secret=b"s"
        )
        arguments: dict[str, Any] = {
            "query": self.query,
            "height": lambda: self.height,
            "workers": lambda: list(self.nodes.values()),
            "on_silent_node": self.silent.append,
            "random": random.Random(1),
            "settings": settings,
            **changes,
        }
        self.validation = StageValidation(self.reactor, STAGE, sampling, **arguments)
        self.over = self.validation.start()
        self.addCleanup(self.end)

    def end(self) -> None:
        self.validation.stop()
        self.successResultOf(self.over)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def answer(self, *indices: int) -> None:
        for index in indices:
            self.validation.answered(HEX[index], STAGE.height)

    def wait(self, seconds: float) -> None:
        self.reactor.pump([0.5] * round(2 * seconds))

    def query_again(self) -> None:
        """Come to the height at which the batches are queried for the second time."""
        self.height += 2
        self.wait(1)

    def shown(self, *names: str) -> list[Any]:
        status = self.validation.status()
        return [status[name] for name in names]

    def assert_goes_on(self) -> None:
        self.assertNoResult(self.over)

    def assert_over(self) -> None:
        self.assertTrue(self.over.called)
        self.assertTrue(self.validation.status()["is_over"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
