"""The database in use: it keeps what it said it kept, stands a disk that hangs, and leaves nothing when it stops."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from dapi.database import transaction
from dapi.errors import StoreBusyError, StoreClosedError
from tests.unit.database.store_tools import COUNT_NODES, PATIENCE_SECONDS, Obstacle, StoreTestCase, add_node


class UseTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()

    def test_writes_are_in_order(self) -> None:
        order: list[int] = []
        written = [self.database.write(partial(self.append, order, number)) for number in range(50)]
        self.clock.wait_for(written[-1])
        self.assertEqual(order, list(range(50)))

    def append(self, order: list[int], number: int, _: sqlite3.Connection) -> None:
        order.append(number)

    def test_write_fires_with_what_was_returned_not_before_it_was_done(self) -> None:
        obstacle = Obstacle(self.database)
        written = self.database.write(lambda connection: connection.execute(add_node("a")).rowcount)
        self.clock.turn()
        self.assertNoResult(written)
        obstacle.remove()
        self.assertEqual(self.clock.wait_for(written), 1)
        self.assertEqual(self.look(COUNT_NODES), [(1,)])

    def test_the_sizes_of_its_files_are_looked_at_once_a_second(self) -> None:
        before = self.database.status()["wal_bytes"]
        self.execute(self.database, add_node("a"))
        self.assertEqual(self.database.status()["wal_bytes"], before)
        self.clock.advance(1)
        self.execute(self.database, add_node("b"))
        self.assertEqual(self.database.status()["wal_bytes"], os.stat(f"{self.path}-wal").st_size)
        self.assertGreater(self.database.status()["wal_bytes"], before)

    def test_errors_of_others_pass(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            self.clock.wait_for(self.database.write(lambda _: 1 // 0))
        with self.assertRaises(sqlite3.OperationalError):
            self.execute(self.database, "SELECT nonsense")
        with self.assertRaises(sqlite3.ProgrammingError):
            self.execute(self.database, COUNT_NODES, "too much")
        self.assertEqual(self.database.status()["state"], "ok")

    def test_a_transaction_left_open_is_rolled_back(self) -> None:
        def forgetful(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN")
            connection.execute(add_node("a"))

        with self.assertRaises(RuntimeError):
            self.clock.wait_for(self.database.write(forgetful))
        self.assertEqual(self.execute(self.database, COUNT_NODES), [(0,)])

    def test_transaction_is_all_or_nothing(self) -> None:
        def fails_late(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute(add_node("a"))
                connection.execute(add_node("a"))

        with self.assertRaises(sqlite3.IntegrityError):
            self.clock.wait_for(self.database.write(fails_late))
        self.assertEqual(self.look(COUNT_NODES), [(0,)])

    def test_cancelling_does_not_cancel_the_write(self) -> None:
        obstacle = Obstacle(self.database)
        written = self.database.write(lambda connection: connection.execute(add_node("a")))
        written.cancel()
        self.failureResultOf(written, CancelledError)
        obstacle.remove()
        self.assertEqual(self.execute(self.database, COUNT_NODES), [(1,)])

    def test_read_sees_what_was_committed(self) -> None:
        self.execute(self.database, add_node("a"))
        rows = self.clock.wait_for(self.database.read(lambda connection: connection.execute(COUNT_NODES).fetchall()))
        self.assertEqual(rows, [(1,)])

    def test_read_does_not_wait_for_writes(self) -> None:
        obstacle = Obstacle(self.database)
        self.clock.wait_for(self.database.read(lambda connection: connection.execute(COUNT_NODES).fetchall()))
        obstacle.remove()

    def test_read_cannot_write(self) -> None:
        with self.assertRaises(sqlite3.OperationalError):
            self.clock.wait_for(self.database.read(lambda connection: connection.execute(add_node("a"))))
        self.assertEqual(self.database.status()["state"], "ok")

    def test_no_reader_is_left_to_hold_the_wal(self) -> None:
        connections: list[sqlite3.Connection] = []
        self.clock.wait_for(self.database.read(connections.append))
        with self.assertRaisesRegex(sqlite3.ProgrammingError, "closed"):
            self.clock.wait_for(self.database.read(lambda _: connections[0].execute("SELECT 1")))


class CopyTests(StoreTestCase):
    def test_a_copy_made_by_another_program_while_it_runs_is_whole_and_disturbs_nothing(self) -> None:
        database = self.open_database()
        self.execute(database, add_node("a"))
        copy = self.path.parent / "copy.db"
        with (
            contextlib.closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as running,
            contextlib.closing(sqlite3.connect(copy)) as copied,
        ):
            running.backup(copied)
            self.execute(database, add_node("b"))
        self.assertEqual(database.status()["state"], "ok")
        self.close_database(database)
        self.path = copy
        self.assertEqual(self.execute(self.open_database(), "SELECT id FROM nodes"), [("a",)])


class HungDiskTests(StoreTestCase):
    """A disk that hangs holds up the thread that waits for it, and nothing else."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.obstacle = Obstacle(self.database)
        self.addCleanup(self.obstacle.remove)

    def test_status_tells_for_how_long(self) -> None:
        self.assertTrue(self.obstacle.reached.wait(PATIENCE_SECONDS))
        self.clock.advance(7)
        self.assertEqual(self.database.status()["writing_seconds"], 7.0)
        self.obstacle.remove()
        self.execute(self.database, "SELECT 1")
        self.assertEqual(self.database.status()["writing_seconds"], 0.0)

    def test_status_does_not_look_at_the_disk(self) -> None:
        before = self.database.status()["bytes"]
        self.assertTrue(self.obstacle.reached.wait(PATIENCE_SECONDS))
        os.truncate(self.path, 5)
        self.assertEqual(self.database.status()["bytes"], before)

    def hold(self, held: threading.Event, _: sqlite3.Connection) -> bool:
        return held.wait(PATIENCE_SECONDS)

    def test_what_waits_is_bounded(self) -> None:
        self.assertTrue(self.obstacle.reached.wait(PATIENCE_SECONDS))
        for use in (self.database.write, self.database.read):
            held = threading.Event()
            self.addCleanup(held.set)
            waiting = [use(partial(self.hold, held)) for _ in range(1010)]
            refused = [each for each in waiting if each.called]
            self.assertIn(len(refused), (9, 10))
            for each in refused:
                self.assertIn("wait for the disk already", str(self.failureResultOf(each, StoreBusyError).value))
            held.set()
            self.obstacle.remove()
            for each in waiting[:1000]:
                self.clock.wait_for(each)


