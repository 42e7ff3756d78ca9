"""Batches that were finished long ago are deleted, a few at a time, and stay counted."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from typing import Any

import msgspec
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import StoreBusyError
from dapi.messages import Kind, Receipt, State
from dapi.messages.sizes import MIB
from dapi.outbox import queries
from dapi.outbox.ledger import NodeLedger, stage_ledger
from dapi.outbox.outbox import Outbox
from dapi.outbox.retention import Retention, delete_some
from dapi.phases.phases import PocStage, Window
from dapi.submission.rows import End, lose
from tests.logs import log_of
from tests.nodes import SynchronousDatabase
from tests.unit.outbox.outbox_case import entry

DAY = 86400.0
STAGES = (100, 200, 300, 400, 500)


def stage(height: int, *, is_confirmation: bool = False) -> PocStage:
    return PocStage(
        height=height,
        epoch_index=height // 100,
        is_confirmation=is_confirmation,
        start=height,
        generate_wind_down=height + 8,
        generation_end=height + 10,
        batches=Window(height, height + 12),
        validation_start=height + 15,
        validate_wind_down=height + 20,
        validations=Window(height + 15, height + 25),
        inference_from=height + 26,
    )


class RetentionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.now = 100 * DAY
        folder = self.mktemp()
        os.mkdir(folder)
        self.database = SynchronousDatabase(os.path.join(folder, "a.db"))
        self.addCleanup(self.database.close)
        self.outbox = Outbox(self.clock, self.database, now=lambda: self.now)

    def retention(self, keep_days: float = 30) -> Retention:
        retention = Retention(self.clock, self.database, keep_days=keep_days, now=lambda: self.now)
        retention.startService()
        self.addCleanup(retention.stopService)
        return retention

    def know(self, *heights: int, **fields: Any) -> None:
        for height in heights:
            encoded = msgspec.json.encode(stage(height, **fields)).decode()
            self.execute("INSERT INTO stages (height, stage, node_count) VALUES (?, ?, 2)", height, encoded)

    def put(self, batch_id: str, **fields: Any) -> Receipt:
        put = self.outbox.put(entry(batch_id, **fields))
        self.clock.advance(0)
        return self.successResultOf(put)

    def finish(self, *batch_ids: str, state: State = State.EXPIRED) -> None:
        seqs = {seq for seq, batch_id in self.execute("SELECT seq, batch_id FROM unfinished") if batch_id in batch_ids}
        self.database.write(lambda connection: lose(connection, Counter(), seqs, End(state, self.now)))

    def put_finished(self, *batch_ids: str, height: int = 100, **fields: Any) -> None:
        puts = [self.outbox.put(entry(batch_id, height=height, **fields)) for batch_id in batch_ids]
        self.clock.advance(0)
        for put in puts:
            self.successResultOf(put)
        self.finish(*batch_ids)

    def kept(self) -> list[str]:
        return [batch_id for (batch_id,) in self.execute("SELECT batch_id FROM finished ORDER BY seq")]

    def execute(self, statement: str, *values: object) -> list[Any]:
        return self.successResultOf(self.database.write(lambda each: each.execute(statement, values).fetchall()))

    def wait(self, seconds: float) -> None:
        """Let the time pass, and some steps be done at the end of it."""
        self.clock.pump([seconds, *[0.1] * 3])

    def pass_days(self, days: float) -> None:
        self.now += days * DAY


class WhatIsDeletedTests(RetentionTestCase):
    def test_what_was_finished_before_that_time_and_no_earlier(self) -> None:
        self.know(*STAGES)
        self.put_finished("old")
        self.pass_days(1)
        self.put_finished("young")
        self.pass_days(29.5)
        self.retention()
        self.wait(59)
        self.assertEqual(self.kept(), ["old", "young"])
        self.wait(1)
        self.assertEqual(self.kept(), ["young"])
        self.pass_days(1)
        self.wait(3600)
        self.assertEqual(self.kept(), [])

    def test_three_epochs_stay_however_old_they_are(self) -> None:
        for height in STAGES:
            self.put_finished(f"of {height}", height=height)
        self.know(*STAGES[:2])
        self.pass_days(1000)
        self.retention(keep_days=1)
        self.wait(60)
        self.assertEqual(len(self.kept()), 5)
        self.know(*STAGES[2:])
        # It is no epoch of its own.
        self.know(520, 540, 560, is_confirmation=True)
        self.wait(3600)
        self.assertEqual(self.kept(), ["of 300", "of 400", "of 500"])

    def test_own_messages_stay(self) -> None:
        self.know(*STAGES)
        for kind in Kind:
            self.put_finished(f"{kind}-1", kind=kind, node_id=None)
        self.pass_days(1000)
        self.retention()
        self.wait(60)
        self.assertEqual(self.kept(), ["seed-1", "hardware-1", "claim-1"])
        self.assertEqual(self.put("claim-1", kind=Kind.CLAIM).seen, 2)

    def test_what_is_not_finished_stays(self) -> None:
        self.know(*STAGES)
        self.put("a", height=100)
        self.pass_days(1000)
        self.retention()
        self.wait(60)
        self.assertEqual(self.execute("SELECT batch_id FROM unfinished"), [("a",)])

    def test_without_any_stage_the_time_alone_counts(self) -> None:
        self.put_finished("a")
        self.pass_days(31)
        self.retention()
        self.wait(60)
        self.assertEqual(self.kept(), [])

    def test_of_another_chain(self) -> None:
        self.know(100)
        self.put_finished("a", height=500)
        self.execute("UPDATE finished SET batch_id = 'former/' || batch_id, height = -height")
        self.pass_days(31)
        self.retention()
        self.wait(60)
        self.assertEqual(self.kept(), [])

    def test_its_earlier_transactions_go_with_it(self) -> None:
        self.put_finished("a")
        self.execute("INSERT INTO earlier_transactions SELECT seq, 'no', 'AB', NULL, NULL, 1.0, 1.0, 1 FROM finished")
        self.pass_days(31)
        self.retention()
        self.wait(60)
        self.assertEqual(self.execute("SELECT * FROM earlier_transactions"), [])

    def test_a_damaged_row_holds_up_no_other(self) -> None:
        for batch_id in "abc":
            self.put_finished(batch_id)
        self.execute(
            "UPDATE finished SET received_at = x'ff', finished_at = x'ff', height = x'ff' WHERE batch_id = 'a'"
        )
        self.pass_days(31)
        self.retention()
        self.wait(60)
        self.assertEqual(self.kept(), ["a"])


class NumbersStayTests(RetentionTestCase):
    def numbers(self) -> tuple[dict[str, int], dict[str, NodeLedger]]:
        """What the status, the metrics and the epochs show, as after a start."""
        outbox = Outbox(self.clock, self.database)
        ledger = self.successResultOf(stage_ledger(self.database, 100))
        return self.successResultOf(outbox.counts()), ledger

    def test_no_count_falls(self) -> None:
        self.know(*STAGES)
        for number in range(5):
            self.put(f"{number}", height=100, node_id=f"node{number % 2}")
            self.put(f"{number}", height=100)
            self.finish(f"{number}", state=(State.CONFIRMED, State.FAILED, State.EXPIRED)[number % 3])
        before = self.numbers()
        self.assertEqual(before[0]["confirmed"], 2)
        self.assertEqual(before[1]["node0"], NodeLedger(3, 60, 3, confirmed=1, failed=1, expired=1))
        self.pass_days(31)
        self.retention()
        self.wait(60)
        self.assertEqual(self.kept(), [])
        self.assertEqual(self.numbers(), before)

    def test_stages_that_nobody_knows_become_one(self) -> None:
        self.know(*STAGES)
        for height in (100, *range(101, 150)):
            self.put_finished(f"of {height}", height=height)
        self.put_finished("of another chain", height=7)
        self.execute("UPDATE finished SET height = -7 WHERE height = 7")
        self.execute("UPDATE ledger SET height = -7 WHERE height = 7")
        counts = self.numbers()[0]
        self.pass_days(31)
        self.retention()
        self.wait(60)
        self.assertEqual(self.execute("SELECT height, batches FROM ledger ORDER BY height"), [(0, 50), (100, 1)])
        self.assertEqual(self.numbers()[0], counts)

    def test_what_comes_once_more_is_a_new_batch(self) -> None:
        self.know(*STAGES)
        self.put_finished("a")
        self.assertEqual(self.put("a", height=100).seen, 2)
        self.pass_days(31)
        self.retention()
        self.wait(60)
        self.assertEqual(self.put("a", height=100).seen, 1)
        self.assertEqual(self.execute("SELECT batch_id, state FROM unfinished"), [("a", "stored")])
        self.finish("a")
        (node,) = self.successResultOf(stage_ledger(self.database, 100)).values()
        self.assertEqual((node.generated, node.doubled, node.expired), (2, 1, 2))


class StepTests(RetentionTestCase):
    def test_it_rests_between_steps(self) -> None:
        self.put_finished(*map(str, range(600)))
        self.pass_days(31)
        self.retention()
        self.clock.advance(60)
        self.assertEqual(len(self.kept()), 600 - 256)
        self.clock.advance(0.05)
        self.assertEqual(len(self.kept()), 600 - 256)
        self.clock.advance(0.06)
        self.assertEqual(len(self.kept()), 600 - 512)
        log = log_of(self)
        self.clock.advance(0.1)
        self.assertEqual(self.kept(), [])
        # One more step finds nothing.
        self.clock.advance(0.1)
        self.assertEqual(len(log.lines(LogLevel.info, "600 batches that were finished more than 30 days ago")), 1)

    def test_it_ends_where_all_that_follow_are_young(self) -> None:
        self.put_finished(*map(str, range(300)))
        self.pass_days(31)
        self.put_finished(*map(str, range(300, 1100)))
        writes: list[object] = []
        inner = self.database.write

        def write(function: Any, *, intake: bool = False) -> Any:
            writes.append(function)
            return inner(function, intake=intake)

        self.patch(self.database, "write", write)
        self.retention()
        self.wait(60)
        # Two steps with what is old, one with none of it, and the ledger.
        self.assertEqual((len(writes), len(self.execute("SELECT seq FROM finished"))), (4, 800))
        self.wait(3600)
        # Nothing is deleted, and the ledger is left alone.
        self.assertEqual(len(writes), 4 + 1 + 1)

    def test_after_a_slow_step_it_rests_longer(self) -> None:
        self.put_finished(*map(str, range(300)))
        self.pass_days(31)
        inner = self.database.write

        def slow(function: Any, *, intake: bool = False) -> Any:
            self.clock.rightNow += 1.0
            return inner(function, intake=intake)

        self.patch(self.database, "write", slow)
        self.retention()
        self.clock.advance(60)
        self.patch(self.database, "write", inner)
        self.assertEqual(len(self.kept()), 44)
        self.clock.advance(18)
        self.assertEqual(len(self.kept()), 44)
        self.clock.advance(1)
        self.assertEqual(self.kept(), [])

    def test_large_ones_go_fewer_at_a_time(self) -> None:
        for batch_id in "abcd":
            self.put_finished(batch_id, message=bytes(5 * MIB))
        self.now += 1
        step = self.successResultOf(self.database.write(lambda each: delete_some(each, after=0, before=self.now)))
        self.assertEqual((step.deleted, len(self.kept())), (2, 2))

    def test_its_place_in_the_file_is_used_again(self) -> None:
        def pages() -> int:
            return int(self.execute("PRAGMA page_count")[0][0])

        def fill(round_: int) -> None:
            self.put_finished(*(f"{round_} {number}" for number in range(200)), message=bytes(20_000))

        fill(0)
        full = pages()
        self.pass_days(31)
        self.retention()
        self.clock.advance(60)
        self.assertEqual(self.kept(), [])
        fill(1)
        self.assertLessEqual(pages(), full + 2)

    def test_a_database_that_is_busy_is_tried_again(self) -> None:
        self.put_finished("a")
        self.pass_days(31)
        retention = self.retention()
        self.database.failure = StoreBusyError("the disk is full")
        log = log_of(self)
        self.clock.advance(60)
        self.database.failure = None
        self.assertEqual(self.kept(), ["a"])
        self.assertIsNone(retention.loop_problem)
        self.clock.pump([3600, 0.1])
        self.assertEqual(self.kept(), [])
        self.assertEqual(
            log.lines(LogLevel.info, "old batches") + log.lines(LogLevel.info, "deleted"),
            [
                "old batches are kept for another hour: the disk is full",
                "1 batches that were finished more than 30 days ago are deleted; they stay counted",
            ],
        )

    def test_a_stop_ends_it_at_any_moment(self) -> None:
        self.put_finished(*map(str, range(300)))
        self.pass_days(31)
        retention = self.retention()
        self.clock.advance(60)
        self.successResultOf(retention.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.kept()), 44)


class PlanTests(RetentionTestCase):
    def test_a_step_looks_at_the_rows_that_come_next_and_no_other(self) -> None:
        connection = sqlite3.connect(self.database._path)
        self.addCleanup(connection.close)
        values = {"after": 0, "before": 1.0, "limit": 5, "max_bytes": 100}
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {queries.FINISHED_BEFORE}", values)]
        steps = [step for step in plan if "finished" in step]
        self.assertEqual(steps, ["SEARCH finished USING INTEGER PRIMARY KEY (rowid>?)"])
