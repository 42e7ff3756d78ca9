"""What one node may have waiting for the chain is bounded; what is finished counts no more."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import QuotaError, StoreBusyError
from dapi.messages import Kind, Receipt, Via
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import OutboxEntry
from dapi.outbox.quota import COUNT_SECONDS, NodeQuota, NodeQuotaSettings
from tests.batches import generated_batch
from tests.logs import log_of
from tests.nodes import SynchronousDatabase
from tests.unit.outbox.outbox_case import OutboxTestCase, entry


def _execute(statement: str, values: tuple[object, ...], connection: sqlite3.Connection) -> None:
    connection.execute(statement, values)


class NodeQuotaTests(OutboxTestCase):
    def begin(self, **bounds: int) -> None:
        self.quota = NodeQuota(self.clock, self.database, NodeQuotaSettings(**bounds))
        self.recorder = CosmosMessageClient(self.outbox, quota=self.quota)
        self.quota.startService()
        self.addCleanup(lambda: self.clock.wait_for(self.quota.stopService()))
        self.count()

    def count(self, *meanwhile: OutboxEntry) -> None:
        """Wait until it has counted; ``meanwhile`` some more come."""
        before = self.quota._waiting
        self.clock.advance(COUNT_SECONDS)
        for each in meanwhile:
            self.quota.admit(each)
        while self.quota._waiting is before:
            self.clock.wait_for(self.database.read(lambda connection: None))

    def batch(self, number: int, node_id: str = "node1", nonces: int = 1) -> Deferred[Receipt]:
        batch = generated_batch(nonces=list(range(number, number + nonces)), dist=[0.5] * nonces)
        return self.recorder.submit_poc_batch(batch, batch_id=f"b{number}", node_id=node_id, via=Via.HTTP)

    def keep(self, number: int, node_id: str = "node1", nonces: int = 1) -> None:
        self.clock.wait_for(self.batch(number, node_id, nonces))

    def refused(self, number: int, node_id: str = "node1") -> str:
        return str(self.failureResultOf(self.batch(number, node_id), QuotaError).value)

    def test_no_more_messages_of_a_node_than_that(self) -> None:
        self.begin(max_messages=2)
        self.keep(1)
        self.keep(2)
        text = self.refused(3)
        self.assertIn("2 messages (834 bytes) of node1 wait for the chain", text)
        self.assertIn("no more are taken: see why nothing is sent, or raise storage.max_node_messages and", text)
        self.refused(4)
        self.assertEqual(self.counts(), {"stored": 2})
        self.assertEqual(self.quota.status(), {"refused": 2, "full": {"node1": 2}})

    def test_each_node_has_its_own_bound(self) -> None:
        self.begin(max_messages=1)
        self.keep(1)
        self.keep(2, "node2")
        self.refused(3)
        self.refused(4, "node2")

    def test_no_more_bytes_than_that(self) -> None:
        # 17 for each nonce, and 400 for the row.
        self.begin(max_bytes=417 + 502)
        self.keep(1)
        self.keep(2, nonces=6)
        self.assertIn("2 messages (919 bytes)", self.refused(3))

    def finished(self, height: int, node_id: str, batches: int, nonces: int, state: str = "confirmed") -> None:
        statements = (
            ("INSERT OR IGNORE INTO stages (height, stage, node_count) VALUES (?, '', 1)", (height,)),
            ("INSERT INTO ledger VALUES (?, ?, 'generated', ?, ?, ?, 0)", (height, node_id, state, batches, nonces)),
        )
        for statement, values in statements:
            execute = partial(_execute, statement, values)
            self.clock.wait_for(self.database.write(execute))

    def test_no_more_for_a_stage_than_that_though_it_is_finished(self) -> None:
        self.begin(max_messages=5, max_bytes=170_000)
        for node_id, batches, nonces in (("node1", 3, 3), ("node2", 4, 4), ("node3", 1, 10_000)):
            self.finished(1000, node_id, batches, nonces)
        self.finished(1000, "node1", 2, 2, "expired")
        self.count()
        self.assertEqual(
            self.refused(1),
            "node1 has brought all that a node may for the stage 1000: see what it sends, or raise "
            "storage.max_node_messages and storage.max_node_bytes",
        )
        # Its verdicts, and its batches for another stage, are taken all the same.
        self.quota.admit(entry("verdict", kind=Kind.VALIDATED, height=1000))
        self.quota.admit(entry("another stage", height=1001))
        self.keep(2, "node2")
        self.refused(3, "node3")
        self.assertEqual(self.quota.status()["refused"], 2)
        # Stages that are no longer among the latest two are not looked at.
        for height in (1200, 1400):
            self.finished(height, "node9", 1, 1)
        self.count()
        self.keep(4)

    def test_what_was_there_at_the_start_counts(self) -> None:
        for number in range(3):
            self.put(f"old{number}")
        self.put("other", node_id="node2")
        self.begin(max_messages=3)
        self.refused(1)
        self.keep(2, "node2")

    def test_before_the_first_count_nothing_is_refused(self) -> None:
        quota = NodeQuota(self.clock, self.database, NodeQuotaSettings(max_messages=1))
        for number in range(5):
            quota.admit(entry(f"b{number}"))
        self.assertEqual(quota.status()["refused"], 0)

    def test_what_is_finished_makes_room(self) -> None:
        self.begin(max_messages=2)
        self.keep(1)
        self.keep(2)
        self.refused(3)
        self.finish("b1")
        self.count()
        self.keep(3)
        self.refused(4)

    def test_what_came_again_is_counted_once_after_a_while(self) -> None:
        self.begin(max_messages=2)
        self.keep(1)
        self.keep(1)
        self.refused(2)
        self.count()
        self.keep(2)

    def test_what_comes_during_a_count_is_not_forgotten(self) -> None:
        self.begin(max_messages=2)
        self.keep(1)
        self.count(entry("b2"), entry("b3", node_id="node2"), entry("b4", node_id="node2"))
        # With 20 nonces each, of 17 bytes, and 400 for the row.
        self.assertIn("2 messages (1157 bytes) of node1", self.refused(5))
        self.assertIn("2 messages (1480 bytes) of node2", self.refused(6, "node2"))

    def test_parts_count_as_their_batch(self) -> None:
        self.put("whole", nonces=100)
        self.clock.wait_for(
            self.database.write(
                lambda connection: connection.execute(
                    "INSERT INTO unfinished (batch_id, kind, state, node_id, via, height, nonces, seen, received_at,"
                    " last_seen_at, parent, crc32, message) SELECT 'part', kind, state, node_id, via, height, 50, 1, 0,"
                    " 0, seq, crc32, message FROM unfinished"
                )
            )
        )
        self.begin(max_messages=2)
        self.keep(1)
        self.refused(2)

    def test_verdicts_have_no_nonces_on_disk(self) -> None:
        self.put("verdict", kind=Kind.VALIDATED, nonces=10**6)
        self.begin(max_bytes=1217)
        self.keep(1)
        self.quota.admit(entry("verdict 2", kind=Kind.VALIDATED, nonces=10**6))
        self.assertIn("3 messages (1217 bytes)", self.refused(2))

    def test_only_nodes_are_told_that_are_full(self) -> None:
        self.begin(max_messages=2)
        for batch_id, node_id in (("a", "node1"), ("b", "node2"), ("c", "node1"), ("d", None), ("e", None)):
            self.quota.admit(entry(batch_id, node_id=node_id))
        with self.assertRaisesRegex(QuotaError, "2 messages .* of HTTP callbacks wait"):
            self.quota.admit(entry("f", node_id=None))
        self.assertEqual(self.quota.status(), {"refused": 1, "full": {"node1": 2}})


class BusyDatabaseTests(SynchronousTestCase):
    def test_it_counts_as_soon_as_the_database_answers_again(self) -> None:
        clock, log = Clock(), log_of(self)
        folder = Path(self.mktemp())
        folder.mkdir()
        database = SynchronousDatabase(str(folder / "a.db"))
        self.addCleanup(database.close)
        database.failure = StoreBusyError("the file is locked")
        quota = NodeQuota(clock, database, NodeQuotaSettings(max_messages=1))
        quota.admit(entry("a"))
        quota.startService()
        quota.admit(entry("b"))
        self.assertIsNone(quota.loop_problem)
        self.assertEqual(
            log.lines(LogLevel.debug, "not counted"), ["what waits of each node is not counted: the file is locked"]
        )
        database.failure = None
        clock.advance(COUNT_SECONDS)
        quota.admit(entry("c"))
        self.assertRaises(QuotaError, quota.admit, entry("d"))
        self.successResultOf(quota.stopService())
        self.assertEqual(clock.getDelayedCalls(), [])