class TogetherTests(StoreTestCase):
    """When a stop is near, all that is queued is committed at once."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.commits: list[str] = []
        self.clock.wait_for(self.database.write(lambda connection: connection.set_trace_callback(self.trace)))
        self.obstacle = Obstacle(self.database)
        self.assertTrue(self.obstacle.reached.wait(PATIENCE_SECONDS))
        self.database.commit_together()

    def trace(self, statement: str) -> None:
        if statement == "COMMIT":
            self.commits.append(statement)

    def add(self, connection: sqlite3.Connection, name: str) -> int:
        with transaction(connection):
            return connection.execute(add_node(name)).rowcount

    def test_one_commit_for_all(self) -> None:
        written = [self.database.write(partial(self.add, name=str(number))) for number in range(9)]
        self.obstacle.remove()
        self.assertEqual([self.clock.wait_for(each) for each in written], [1] * 9)
        self.assertEqual(self.look(COUNT_NODES), [(9,)])
        self.assertEqual(len(self.commits), 1)

    def test_nothing_fires_before_all_is_committed(self) -> None:
        first = self.database.write(partial(self.add, name="a"))
        second = Obstacle(self.database)
        self.obstacle.remove()
        self.assertTrue(second.reached.wait(PATIENCE_SECONDS))
        self.clock.turn()
        self.assertNoResult(first)
        self.assertEqual(self.look(COUNT_NODES), [(0,)])
        second.remove()
        self.assertEqual(self.clock.wait_for(first), 1)

    def test_one_that_raises_is_undone_alone(self) -> None:
        def fails_late(connection: sqlite3.Connection) -> None:
            connection.execute(add_node("b"))
            connection.execute(add_node("b"))

        written: list[Deferred[Any]] = [
            self.database.write(partial(self.add, name="a")),
            self.database.write(fails_late),
        ]
        written.append(self.database.write(partial(self.add, name="c")))
        self.obstacle.remove()
        with self.assertRaises(sqlite3.IntegrityError):
            self.clock.wait_for(written[1])
        self.assertEqual([self.clock.wait_for(written[0]), self.clock.wait_for(written[2])], [1, 1])
        self.assertEqual(self.look("SELECT id FROM nodes ORDER BY id"), [("a",), ("c",)])

    def test_all_fail_when_all_is_rolled_back(self) -> None:
        def lose(connection: sqlite3.Connection) -> None:
            connection.execute("ROLLBACK")

        written: list[Deferred[Any]] = [self.database.write(partial(self.add, name="a")), self.database.write(lose)]
        self.obstacle.remove()
        for each in written:
            with self.assertRaisesRegex(StoreBusyError, "were rolled back"):
                self.clock.wait_for(each)
        self.assertEqual(self.look(COUNT_NODES), [(0,)])

    def test_a_slow_disk_is_not_asked_for_more_at_the_end(self) -> None:
        self.obstacle.remove()

        def slowly(connection: sqlite3.Connection) -> None:
            connection.execute(add_node("a"))
            self.clock.rightNow += 1

        self.clock.wait_for(self.database.write(slowly))
        self.close_database(self.database)
        # The log stays, and the next start reads it.
        self.assertTrue(os.path.exists(f"{self.path}-wal"))
        database = self.open_database()
        self.assertEqual(self.execute(database, COUNT_NODES), [(1,)])
        self.close_database(database)
        self.assertFalse(os.path.exists(f"{self.path}-wal"))


class StoppingTests(StoreTestCase):
    def test_finishes_what_was_queued(self) -> None:
        database = self.open_database()
        obstacle = Obstacle(database)
        written = database.write(lambda connection: connection.execute(add_node("a")).rowcount)
        stopped = database.stopService()
        self.clock.turn()
        self.assertNoResult(stopped)
        obstacle.remove()
        self.clock.wait_for(stopped)
        self.assertEqual(self.successResultOf(written), 1)

    def test_leaves_nothing(self) -> None:
        before = threading.active_count()
        database = self.open_database()
        self.assertEqual(threading.active_count(), before + 2)
        self.execute(database, add_node("a"))
        self.close_database(database)
        self.assertEqual(threading.active_count(), before)
        self.assertFalse(os.path.exists(f"{self.path}-wal"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.open_database()

    def test_every_call_fires(self) -> None:
        database = self.open_database()
        first, second = database.stopService(), database.stopService()
        self.assertNoResult(first)
        self.assertNoResult(second)
        self.clock.wait_for(first)
        self.successResultOf(second)
        self.successResultOf(database.stopService())

    def test_never_started(self) -> None:
        self.successResultOf(self.make_database().stopService())

    def test_nothing_is_taken_afterwards(self) -> None:
        database = self.open_database()
        stopped = database.stopService()
        for use in (database.write, database.read):
            self.failureResultOf(use(lambda _: None), StoreClosedError)
        self.clock.wait_for(stopped)

    def test_cancels_the_probe(self) -> None:
        database = self.open_database(free_bytes=lambda _: 0)
        self.clock.turn()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.close_database(database)
        self.assertEqual(self.clock.getDelayedCalls(), [])
