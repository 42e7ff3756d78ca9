"""A conductor with a chain, nodes and a validation that do what the test says, on a database of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from bench.heads import Heads, SameChain
from dapi.broker.broker import Broker
from dapi.broker.duties import Intention
from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Node
from dapi.broker.reconciler import Reconciler
from dapi.chain.keyring import SigningKey
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import BlockInfo, ChainStatus, QueryResult
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.messages import Kind, State, Via, epochs_pb2, validation_pb2
from dapi.mlnode.arguments import NetworkArguments
from dapi.orchestration.conductor import Conductor
from dapi.orchestration.model_arguments import ArgumentsFollowing
from dapi.orchestration.phase_status import PhaseStatus
from dapi.orchestration.seed import Seeds
from dapi.orchestration.stage_work import StageWork
from dapi.orchestration.stages import StageBook
from dapi.orchestration.validation import StageValidation
from dapi.outbox.comparison import Comparison
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.phases.duty import Duty
from dapi.phases.phases import PocStage, Situation
from dapi.phases.poc_version import PocVersion
from dapi.submission.deadlines import Deadlines
from dapi.submission.submissions import Submissions
from tests.diagnosis import told
from tests.logs import log_of
from tests.nodes import StubNode, SynchronousDatabase, make_worker, node_config

KEY = SigningKey(b"\1" * 32)
START, LENGTH = 100, 400
# Durations: 60 of generation, 5 to exchange, 5 to validation, 20 of it.
GENERATION_END, EXCHANGE_END, VALIDATION_START, VALIDATION_END = 160, 165, 165, 185
TRIGGER, CONFIRMATION_START = 300, 310
RETRY_SECONDS = 5.0


class FakeRpc(ChainRpc):
    """A chain that answers what it is asked at a height; the paths (their last words) in ``failing`` fail.

    Those in ``unknown`` are refused, as an older chain refuses them.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []
        self.failing: set[str] = set()
        self.unknown: set[str] = set()
        self.seed_hash: str | None = None
        self.govern: Callable[[epochs_pb2.QueryEpochInfoResponse], object] = lambda info: None
        # By the epoch that is asked for: ours, and another participant's.
        self.preserved: dict[int, list[str]] = {}
        self.preserved_of_another: dict[int, list[str]] = {}
        # With what models are to be started, and of which epochs that was asked.
        self.model_args: dict[str, list[bytes]] = {}
        self.epochs_asked: set[int] = set()

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = 0
    ) -> Deferred[QueryResult]:
        name = path.rpartition("/")[2]
        self.asked.append((name, height))
        if name in self.failing:
            return fail(ChainUnavailableError(f"{name}: no answer"))
        if name in self.unknown:
            return fail(ChainRefusedError(6, "sdk", "unknown query path: unknown request"))
        answer = self._epoch(height or 0) if name == "EpochInfo" else self._group(data)
        return succeed(QueryResult(answer.SerializeToString(), height or 0))

    def block(self, height: int) -> Deferred[BlockInfo]:
        self.asked.append(("block", height))
        if "block" in self.failing:
            return fail(ChainUnavailableError("block: no answer"))
        return succeed(BlockInfo("gonka-test", height, 0, f"AB{height}"))

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
        self.govern(info)
        return info

    def _group(self, data: bytes) -> validation_pb2.QueryEpochGroupDataResponse:
        answer = validation_pb2.QueryEpochGroupDataResponse()
        request = validation_pb2.QueryEpochGroupDataRequest.FromString(data)
        for address, preserved in ((KEY.address, self.preserved), ("another", self.preserved_of_another)):
            member = answer.epoch_group_data.validation_weights.add(member_address=address)
            for node_id in preserved.get(request.epoch_index, ()):
                member.ml_nodes.add(node_id=node_id.encode(), timeslot_allocation=[True, True])
        if not request.model_id:
            answer.epoch_group_data.sub_group_models.extend(self.model_args)
        else:
            self.epochs_asked.add(request.epoch_index)
            answer.epoch_group_data.model_snapshot.model_args.extend(self.model_args[request.model_id])
        return answer


def head_at(height: int) -> ChainStatus:
    return ChainStatus("gonka-test", height, 0, f"AB{height}", 1, False, True, "a:26657")


class FakeReconciler(Reconciler):
    """Keeps what is intended, and has stopped whom it is told to stop."""

    def __init__(self, broker: FakeBroker) -> None:
        self.intentions: dict[str, Intention] = {}
        self.stopped: list[str] = []
        self._broker = broker

    def intend(self, intentions: Mapping[str, Intention]) -> None:
        self.intentions = dict(intentions)

    def workers_at(self, duty: Duty) -> list[NodeWorker]:
        return [worker for worker in self._broker.workers() if duty is Duty.STOPPED and worker.node.id in self.stopped]

    def status(self) -> dict[str, Any]:
        return {}


