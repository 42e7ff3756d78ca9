"""A conductor with a chain, nodes and a validation that do what the test says, on a database of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dapi.broker.duties import Intention
from dapi.chain.keyring import SigningKey
from dapi.errors import ChainUnavailableError
from dapi.messages import Kind, State, Via, epochs_pb2, validation_pb2
from dapi.orchestration.conductor import Conductor
from dapi.orchestration.stages import StageBook
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.phases.duty import Duty
from dapi.poc.batch_handler import BatchCounts
from dapi.submission.deadlines import Deadlines
from dapi.submission.submissions import Submissions
from tests.nodes import SynchronousDatabase

KEY = SigningKey(b"\1" * 32)
START, LENGTH = 100, 400
# Durations: 60 of generation, 5 to exchange, 5 to validation, 20 of it.
GENERATION_END, EXCHANGE_END, VALIDATION_START, VALIDATION_END = 160, 165, 165, 185
TRIGGER, CONFIRMATION_START = 300, 310
RETRY_SECONDS = 5.0


class FakeRpc:
    """A chain that answers what it is asked at a height; the paths (their last words) in ``failing`` fail."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []
        self.failing: set[str] = set()
        self.seed_hash: str | None = None
        # By the epoch that is asked for: ours, and another participant's.
        self.preserved: dict[int, list[str]] = {}
        self.preserved_of_another: dict[int, list[str]] = {}

    def abci_query(self, path: str, data: bytes, height: int | None = None, **_: Any) -> Deferred[Any]:
        name = path.rpartition("/")[2]
        self.asked.append((name, height))
        if name in self.failing:
            return fail(ChainUnavailableError(f"{name}: no answer"))
        value = self._epoch(height or 0) if name == "EpochInfo" else self._group(data)
        return succeed(SimpleNamespace(value=value.SerializeToString(), height=height))

    def block(self, height: int) -> Deferred[Any]:
        self.asked.append(("block", height))
        if "block" in self.failing:
            return fail(ChainUnavailableError("block: no answer"))
        return succeed(SimpleNamespace(hash=f"AB{height}"))

    def _epoch(self, height: int) -> epochs_pb2.QueryEpochInfoResponse:
        info = epochs_pb2.QueryEpochInfoResponse(block_height=height)
        durations = info.params.epoch_params
        durations.epoch_length, durations.poc_stage_duration, durations.poc_exchange_duration = LENGTH, 60, 5
        durations.poc_validation_delay, durations.poc_validation_duration = 5, 20
        info.latest_epoch.index = 2 + (height - START) // LENGTH
        info.latest_epoch.poc_start_block_height = START + (height - START) // LENGTH * LENGTH
        if self.seed_hash is not None:
            info.is_confirmation_poc_active = True
            event = info.active_confirmation_poc_event
            event.epoch_index, event.trigger_height = 2, TRIGGER
            event.generation_start_height, event.poc_seed_block_hash = CONFIRMATION_START, self.seed_hash
        return info

    def _group(self, data: bytes) -> validation_pb2.QueryEpochGroupDataResponse:
        answer = validation_pb2.QueryEpochGroupDataResponse()
        request = validation_pb2.QueryEpochGroupDataRequest.FromString(data)
        for address, preserved in ((KEY.address, self.preserved), ("another", self.preserved_of_another)):
            member = answer.epoch_group_data.validation_weights.add(member_address=address)
            for node_id in preserved.get(request.epoch_index, ()):
                member.ml_nodes.add(node_id=node_id.encode(), timeslot_allocation=[True, True])
        return answer


class FakeWatcher:
    """A head that the test moves."""

    def __init__(self) -> None:
        self.head: Any = None
        self.problem: str | None = None
        self._observers: list[Callable[[], None]] = []

    def observe(self, observer: Callable[[], None]) -> None:
        self._observers.append(observer)

    def move(self, height: int) -> None:
        self.head = SimpleNamespace(height=height)
        for observer in self._observers:
            observer()


