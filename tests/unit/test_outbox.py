"""The outbox: nothing is acknowledged that is not on disk, nothing is kept twice, and all of it can be listed."""

from __future__ import annotations

import sqlite3
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from dapi.chain.outbox import Outbox, OutboxEntry
from dapi.chain.outbox_pages import BatchPage, BatchRow, selects
from dapi.errors import StoreBrokenError, StoreBusyError
from dapi.messages import Kind, Receipt, State, Via
from tests.unit.store_tools import Obstacle, StoreTestCase

SHARED = "batch_id, kind, node_id, via, height, nonces, seen, received_at, last_seen_at, attempts, tx_hash"
# A node's id that would break out of a statement it was pasted into.
ODD = "n2'; \"-- %_\\ ö☃\n"
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])


def entry(batch_id: str = "a", message: bytes = b"message", **fields: Any) -> OutboxEntry:
    values = {"kind": Kind.GENERATED, "node_id": "node1", "height": 1000, "nonces": 20, "via": Via.WEBSOCKET, **fields}
    return OutboxEntry(batch_id=batch_id, message=message, **values)


class OutboxTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.outbox = self.make_outbox()

    def make_outbox(self, **settings: Any) -> Outbox:
        return Outbox(self.clock, self.database, now=self.clock.seconds, **settings)

    def restart(self) -> None:
        self.close_database(self.database)
        self.database = self.open_database()
        self.outbox = self.make_outbox()

    def put(self, batch_id: str = "a", **fields: Any) -> Receipt:
        return self.clock.wait_for(self.outbox.put(entry(batch_id, **fields)))

    def finish(self, batch_id: str, state: State = State.CONFIRMED) -> None:
        """Move a batch to what is finished, as the submitter will."""

        def move(connection: sqlite3.Connection) -> None:
            connection.execute(
                f"INSERT INTO finished (seq, state, finished_at, included_height, reason, {SHARED})"
                f" SELECT seq, ?, 5000.0, 1002, 'why', {SHARED} FROM waiting WHERE batch_id = ?",
                (state.value, batch_id),
            )
            connection.execute("DELETE FROM waiting WHERE batch_id = ?", (batch_id,))

        self.clock.wait_for(self.database.write(move))

    def counts(self) -> dict[str, int]:
        """The counts that are not 0."""
        counts = self.clock.wait_for(self.outbox.counts())
        self.assertEqual(list(counts), [state.value for state in State])
        return {state: number for state, number in counts.items() if number}

    def batches(self, **filters: Any) -> BatchPage:
        return self.clock.wait_for(self.outbox.batches(**filters))

    def ids(self, **filters: Any) -> list[str]:
        return [row.batch_id for row in self.batches(**filters).batches]

    def traced(self) -> list[str]:
        """Statements that change something, from now on, in the order of their execution."""
        statements: list[str] = []

        def note(statement: str) -> None:
            if statement.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT")):
                statements.append(statement[:6])

        self.clock.wait_for(self.database.write(lambda connection: connection.set_trace_callback(note)))
        return statements


