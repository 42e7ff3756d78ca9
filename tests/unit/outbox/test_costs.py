"""What a batch costs does not grow with what was finished before."""

from __future__ import annotations

import json

from dapi.messages import Kind, State
from dapi.outbox import queries
from dapi.outbox.outbox import Outbox
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