class FakeReconciler:
    """Notes what is intended, and has stopped whom it is told to stop."""

    def __init__(self) -> None:
        self.intentions: dict[str, Intention] = {}
        self.stopped: list[str] = []

    def intend(self, intentions: Mapping[str, Intention]) -> None:
        self.intentions = dict(intentions)

    def workers_at(self, duty: Duty) -> list[Any]:
        return [SimpleNamespace(node=SimpleNamespace(id=node_id)) for node_id in self.stopped]

    def warnings(self) -> dict[str, str]:
        return {}

    def status(self) -> dict[str, Any]:
        return {}


class FakeBroker:
    """Two nodes, until the test says otherwise."""

    def __init__(self) -> None:
        self._workers = [
            SimpleNamespace(
                node=SimpleNamespace(id=node_id, num=num, enabled=True),
                batch_handler=SimpleNamespace(counts=BatchCounts()),
            )
            for num, node_id in enumerate(("a", "b"), start=1)
        ]
        self.node_count = 3

    def nodes(self) -> list[Any]:
        return [worker.node for worker in self._workers]

    def workers(self) -> list[Any]:
        return self._workers


class FakeValidation:
    """One that is over when the test says so, or when it is stopped."""

    def __init__(self, stage: Any, block_hash: str, size: int, answered: set[str], on_silent: Any) -> None:
        self.stage, self.block_hash, self.on_silent = stage, block_hash, on_silent
        self.is_stopped = False
        self.over: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        return self.over

    def stop(self) -> None:
        self.is_stopped = True
        if not self.over.called:
            self.over.callback(None)

    def answered(self, public_key: str, height: int) -> None:
        pass

    def status(self) -> dict[str, Any]:
        return {}


class ConductorTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.database = SynchronousDatabase(self.mktemp())
        self.addCleanup(self.database.close)
        self.rpc, self.watcher = FakeRpc(), FakeWatcher()
        self.broker, self.reconciler = FakeBroker(), FakeReconciler()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)
        self.start()
        self.addCleanup(self.end)

    def note(self, event: LogEvent) -> None:
        namespaces = ("dapi.orchestration", "dapi.submission")
        if event["log_namespace"].startswith(namespaces) and event["log_level"] >= LogLevel.warn:
            self.lines.append(formatEvent(event))

    def start(self) -> None:
        database: Any = self.database
        self.validations: list[FakeValidation] = []
        self.outbox = Outbox(self.clock, database, now=self.clock.seconds)
        self.submissions = Submissions(database, self.outbox, now=self.clock.seconds)
        self.stages = StageBook(database)
        arguments: Any = (self.rpc, self.watcher, self.broker, self.reconciler, self.stages)
        self.conductor = Conductor(
            self.clock,
            *arguments,
            self.outbox,
            Deadlines(self.submissions),
            key=KEY,
            public_key=KEY.public_key.hex(),
            address=KEY.address,
            make_validation=self.make_validation,
            random=random.Random(1),
        )
        self.conductor.startService()

    def make_validation(self, *arguments: Any) -> FakeValidation:
        self.validations.append(FakeValidation(*arguments))
        return self.validations[-1]

    def end(self) -> None:
        self.successResultOf(self.conductor.stopService())
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def restart(self) -> None:
        """As another process would: what is known is in the database."""
        self.end()
        self.reconciler.intentions = {}
        self.start()
        self.clock.advance(0)

    def move(self, height: int) -> None:
        self.watcher.move(height)
        self.clock.advance(0)

    def retry(self) -> None:
        self.clock.advance(RETRY_SECONDS)
        self.clock.advance(0)

    def keep(self, batch_id: str, height: int = START, kind: Kind = Kind.GENERATED) -> None:
        kept = self.outbox.put(OutboxEntry(batch_id, kind, "a", height, 1, Via.HTTP, b"message"))
        self.clock.advance(0)
        self.successResultOf(kept)

    def state_of(self, batch_id: str) -> State:
        # Seeds are no batches: they are listed only where they are asked for.
        kind = Kind.SEED if batch_id.startswith("seed-") else None
        rows = self.successResultOf(self.outbox.batches(kind=kind)).batches
        (state,) = [row.state for row in rows if row.batch_id == batch_id]
        return State(state)

    def duties(self) -> Iterable[Duty]:
        return [self.reconciler.intentions[node_id].duty for node_id in sorted(self.reconciler.intentions)]

    def assert_duty(self, duty: Duty) -> None:
        self.assertEqual(self.duties(), [duty, duty])