class PutTests(OutboxTestCase):
    def test_what_is_kept(self) -> None:
        self.clock.advance(1000.5)
        receipt = self.put("a", node_id="node7", height=77, nonces=3, via=Via.HTTP, message=b"\x00\xff")
        self.assertEqual(receipt, Receipt("a", 1))
        self.assertEqual(
            self.look(f"SELECT state, message, {SHARED} FROM waiting"),
            [("stored", b"\x00\xff", "a", "generated", "node7", "http", 77, 3, 1, 1000.5, 1000.5, 0, None)],
        )

    def test_fires_only_after_the_commit(self) -> None:
        obstacle = Obstacle(self.database)
        seen_on_disk: list[Any] = []
        put = self.outbox.put(entry())
        put.addCallback(lambda receipt: seen_on_disk.append(self.look("SELECT batch_id FROM waiting")) or receipt)
        self.clock.turn()
        self.assertNoResult(put)
        self.assertEqual(self.look("SELECT batch_id FROM waiting"), [])
        obstacle.remove()
        self.clock.wait_for(put)
        self.assertEqual(seen_on_disk, [[("a",)]])

    def test_is_there_after_a_restart(self) -> None:
        self.put("a")
        self.restart()
        self.assertEqual(self.ids(), ["a"])
        self.assertEqual(self.put("a"), Receipt("a", 2))

    def test_cancelling_does_not_take_it_back(self) -> None:
        put = self.outbox.put(entry("a"))
        put.cancel()
        self.failureResultOf(put, CancelledError)
        self.assertEqual(self.put("b"), Receipt("b", 1))
        self.assertEqual(self.ids(), ["b", "a"])

    def test_a_closed_database_refuses(self) -> None:
        self.close_database(self.database)
        puts = [self.outbox.put(entry(str(number))) for number in range(1000)]
        self.clock.turn()
        for put in puts:
            self.failureResultOf(put, StoreBusyError)
        self.assertEqual(self.outbox.status()["waiting"], 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_being_written_when_it_closes_is_acknowledged(self) -> None:
        obstacle = Obstacle(self.database)
        put = self.outbox.put(entry("a"))
        self.clock.turn()
        stopped = self.database.stopService()
        obstacle.remove()
        self.assertEqual(self.clock.wait_for(put), Receipt("a", 1))
        self.clock.wait_for(stopped)

    def test_numbers_are_not_given_twice(self) -> None:
        self.put("a")
        self.put("b")
        self.execute(self.database, "DELETE FROM waiting")
        self.restart()
        self.put("c")
        self.assertEqual(self.look("SELECT seq FROM waiting"), [(3,)])


class GroupTests(OutboxTestCase):
    def test_one_turn_is_one_statement(self) -> None:
        statements = self.traced()
        puts = [self.outbox.put(entry(str(number))) for number in range(300)]
        for put in puts:
            self.assertEqual(self.clock.wait_for(put).seen, 1)
        self.assertEqual(statements, ["INSERT"])
        self.assertEqual(self.look("SELECT count(*) FROM waiting"), [(300,)])

    def test_what_comes_during_a_commit_shares_the_next(self) -> None:
        statements = self.traced()
        obstacle = Obstacle(self.database)
        puts = [self.outbox.put(entry("first"))]
        for number in range(50):
            self.clock.turn()
            puts.append(self.outbox.put(entry(str(number))))
        obstacle.remove()
        for put in puts:
            self.clock.wait_for(put)
        self.assertEqual(statements, ["INSERT", "INSERT"])

    def test_rows_of_a_commit_are_bounded(self) -> None:
        statements = self.traced()
        puts = [self.outbox.put(entry(str(number))) for number in range(1025)]
        for put in puts:
            self.clock.wait_for(put)
        self.assertEqual(len(statements), 3)
        self.assertEqual(self.look("SELECT count(*) FROM waiting"), [(1025,)])

    def test_bytes_of_a_commit_are_bounded_but_for_one_large_message(self) -> None:
        statements = self.traced()
        large, small = bytes(9 * 1024 * 1024), bytes(3 * 1024 * 1024)
        puts = [self.outbox.put(entry(str(number), message)) for number, message in enumerate([large, *[small] * 3])]
        for put in puts:
            self.clock.wait_for(put)
        self.assertEqual(len(statements), 3)

    def test_bytes_that_wait_are_bounded(self) -> None:
        self.outbox = self.make_outbox(max_waiting_bytes=5000)
        obstacle = Obstacle(self.database)
        puts = [self.outbox.put(entry("a", bytes(1000)))]
        self.clock.turn()
        puts.append(self.outbox.put(entry("b", bytes(1500))))
        self.failureResultOf(self.outbox.put(entry("c", bytes(500))), StoreBusyError)
        # Each delivery counts 1 KiB more than its message.
        self.assertEqual(self.outbox.status()["waiting_bytes"], 1000 + 1500 + 2 * 1024)
        obstacle.remove()
        for put in puts:
            self.clock.wait_for(put)
        self.assertEqual(self.outbox.status()["waiting_bytes"], 0)
        self.assertEqual(self.put("c", message=bytes(500)), Receipt("c", 1))

    def test_a_message_larger_than_all_that_may_wait_is_taken_alone(self) -> None:
        self.outbox = self.make_outbox(max_waiting_bytes=5000)
        large = self.outbox.put(entry("large", bytes(6000)))
        self.failureResultOf(self.outbox.put(entry("small")), StoreBusyError)
        self.assertEqual(self.clock.wait_for(large), Receipt("large", 1))


class DuplicateTests(OutboxTestCase):
    def test_of_what_waits(self) -> None:
        self.put("a", via=Via.WEBSOCKET)
        self.clock.advance(7)
        self.assertEqual(self.put("a", via=Via.HTTP), Receipt("a", 2))
        self.assertEqual(self.put("a"), Receipt("a", 3))
        self.assertEqual(
            self.look("SELECT via, seen, received_at, last_seen_at FROM waiting"), [("websocket", 3, 0.0, 7.0)]
        )

    def test_of_what_is_finished(self) -> None:
        self.put("a")
        self.finish("a")
        self.clock.advance(7)
        self.assertEqual(self.put("a"), Receipt("a", 2))
        self.assertEqual(self.look("SELECT * FROM waiting"), [])
        self.assertEqual(self.look("SELECT seen, last_seen_at FROM finished"), [(2, 7.0)])

    def test_within_one_commit(self) -> None:
        puts = [self.outbox.put(entry(batch_id)) for batch_id in "abaab"]
        self.assertEqual([self.clock.wait_for(put).seen for put in puts], [1, 1, 2, 3, 2])
        self.assertEqual(self.look("SELECT batch_id, seen FROM waiting ORDER BY seq"), [("a", 3), ("b", 2)])

    def test_all_kinds_within_one_commit(self) -> None:
        self.put("finished")
        self.put("waiting")
        self.finish("finished")
        statements = self.traced()
        names = ("new", "finished", "waiting", "finished", "other", "new")
        puts = [self.outbox.put(entry(name)) for name in names]
        self.assertEqual([self.clock.wait_for(put).seen for put in puts], [1, 2, 2, 3, 1, 2])
        self.assertEqual(statements, ["INSERT", "BEGIN ", "UPDATE", "UPDATE", "COMMIT"])
        self.assertEqual(
            self.look("SELECT batch_id, seen FROM waiting ORDER BY seq"), [("waiting", 2), ("new", 2), ("other", 1)]
        )
        self.assertEqual(self.look("SELECT batch_id, seen FROM finished"), [("finished", 3)])
        self.assertEqual(self.counts(), {"stored": 3, "confirmed": 1})

    @PROPERTY
    @given(st.lists(st.tuples(st.sampled_from(["put", "put", "put", "finish", "turn"]), st.sampled_from("abcd"))))
    def test_one_row_a_batch_and_every_delivery_counted(self, steps: list[tuple[str, str]]) -> None:
        self.execute(self.database, "DELETE FROM waiting")
        self.execute(self.database, "DELETE FROM finished")
        self.outbox = self.make_outbox()
        puts: list[tuple[str, Deferred[Receipt]]] = []
        for step, batch_id in steps:
            if step == "put":
                puts.append((batch_id, self.outbox.put(entry(batch_id))))
            elif step == "finish":
                self.finish(batch_id)
            elif step == "turn":
                self.clock.turn()
        seen: dict[str, list[int]] = {}
        for batch_id, put in puts:
            seen.setdefault(batch_id, []).append(self.clock.wait_for(put).seen)
        for batch_id, numbers in seen.items():
            self.assertEqual(numbers, list(range(1, len(numbers) + 1)), batch_id)
        kept = self.look("SELECT batch_id, seen FROM waiting UNION ALL SELECT batch_id, seen FROM finished")
        self.assertEqual(sorted(kept), sorted((batch_id, len(numbers)) for batch_id, numbers in seen.items()))


class FaultTests(OutboxTestCase):
    def test_full_disk_and_after(self) -> None:
        self.put("a")
        ((pages,),) = self.execute(self.database, "PRAGMA page_count")
        self.execute(self.database, f"PRAGMA max_page_count = {pages}")
        refused = [self.outbox.put(entry(batch_id, bytes(100_000))) for batch_id in "bc"]
        for put in refused:
            with self.assertRaises(StoreBusyError):
                self.clock.wait_for(put)
        with self.assertRaises(StoreBusyError):
            self.put("small")
        self.assertEqual(self.outbox.status()["database"]["state"], "full")
        self.assertEqual(self.ids(), ["a"])
        self.execute(self.database, f"PRAGMA max_page_count = {pages + 100}")
        self.clock.advance(1)
        self.assertEqual(self.execute(self.database, "SELECT 1"), [(1,)])
        self.assertEqual(self.put("b", message=bytes(100_000)), Receipt("b", 1))
        self.assertEqual(self.outbox.status()["database"]["state"], "ok")
        self.assertEqual(self.counts(), {"stored": 2})

    def test_locked_and_after(self) -> None:
        self.execute(self.database, "PRAGMA busy_timeout = 0")
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        with self.assertRaises(StoreBusyError):
            self.put("a")
        other.execute("ROLLBACK")
        self.assertEqual(self.put("a"), Receipt("a", 1))

    def test_broken(self) -> None:
        self.put("a")

        def fail(_: sqlite3.Connection) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error

        broke = self.database.write(fail)
        puts = [self.outbox.put(entry(batch_id)) for batch_id in "bcb"]
        for refused in (broke, *puts, self.outbox.put(entry("d"))):
            with self.assertRaises(StoreBrokenError):
                self.clock.wait_for(refused)
        self.assertEqual(len(self.broken), 1)
        self.assertEqual(self.look("SELECT batch_id FROM waiting"), [("a",)])

    def test_what_waits_behind_a_failed_commit_is_refused_with_it(self) -> None:
        self.execute(self.database, "PRAGMA busy_timeout = 0")
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        obstacle = Obstacle(self.database)
        puts = [self.outbox.put(entry("a"))]
        self.clock.turn()
        puts.append(self.outbox.put(entry("b")))
        obstacle.remove()
        for put in puts:
            with self.assertRaises(StoreBusyError):
                self.clock.wait_for(put)
        self.assertEqual(self.outbox.status()["waiting_bytes"], 0)
        other.execute("ROLLBACK")
        self.assertEqual(self.put("b"), Receipt("b", 1))


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

    def test_kept_up_without_asking_the_disk_again(self) -> None:
        self.put("a")
        self.counts()
        obstacle = Obstacle(self.database)
        self.assertEqual(self.successResultOf(self.outbox.counts())["stored"], 1)
        obstacle.remove()

    @PROPERTY
    @given(st.lists(st.sampled_from(["put", "again", "turn", "count", "fail"])))
    def test_right_whenever_asked_for(self, steps: list[str]) -> None:
        self.execute(self.database, "DELETE FROM waiting")
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
        ((stored,),) = self.look("SELECT count(*) FROM waiting")
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
            "CREATE TEMP TRIGGER no_updates BEFORE UPDATE ON waiting BEGIN SELECT raise(ABORT, 'no updates'); END",
        )
        puts = [self.outbox.put(entry(batch_id)) for batch_id in "ab"]
        for put in puts:
            with self.assertRaises(sqlite3.IntegrityError):
                self.clock.wait_for(put)
        self.assertEqual(self.look("SELECT batch_id FROM waiting ORDER BY seq"), [("a",), ("b",)])
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
            self.assertRaises(ValueError, self.outbox.batches, limit=limit)
        self.assertEqual(self.ids(limit=1000), [])

    @PROPERTY
    @given(st.data())
    def test_filters(self, data: st.DataObject) -> None:
        self.execute(self.database, "DELETE FROM waiting")
        self.execute(self.database, "DELETE FROM finished")
        nodes, states = st.sampled_from(["n1", ODD, None]), st.sampled_from(State)
        made = data.draw(st.lists(st.tuples(nodes, st.sampled_from(Kind), states), max_size=12))
        for number, (node_id, kind, state) in enumerate(made):
            self.put(str(number), node_id=node_id, kind=kind)
            if state is State.IN_FLIGHT:
                self.execute(self.database, "UPDATE waiting SET state = 'in_flight' WHERE batch_id = ?", str(number))
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
            # A seed is no batch, and shown only to those who ask for it.
            and (values[1] is not Kind.SEED or wanted["kind"] is Kind.SEED)
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

    def test_no_listing_looks_at_more_than_it_shows(self) -> None:
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
        self.assertEqual(len(plan), 1, plan)
        self.assertTrue(plan[0].startswith("SEARCH") or "USING INDEX waiting_to_send" in plan[0], plan)
