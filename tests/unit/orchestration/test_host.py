"""What a host does so that it is paid follows from what the chain says, whatever was missed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

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
from dapi.orchestration.seed import seed_signature
from dapi.orchestration.stages import StageBook
from dapi.outbox.outbox import Outbox
from dapi.outbox.pages import BatchRow
from dapi.simulator.chain.messages import HardwareNode
from dapi.simulator.chain.queries import query
from dapi.simulator.chain.requests import QueryRefused
from dapi.simulator.chain.state import Model, SettleAmount
from dapi.submission.submissions import Submissions
from tests.logs import log_of
from tests.nodes import SynchronousDatabase
from tests.unit.orchestration.conductor_case import KEY, RETRY_SECONDS, FakeBroker, FakeWatcher
from tests.unit.phases.test_stage_queries import STAGE, SimulatedRpc

# Epoch 2's PoC, and the block whose state shows what is owed for epoch 1.
SECOND_POC, SETTLED = STAGE + 40, STAGE + 40 + 19
MODEL = "m"


class HostRpc(SimulatedRpc):
    """Answers as of the simulated chain's height; the paths (their last words) in ``failing`` fail."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.failing: set[str] = set()

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = 0
    ) -> Deferred[QueryResult]:
        name = path.rpartition("/")[2]
        self.asked.append(name)
        if name in self.failing:
            return fail(ChainUnavailableError(f"{name}: no answer"))
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
        self.rpc, self.watcher, self.broker = HostRpc(), FakeWatcher(), HostBroker(self.clock)
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
            self.broker,
            version=VersionFollowing(self.rpc, self.version),
            declaring=Declaring(self.rpc, self.broker, self.outbox, self.submissions, KEY.address),
            claiming=Claiming(self.rpc, self.outbox, KEY, KEY.address),
            counting=Counting(self.rpc, StageBook(database), self.outbox, KEY.address),
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
        self.watcher.move(height)
        self.settle()

    def settle(self) -> None:
        for _ in range(5):
            self.clock.advance(0)

    def rows(self, kind: Kind) -> list[BatchRow]:
        return self.successResultOf(self.outbox.batches(kind=kind)).batches

    def states(self, kind: Kind) -> list[State]:
        return [row.state for row in self.rows(kind)]

    def send(self) -> str:
        """Put all that is stored into a transaction."""
        messages = self.successResultOf(self.submissions.next_messages(10**9, 10**6, 10**6))
        self.successResultOf(self.submissions.put_in_flight(messages, "AB", 1))
        self.sent = [message.in_flight() for message in messages]
        return "AB"

    def include(self, reason: str | None = None) -> None:
        """Have all that is stored in the latest block, with the effect that declared nodes have."""
        for row in self.rows(Kind.HARDWARE):
            if row.state is State.STORED:
                self.apply_diff(row.batch_id)
        tx_hash = self.send()
        height = self.rpc.state.height
        self.successResultOf(self.submissions.confirm(self.sent, tx_hash, height, reason=reason))

    def refuse(self, reason: str) -> None:
        """Have all that is stored refused for good."""
        tx_hash = self.send()
        self.successResultOf(self.submissions.fail(self.sent, tx_hash, reason))

    def diff(self, batch_id: str) -> MsgSubmitHardwareDiff:
        query = "SELECT message FROM unfinished WHERE batch_id = ?"
        read = self.database.read(lambda connection: connection.execute(query, (batch_id,)).fetchone())
        return MsgSubmitHardwareDiff.FromString(self.successResultOf(read)[0])

    def apply_diff(self, batch_id: str) -> None:
        diff, declared = self.diff(batch_id), self.rpc.state.hardware_nodes
        for node in diff.new_or_modified:
            declared[KEY.address, node.local_id] = HardwareNode(node.local_id, node.status, tuple(node.models))
        for node in diff.removed:
            del declared[KEY.address, node.local_id]


