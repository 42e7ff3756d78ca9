"""A host on a chain that the test moves, with nodes that it changes, and a database of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bench.heads import Heads, SameChain
from dapi.broker.broker import BrokerStatus
from dapi.broker.nodes import ModelConfig
from dapi.chain.rpc_answers import QueryResult
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.messages import Kind, State
from dapi.messages.host_pb2 import MsgSubmitHardwareDiff
from dapi.mlnode.client import NetworkVersion
from dapi.orchestration.claims import Claiming
from dapi.orchestration.counting import Counting
from dapi.orchestration.hardware import Declaring
from dapi.orchestration.host import Host
from dapi.orchestration.node_version import VersionFollowing
from dapi.orchestration.stages import StageBook
from dapi.outbox import queries
from dapi.outbox.outbox import Outbox
from dapi.outbox.pages import BatchRow
from dapi.phases.poc_version import PocVersion
from dapi.simulator.chain.messages import HardwareNode
from dapi.simulator.chain.queries import query
from dapi.simulator.chain.requests import QueryRefused
from dapi.simulator.chain.state import Model
from dapi.submission.submissions import Submissions
from tests.diagnosis import told
from tests.logs import log_of
from tests.nodes import SynchronousDatabase
from tests.unit.orchestration.conductor_case import KEY, FakeBroker, head_at
from tests.unit.phases.test_stage_queries import STAGE, SimulatedRpc

# Epoch 2's PoC, and the block whose state shows what is owed for epoch 1.
SECOND_POC, SETTLED = STAGE + 40, STAGE + 40 + 19
MODEL = "m"


class HostRpc(SimulatedRpc):
    """Answers as of the simulated chain's height; the paths (their last words) in ``failing`` fail.

    Those in ``unknown`` are refused, as an older chain refuses them, those in ``broken`` end as no call should.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.failing: set[str] = set()
        self.unknown: set[str] = set()
        self.broken: set[str] = set()

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = 0
    ) -> Deferred[QueryResult]:
        name = path.rpartition("/")[2]
        self.asked.append(name)
        if name in self.failing:
            return fail(ChainUnavailableError(f"{name}: no answer"))
        if name in self.unknown:
            return fail(ChainRefusedError(6, "sdk", "unknown query path: unknown request"))
        if name in self.broken:
            return fail(ValueError("out of range"))
        try:
            return succeed(QueryResult(query(self.state, path, data, height or 0, self.state.height), height or 0))
        except QueryRefused as refused:
            return fail(ChainRefusedError(refused.code, "sdk", str(refused)))


class HostBroker(FakeBroker):
    """Two nodes that can be changed; ``problem`` is what keeps others from being loaded."""

    problem: str | None = None
    changed: Callable[[], object] = staticmethod(lambda: None)

    def observe_changes(self, observer: Callable[[], object]) -> None:
        before = self.changed

        def both() -> None:
            before()
            observer()

        self.changed = both

    def status(self) -> BrokerStatus:
        return BrokerStatus(True, self.problem, 2, [])

    def keep(self, *node_ids: str) -> None:
        self._workers = [worker for worker in self._workers if worker.node.id in node_ids]
        self.changed()

    def serve(self, node_id: str, *models: str) -> None:
        (worker,) = [worker for worker in self._workers if worker.node.id == node_id]
        config = msgspec.structs.replace(worker.node.config, models={model: ModelConfig() for model in models})
        worker.node = msgspec.structs.replace(worker.node, config=config)
        self.changed()


class HostTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.database = SynchronousDatabase(self.mktemp())
        self.addCleanup(self.database.close)
        self.rpc, self.watcher, self.broker = HostRpc(), Heads(), HostBroker(self.clock)
        self.rpc.state.models[MODEL] = Model(MODEL)
        for node_id in ("a", "b"):
            self.broker.serve(node_id, MODEL)
        self.version = NetworkVersion()
        self.log = log_of(self)
        self.start()
        self.addCleanup(self.end)

    def start(self) -> None:
        database: Any = self.database
        self.outbox = Outbox(self.clock, database, now=self.clock.seconds)
        self.submissions = Submissions(database, self.outbox, now=self.clock.seconds)
        self.host = Host(
            self.clock,
            self.rpc,
            self.watcher,
            SameChain(),
            self.broker,
            version=VersionFollowing(self.rpc, self.version),
            declaring=Declaring(self.rpc, self.broker, self.outbox, self.submissions, KEY.address),
            claiming=Claiming(self.rpc, self.outbox, KEY, KEY.address),
            counting=Counting(self.rpc, StageBook(database), self.outbox, KEY.address),
            poc_version=PocVersion(self.rpc),
            random=random.Random(1),
        )
        self.host.startService()
        self.clock.advance(0)

    def end(self) -> None:
        self.successResultOf(self.host.stopService())
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def move(self, height: int) -> None:
        self.rpc.state.begin_block(height, height)
        self.watcher.move(head_at(height))
        self.settle()

    def told(self) -> list[str]:
        """What the diagnosis says is wrong."""
        return told({"host": self.host.status()})

    def settle(self) -> None:
        for _ in range(5):
            self.clock.advance(0)

    def rows(self, kind: Kind) -> list[BatchRow]:
        return self.successResultOf(self.outbox.batches(kind=kind)).batches

    def states(self, kind: Kind) -> list[State]:
        return [row.state for row in self.rows(kind)]

    def send(self) -> None:
        """Have all that is stored in a transaction."""
        self.execute("UPDATE unfinished SET state = 'in_flight', tx_hash = 'AB', tx_timeout_ns = 1")

    def include(self, reason: str | None = None) -> None:
        """Have all that is stored in the latest block, with the effect that declared nodes have."""
        for row in self.rows(Kind.HARDWARE):
            if row.state is State.STORED:
                self.apply_diff(row.batch_id)
        self.finish(State.CONFIRMED, self.rpc.state.height, reason)

    def refuse(self, reason: str) -> None:
        """Have all that is stored refused for good."""
        self.finish(State.FAILED, None, reason)

    def finish(self, state: State, height: int | None, reason: str | None) -> None:
        seqs = json.dumps([seq for (seq,) in self.execute("SELECT seq FROM unfinished")])
        end = {"state": state, "now": 0.0, "tx_hash": "AB", "height": height, "reason": reason, "keeps_body": True}
        for statement in (queries.FINISH, queries.COUNT_FINISHED, queries.DELETE):
            self.execute(statement, {"seqs": seqs, **end})

    def execute(self, statement: str, values: Mapping[str, object] | None = None) -> list[Any]:
        write = self.database.write(lambda connection: connection.execute(statement, values or {}).fetchall())
        return self.successResultOf(write)

    def diff(self, batch_id: str) -> MsgSubmitHardwareDiff:
        statement = "SELECT message FROM unfinished WHERE batch_id = :batch_id"
        ((message,),) = self.execute(statement, {"batch_id": batch_id})
        return MsgSubmitHardwareDiff.FromString(message)

    def apply_diff(self, batch_id: str) -> None:
        diff, declared = self.diff(batch_id), self.rpc.state.hardware_nodes
        for node in diff.new_or_modified:
            declared[KEY.address, node.local_id] = HardwareNode(node.local_id, node.status, tuple(node.models))
        for node in diff.removed:
            del declared[KEY.address, node.local_id]
