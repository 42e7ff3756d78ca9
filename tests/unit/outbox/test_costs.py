"""What a batch costs does not grow with what was finished before."""

from __future__ import annotations

import itertools
import json
import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.year import make_year
from dapi.messages import Kind, State
from dapi.outbox import queries
from dapi.outbox.outbox import Outbox
from dapi.outbox.pages import page
from tests.unit.outbox.outbox_case import OutboxTestCase, entry

# The indexes that each batch enters as it comes: every further one costs the commit up to a page of 16 kB a batch.
OF_INTAKE = {"sqlite_autoindex_unfinished_1", "unfinished_to_send", "unfinished_listed"}


class IntakeTests(OutboxTestCase):
    def plan(self, statement: str, **values: object) -> list[str]:
        """Return how a statement finds its rows."""
        return [row[3] for row in self.execute(self.database, f"EXPLAIN QUERY PLAN {statement}", *values.values())]

    def test_a_batch_enters_three_indexes(self) -> None:
        indexes = self.look("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'unfinished'")
        # A batch as it comes is no part.
        self.assertEqual({name for name, sql in indexes if "parent IS NOT NULL" not in (sql or "")}, OF_INTAKE)

    def test_finished_rows_of_its_stage_alone_are_looked_through(self) -> None:
        plan = self.plan(queries.STORE.format(rows=f"({','.join(['NULL'] * 13)})"))
        self.assertEqual(
            [step for step in plan if "finished" in step],
            [
                "SEARCH finished USING COVERING INDEX finished_ids (height=? AND batch_id=?)",
                "SEARCH finished USING INDEX finished_own_ids (batch_id=?)",
            ],
        )

    def test_counts_and_ledger_look_at_no_finished_row(self) -> None:
        for statement in (queries.COUNT, queries.LEDGER.replace(":height", "1")):
            steps = " ".join(self.plan(statement))
            self.assertIn("unfinished_listed", steps)
            self.assertNotIn(" finished", steps.replace("AS finished", ""))

    def test_losses_are_found_beside_what_is_confirmed(self) -> None:
        statement = queries.LOSSES.replace(":stages", "3").replace(":damaged", "''").replace(":kinds", "'[]'")
        steps = [step for step in self.plan(statement) if "finished" in step]
        self.assertTrue(steps)
        self.assertTrue(all("finished_by_stage" in step and step.startswith("SEARCH") for step in steps), steps)


class OwnIdTests(OutboxTestCase):
    """dapi's own messages are known by their id alone: a height may turn out to be another one."""

    def test_whatever_height_it_comes_with(self) -> None:
        for kind in (Kind.SEED, Kind.HARDWARE, Kind.CLAIM):
            batch_id = f"{kind}-7"
            self.put(batch_id, kind=kind, node_id=None, height=1000)
            self.finish(batch_id)
            self.assertEqual(self.put(batch_id, kind=kind, node_id=None, height=1001).seen, 2)
        self.assertEqual(self.look("SELECT count(*) FROM unfinished"), [(0,)])
        self.assertEqual(self.look("SELECT DISTINCT doubled FROM ledger"), [(1,)])


class FirstCountTests(OutboxTestCase):
    """The first count after a start is of the ledger: what became of rows that are gone is still told."""

    def test_rows_that_are_gone_stay_counted(self) -> None:
        for number in range(3):
            self.put(f"{number}")
            self.finish(f"{number}", State.EXPIRED if number else State.CONFIRMED)
        self.execute(self.database, "DELETE FROM finished")
        self.outbox = Outbox(self.clock, self.database)
        self.assertEqual(self.counts(), {"confirmed": 1, "expired": 2})

    def test_deliveries_of_what_is_finished_are_counted_in_the_ledger(self) -> None:
        self.put("a")
        self.put("a")
        self.finish("a")
        puts = [self.outbox.put(entry("a")) for _ in range(3)]
        self.assertEqual([self.clock.wait_for(put).seen for put in puts], [3, 4, 5])
        self.assertEqual(self.look("SELECT batches, nonces, doubled FROM ledger"), [(1, 20, 4)])
        self.assertEqual(json.loads(self.look("SELECT json_group_array(seen) FROM finished")[0][0]), [5])


class YearTests(SynchronousTestCase):
    """Of the steps that SQLite makes, which are the same on any machine, however busy it is."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def steps(self, number: int) -> dict[str, int]:
        """Count the steps of what is asked again and again, with so many finished rows."""
        path = self.folder / f"{number}.db"
        make_year(path, number)
        connection = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(connection.close)
        made = 0

        def count() -> None:
            nonlocal made
            made += 10

        connection.set_progress_handler(count, 10)
        steps: dict[str, int] = {}
        for filters in itertools.product((None, "node7", "no such"), (None, *Kind), (None, *State)):
            made = 0
            node_id, kind, state = filters
            page(connection, node_id=node_id, kind=kind, state=state, limit=5, before=None)
            steps[f"list {filters}"] = made
        made = 0
        new = ("new", 20, 1, "generated", "node1", "http", 10**7, 1, 1, 1.0, 1.0, b"", "")
        connection.execute(queries.STORE.format(rows=queries.STORE_ROW), new)
        steps["store"] = made
        made = 0
        connection.execute(queries.LEDGER, {"height": 10**7}).fetchall()
        steps["ledger"] = made
        return steps

    def test_ten_times_as_many_finished_rows_cost_no_further_step(self) -> None:
        few, many = self.steps(2_000), self.steps(20_000)
        self.assertGreater(few["store"], 0)
        for name, steps in few.items():
            self.assertLessEqual(many[name], 1.3 * steps + 100, name)