class FakeBroker(Broker):
    """Two nodes, until the test says otherwise."""

    node_count: int = 3

    def __init__(self, clock: Clock) -> None:
        nodes = [Node(node_config(node_id), num) for num, node_id in enumerate(("a", "b"), start=1)]
        self._workers = [make_worker(clock, node, StubNode()) for node in nodes]
        self.stages_begun: list[int] = []

    def begin_stage(self, height: int, node_count: int) -> Deferred[None]:
        self.stages_begun.append(height)
        return succeed(None)

    def nodes(self) -> list[Node]:
        return [worker.node for worker in self._workers]

    def workers(self) -> list[NodeWorker]:
        return self._workers


class FakeValidation(StageValidation):
    """One that is over when the test says so, or when it is stopped."""

    def __init__(self, stages: StageBook, work: StageWork, on_silent_node: Callable[[str], object]) -> None:
        self.stage: PocStage = work.record.stage
        self.block_hash = work.block_hash
        self.silent = on_silent_node
        self.is_stopped = False
        self.over: Deferred[None] = Deferred()
        self._stages = stages

    def start(self) -> Deferred[None]:
        return self.over

    def stop(self) -> None:
        self.is_stopped = True
        if not self.over.called:
            self.over.callback(None)

    def end(self) -> None:
        """End as one that has nothing left to do."""
        self._stages.record_handed_out(self.stage.height).chainDeferred(self.over)

    def status(self) -> dict[str, Any]:
        return {}


class ConductorTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.database = SynchronousDatabase(self.mktemp())
        self.addCleanup(self.database.close)
        self.rpc, self.watcher = FakeRpc(), Heads()
        self.broker = FakeBroker(self.clock)
        self.reconciler = FakeReconciler(self.broker)
        self.log = log_of(self)
        self.start()
        self.addCleanup(self.end)

    def lines(self) -> list[str]:
        """What was warned of, or worse."""
        return [*self.log.warnings(), *self.log.lines(LogLevel.error)]

    def start(self) -> None:
        self.outbox = Outbox(self.clock, self.database, now=self.clock.seconds)
        self.submissions = Submissions(self.database, self.outbox, now=self.clock.seconds)
        self.stages = StageBook(self.database)
        self.deadlines = Deadlines(self.submissions)
        self.comparison = Comparison(self.clock, self.database)
        self.validations: list[FakeValidation] = []
        self.poc_version = PocVersion(self.rpc)
        self.arguments = NetworkArguments()
        self.conductor = Conductor(
            self.clock,
            self.rpc,
            self.watcher,
            SameChain(),
            self.broker,
            self.reconciler,
            self.stages,
            Seeds(self.outbox, KEY),
            self.deadlines,
            self.comparison,
            ArgumentsFollowing(self.rpc, self.broker, self.arguments),
            poc_version=self.poc_version,
            public_key=KEY.public_key.hex(),
            make_validation=self.make_validation,
            random=random.Random(1),
        )
        self.outbox.observe(self.conductor.batch_stored)
        self.phases = PhaseStatus(self.conductor, self.reconciler, self.stages)
        self.conductor.startService()

    def make_validation(
        self, work: StageWork, sample_size: int, on_silent_node: Callable[[str], object]
    ) -> StageValidation:
        self.validations.append(FakeValidation(self.stages, work, on_silent_node))
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
        self.watcher.move(head_at(height))
        self.clock.advance(0)

    def retry(self) -> None:
        self.clock.advance(RETRY_SECONDS)
        self.clock.advance(0)

    def store(self, batch_id: str, height: int = START, kind: Kind = Kind.GENERATED, run: str = "") -> None:
        stored = self.outbox.put(OutboxEntry(batch_id, kind, "a", height, 1, Via.HTTP, b"message", run))
        self.clock.advance(0)
        self.successResultOf(stored)

    def state_of(self, batch_id: str) -> State:
        # Seeds are no batches: they are listed only where they are asked for.
        kind = Kind.SEED if batch_id.startswith("seed-") else None
        rows = self.successResultOf(self.outbox.batches(kind=kind)).batches
        (state,) = [row.state for row in rows if row.batch_id == batch_id]
        return State(state)

    def told(self) -> list[str]:
        """What the diagnosis says is wrong."""
        return told(self.phases.status())

    def duties(self) -> Iterable[Duty]:
        return [self.reconciler.intentions[node_id].duty for node_id in sorted(self.reconciler.intentions)]

    def assert_duty(self, duty: Duty) -> None:
        self.assertEqual(self.duties(), [duty, duty])

    def situation(self) -> Situation:
        assert self.conductor.situation is not None
        return self.conductor.situation
