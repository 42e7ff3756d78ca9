"""What the outbox holds: counts that are right whenever they are asked for, and all of it in a list."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from dapi.messages import Kind, State, Via
from dapi.outbox.pages import BatchPage, BatchRow, is_ahead, selects
from tests.unit.database.store_tools import Obstacle
from tests.unit.outbox.outbox_case import PROPERTY, OutboxTestCase, entry

# A node's id that would break out of a statement it was pasted into.
ODD = "n2'; \"-- %_\\ ö☃\n"


class CountTests(OutboxTestCase):
    def test_nothing(self) -> None:
        self.assertEqual(self.counts(), {})

    def test_before_and_after_a_restart(self) -> None:
        for batch_id in "abcd":
            self.put(batch_id)
        self.finish("a")
        self.finish("b", State.FAILED)
        self.assertEqual(self.counts(), {"stored": 2, "confirmed": 1, "failed": 1})
        self.put("e")
        self.put("a")
        self.assertEqual(self.counts(), {"stored": 3, "confirmed": 1, "failed": 1})
        self.restart()
        self.assertEqual(self.counts(), {"stored": 3, "confirmed": 1, "failed": 1})

    def test_a_damaged_kind_counts_for_none_and_what_is_finished_stays_counted_whatever_its_row_says(self) -> None:
        for batch_id in "abcd":
            self.put(batch_id)
        for batch_id in "cd":
            self.finish(batch_id)
        for table, batch_id in (("unfinished", "a"), ("finished", "c")):
            self.execute(self.database, f"UPDATE {table} SET kind = 'confused' WHERE batch_id = '{batch_id}'")
        self.assertEqual(self.counts(), {"stored": 2, "confirmed": 2})
        by_kind = self.clock.wait_for(self.outbox.counts_by_kind())
        self.assertEqual(by_kind[None, State.STORED], 1)
        self.assertEqual(by_kind[Kind.GENERATED, State.CONFIRMED], 2)

    def test_kept_up_without_asking_the_disk_again(self) -> None:
        self.put("a")
        self.counts()
        obstacle = Obstacle(self.database)
        self.assertEqual(self.successResultOf(self.outbox.counts())["stored"], 1)
        obstacle.remove()

    @PROPERTY
    @given(st.lists(st.sampled_from(["put", "again", "turn", "count", "fail"])))
    def test_right_whenever_asked_for(self, steps: list[str]) -> None:
        self.execute(self.database, "DELETE FROM unfinished")
        self.outbox = self.make_outbox()
        pending: list[Deferred[Any]] = []
        for number, step in enumerate(steps):
            if step == "turn":
                self.clock.turn()
            elif step == "count":
                pending.append(self.outbox.counts())
            elif step == "fail":
                pending.append(self.outbox.put(entry("fails", height=2**63)).addErrback(lambda _: None))
            else:
                pending.append(
                    self.outbox.put(entry(str(number) if step == "put" else "again")).addErrback(lambda _: None)
                )
        for deferred in pending:
            self.clock.wait_for(deferred)
        ((stored,),) = self.look("SELECT count(*) FROM unfinished")
        self.assertEqual(self.counts().get("stored", 0), stored)

    def test_asked_for_amid_commits(self) -> None:
        obstacle = Obstacle(self.database)
        puts = [self.outbox.put(entry("a"))]
        self.clock.turn()
        counted = self.outbox.counts()
        puts.append(self.outbox.put(entry("b")))
        self.clock.turn()
        obstacle.remove()
        self.assertEqual(self.clock.wait_for(counted)["stored"], 1)
        for put in puts:
            self.clock.wait_for(put)
        self.assertEqual(self.counts(), {"stored": 2})

    def test_a_commit_that_failed_half_way_is_counted_right(self) -> None:
        self.put("a")
        self.counts()
        # The count of deliveries fails; the insert before it does not.
        self.execute(
            self.database,
            "CREATE TEMP TRIGGER no_updates BEFORE UPDATE ON unfinished BEGIN SELECT raise(ABORT, 'no updates'); END",
        )
        puts = [self.outbox.put(entry(batch_id)) for batch_id in "ab"]
        for put in puts:
            with self.assertRaises(sqlite3.IntegrityError):
                self.clock.wait_for(put)
        self.assertEqual(self.look("SELECT batch_id FROM unfinished ORDER BY seq"), [("a",), ("b",)])
        self.assertEqual(self.counts(), {"stored": 2})


class ListingTests(OutboxTestCase):
    def test_a_row(self) -> None:
        self.clock.advance(1000.5)
        self.put("a", kind=Kind.VALIDATED, node_id=None, via=Via.HTTP, height=77, nonces=3)
        self.clock.advance(1)
        self.put("a")
        (row,) = self.batches().batches
        shared = (1, "a", None, Kind.VALIDATED)
        self.assertEqual(row, BatchRow(*shared, State.STORED, Via.HTTP, 2, 77, 3, 1000.5, 1001.5))
        self.finish("a", State.FAILED)
        (row,) = self.batches().batches
        expected = BatchRow(*shared, State.FAILED, Via.HTTP, 2, 77, 3, 1000.5, 1001.5, 5000.0, None, 1002, "why")
        self.assertEqual(row, expected)

    def test_nothing(self) -> None:
        self.assertEqual(self.batches(), BatchPage([], None))

    def test_newest_first_through_both_tables(self) -> None:
        for batch_id in "abcdefg":
            self.put(batch_id)
        for batch_id in "bdg":
            self.finish(batch_id)
        first = self.batches(limit=3)
        self.assertEqual([row.batch_id for row in first.batches], ["g", "f", "e"])
        second = self.batches(limit=3, before=first.next)
        self.assertEqual([row.batch_id for row in second.batches], ["d", "c", "b"])
        third = self.batches(limit=3, before=second.next)
        self.assertEqual([row.batch_id for row in third.batches], ["a"])
        self.assertIsNone(third.next)

    def test_a_full_last_page_has_no_next(self) -> None:
        for batch_id in "abcd":
            self.put(batch_id)
        first = self.batches(limit=2)
        self.assertIsNone(self.batches(limit=2, before=first.next).next)

    def test_a_batch_that_is_finished_between_two_pages_is_not_lost(self) -> None:
        for batch_id in "abc":
            self.put(batch_id)
        first = self.batches(limit=1)
        self.finish("b")
        self.put("d")
        self.assertEqual(self.ids(before=first.next), ["b", "a"])

    def test_limit_is_checked(self) -> None:
        for limit in (0, -1, 1001):
            with self.assertRaisesRegex(ValueError, "^limit is 1 to 1000$"):
                self.outbox.batches(limit=limit)
        for limit in (1, 1000):
            self.assertEqual(self.ids(limit=limit), [])

    def test_a_page_has_100_unless_it_is_told_otherwise(self) -> None:
        puts = [self.outbox.put(entry(str(number))) for number in range(101)]
        for put in puts:
            self.clock.wait_for(put)
        self.assertEqual(len(self.ids()), 100)
        self.assertEqual(len(self.clock.wait_for(self.outbox.whole_batches()).page.batches), 100)

    def test_what_a_chain_does_not_show_yet(self) -> None:
        row = BatchRow(1, "a", None, Kind.GENERATED, State.CONFIRMED, Via.HTTP, 1, 77, 3, 0.0, 0.0)
        self.assertFalse(is_ahead(row, 100))
        row = msgspec.structs.replace(row, included_height=101)
        # More than 100 blocks ahead it is in a block of another chain.
        ahead = [height for height in (0, 1, 2, 99, 100, 101, 102) if is_ahead(row, height)]
        self.assertEqual(ahead, [1, 2, 99, 100])

    def test_a_damaged_row_is_shown_as_damaged_and_the_others_as_they_are(self) -> None:
        damages = {
            "seen": "'often'",
            "received_at": "1e300",
            "via": "x'ff00ff'",
            "batch_id": "CAST(x'ff00ff' AS TEXT)",
            "kind": "'generaled'",
            "state": "'stoned'",
        }
        for table in ("unfinished", "finished"):
            for column, damage in damages.items():
                for batch_id in "abc":
                    self.put(batch_id)
                if table == "finished":
                    for batch_id in "abc":
                        self.finish(batch_id)
                whole = self.batches().batches
                self.execute(self.database, f"UPDATE {table} SET {column} = {damage} WHERE batch_id = 'b'")
                with self.subTest(table=table, column=column):
                    page = self.batches()
                    self.assertEqual(page.batches, [whole[0], whole[2]])
                    (row,) = page.damaged
                    self.assertEqual((row.seq, row.reason), (whole[1].seq, f"damaged on disk: {column}"))
                    self.assertNotIn(column, row.columns)
                    self.assertEqual(row.columns["height"], 1000)
                    first = self.batches(limit=1)
                    self.assertEqual((first.batches, first.damaged), ([whole[0]], []))
                    second = self.batches(limit=1, before=first.next)
                    self.assertEqual((second.batches, second.damaged), ([], [row]))
                    self.assertEqual(self.batches(limit=1, before=second.next).batches, [whole[2]])
                self.execute(self.database, f"DELETE FROM {table}")

    def test_all_that_is_damaged_of_a_row_is_named(self) -> None:
        self.put("a")
        self.execute(self.database, "UPDATE unfinished SET kind = 'generaled', seen = 'often', node_id = x'ff'")
        (row,) = self.batches().damaged
        self.assertEqual(row.reason, "damaged on disk: node_id, kind, seen")

    @PROPERTY
    @given(st.data())
    def test_filters(self, data: st.DataObject) -> None:
        self.execute(self.database, "DELETE FROM unfinished")
        self.execute(self.database, "DELETE FROM finished")
        nodes, states = st.sampled_from(["n1", ODD, None]), st.sampled_from(State)
        made = data.draw(st.lists(st.tuples(nodes, st.sampled_from(Kind), states), max_size=12))
        for number, (node_id, kind, state) in enumerate(made):
            self.put(str(number), node_id=node_id, kind=kind)
            if state is State.IN_FLIGHT:
                self.execute(self.database, "UPDATE unfinished SET state = 'in_flight' WHERE batch_id = ?", str(number))
            elif state is not State.STORED:
                self.finish(str(number), state)
        wanted = {
            "node_id": data.draw(st.sampled_from(["n1", ODD, "n3", None])),
            "kind": data.draw(st.none() | st.sampled_from(Kind)),
            "state": data.draw(st.none() | states),
        }
        expected = [
            str(number)
            for number, values in reversed(list(enumerate(made)))
            if all(want in (None, value) for want, value in zip(wanted.values(), values, strict=True))
            # What is no batch is shown only to those who ask for it.
            and (values[1] in (Kind.GENERATED, Kind.VALIDATED) or wanted["kind"] is not None)
        ]
        limit = data.draw(st.integers(1, 5))
        found: list[str] = []
        before = None
        for _ in range(len(made) + 1):
            page = self.batches(**wanted, limit=limit, before=before)
            self.assertLessEqual(len(page.batches), limit)
            found += [row.batch_id for row in page.batches]
            before = page.next
            if before is None:
                break
        self.assertEqual(found, expected)

    def test_a_listing_looks_at_what_it_shows_of_what_is_finished_and_at_one_index_of_the_rest(self) -> None:
        for node_id in ("n1", None):
            for kind in (Kind.GENERATED, None):
                for state in (State.STORED, State.FAILED, None):
                    for select in selects(node_id, kind, state):
                        self.assert_along_an_index(select)

    def assert_along_an_index(self, select: str) -> None:
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        values = {"node_id": "n1", "before": 5, "limit": 3}
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {select}", values)]
        # Of each row that it shows, the stage.
        of_stage = ["CORRELATED SCALAR SUBQUERY 1", "SEARCH stages USING INTEGER PRIMARY KEY (rowid=?)"]
        if plan[1:] == of_stage:
            del plan[1:]
        self.assertEqual(len(plan), 1, plan)
        self.assertTrue(plan[0].startswith("SEARCH"), plan)
        is_unfinished = "SEARCH unfinished USING" in plan[0]
        self.assertEqual(is_unfinished, "INDEX unfinished_listed (seq<?)" in plan[0], plan)