class DeclaringTests(HostTestCase):
    def test_at_the_start_and_after_each_change(self) -> None:
        self.move(20)
        (row,) = self.rows(Kind.HARDWARE)
        self.assertEqual((row.state, row.height), (State.STORED, SECOND_POC))
        self.assertEqual([node.local_id for node in self.diff(row.batch_id).new_or_modified], ["a", "b"])
        self.include()
        self.move(21)
        self.broker.keep("a")
        self.settle()
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.CONFIRMED])
        self.assertEqual([node.local_id for node in self.diff(self.rows(Kind.HARDWARE)[0].batch_id).removed], ["b"])
        self.include()
        self.move(22)
        self.assertEqual(self.states(Kind.HARDWARE), [State.CONFIRMED, State.CONFIRMED])

    def test_one_at_a_time(self) -> None:
        self.move(20)
        for height in (21, 22):
            self.move(height)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED])
        # One that was not sent is superseded, which is no loss.
        self.broker.keep("a")
        self.settle()
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.EXPIRED])
        self.assertEqual(self.rows(Kind.HARDWARE)[1].reason, "superseded by a newer one")
        self.assertEqual(self.log.lines(containing="messages of stage"), [])
        # One that is in a transaction is waited for.
        self.send()
        self.broker.serve("a", MODEL, "another")
        self.rpc.state.models["another"] = Model("another")
        self.move(23)
        self.assertEqual(self.states(Kind.HARDWARE), [State.IN_FLIGHT, State.EXPIRED])

    def test_after_a_restart_it_is_not_stored_again(self) -> None:
        self.move(20)
        self.end()
        self.start()
        self.move(21)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED])

    def test_one_that_was_refused_is_made_again_with_the_next_poc(self) -> None:
        self.move(20)
        self.refuse("inference 1103: participant not found")
        for height in (21, 40):
            self.move(height)
        self.assertEqual(self.states(Kind.HARDWARE), [State.FAILED])
        self.move(SECOND_POC)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.FAILED])

    def test_or_once_it_says_something_else(self) -> None:
        self.move(20)
        self.refuse("inference 1134: invalid model")
        self.broker.keep("b")
        self.settle()
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.FAILED])

    def test_before_a_poc_it_is_looked_at_again(self) -> None:
        self.move(20)
        self.include()
        self.move(21)
        # Somebody else has changed it.
        del self.rpc.state.hardware_nodes[KEY.address, "a"]
        for height in range(22, SECOND_POC):
            self.move(height)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.CONFIRMED])

    def test_an_answer_of_the_time_before_it_tells_nothing(self) -> None:
        self.move(20)
        self.rpc.state.begin_block(22, 22)
        self.include()
        self.watcher.move(21)
        self.settle()
        self.assertEqual(self.states(Kind.HARDWARE), [State.CONFIRMED])
        self.move(22)
        self.assertEqual(self.states(Kind.HARDWARE), [State.CONFIRMED])

    def test_what_is_not_known_here_is_not_known_to_be_gone(self) -> None:
        self.rpc.state.hardware_nodes[KEY.address, "c"] = HardwareNode("c", 1, (MODEL,))
        self.broker.problem = "c: left out"
        self.move(20)
        (row,) = self.rows(Kind.HARDWARE)
        self.assertEqual(list(self.diff(row.batch_id).removed), [])
        self.include()
        self.broker.keep()
        self.broker.problem = None
        self.move(21)
        self.assertEqual(self.states(Kind.HARDWARE), [State.CONFIRMED])

    def test_a_query_that_fails_delays_it_and_keeps_nothing_else(self) -> None:
        self.rpc.failing = {"ModelsAll"}
        self.move(20)
        self.assertEqual(self.rows(Kind.HARDWARE), [])
        self.assertEqual(self.host.status()["problems"]["hardware_nodes"], "ModelsAll: no answer")
        self.assertEqual(self.version.value, "v3.0.8")
        self.rpc.failing = set()
        self.clock.advance(RETRY_SECONDS)
        self.settle()
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED])
        self.assertEqual(self.host.status()["problems"], {})


class ClaimingTests(HostTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.owe(1)

    def owe(self, epoch: int, signature: str | None = None) -> None:
        signature = seed_signature(KEY, epoch) if signature is None else signature
        self.rpc.state.settle_amounts[KEY.address] = SettleAmount(KEY.address, 1000, epoch, signature)

    def test_from_the_settlement_on_and_once(self) -> None:
        self.move(SETTLED - 1)
        self.assertEqual(self.rows(Kind.CLAIM), [])
        self.move(SETTLED)
        (row,) = self.rows(Kind.CLAIM)
        self.assertEqual((row.batch_id, row.height, row.state), ("claim-1", SECOND_POC, State.STORED))
        self.move(SETTLED + 1)
        self.end()
        self.start()
        self.move(SETTLED + 2)
        self.assertEqual(self.states(Kind.CLAIM), [State.STORED])

    def test_a_missed_block_delays_it(self) -> None:
        self.move(SECOND_POC + 50)
        self.assertEqual(self.states(Kind.CLAIM), [State.STORED])

    def test_when_it_is_paid_nobody_asks_any_more(self) -> None:
        self.move(SETTLED)
        self.include("paid 1000: Rewards claimed successfully")
        self.rpc.state.settle_amounts.clear()
        self.move(SETTLED + 1)
        claim = self.successResultOf(Deferred.fromCoroutine(self.host.claims()))[1]
        self.assertEqual((claim.owed, claim.paid, claim.state), (0, 1000, State.CONFIRMED))
        self.assertTrue(self.log.lines(containing="epoch 1: 1000 were paid"))
        self.rpc.asked.clear()
        self.move(SETTLED + 2)
        self.assertNotIn("SettleAmount", self.rpc.asked)

    def test_confirmed_and_still_owed(self) -> None:
        self.move(SETTLED)
        self.include()
        self.move(SETTLED + 1)
        self.assertEqual(self.host.warnings(), ["epoch 1: 1000 are still owed, the claim confirmed: None"])

    def test_nothing_owed_or_of_another_epoch(self) -> None:
        self.owe(2)
        self.move(SETTLED)
        self.rpc.state.settle_amounts.clear()
        self.move(SECOND_POC + 40 + 19)
        self.assertEqual(self.rows(Kind.CLAIM), [])

    def test_a_seed_of_another_key(self) -> None:
        self.owe(1, "ab" * 64)
        self.move(SETTLED)
        self.assertEqual(self.rows(Kind.CLAIM), [])
        (warning,) = self.host.warnings()
        self.assertIn("another key signed its seed", warning)


class VersionTests(HostTestCase):
    def test_at_the_start_and_in_each_epoch(self) -> None:
        self.move(20)
        self.assertEqual(self.version.value, "v3.0.8")
        self.rpc.state.mlnode_version = "v3.0.9"
        self.move(21)
        self.assertEqual(self.version.value, "v3.0.8")
        self.move(SECOND_POC)
        self.assertEqual(self.version.value, "v3.0.9")

    def test_what_is_no_part_of_a_path(self) -> None:
        self.rpc.state.mlnode_version = "v3/../x?y"
        self.move(20)
        self.assertEqual(self.version.value, "")
        self.assertIn("is no part of a path", self.host.warnings()[0])
