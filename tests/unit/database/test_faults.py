"""The database stands faults as it promises: a full disk, a used-up quota, a lock, and what breaks it for good."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from twisted.internet.defer import Deferred

from dapi.database import Database
from dapi.database import service as database_service
from dapi.database.file import open_prepared
from dapi.errors import StartError, StoreBrokenError, StoreBusyError, StoreError
from tests.unit.database.store_tools import COUNT_NODES, Obstacle, StoreTestCase, add_node


def failing(error: type[sqlite3.Error], code: int) -> sqlite3.Error:
    """An error as SQLite reports it."""
    made = error("made up")
    made.sqlite_errorcode = code
    made.sqlite_errorname = "SQLITE_MADE_UP"
    return made


CODES = {"full": sqlite3.SQLITE_FULL, "locked": sqlite3.SQLITE_BUSY, "broken": sqlite3.SQLITE_IOERR_FSYNC}


class StateTests(StoreTestCase):
    def test_every_failure_in_every_state(self) -> None:
        for state in ("ok", *CODES):
            for failure, code in CODES.items():
                with self.subTest(state=state, failure=failure):
                    database = self.open_database()
                    if state != "ok":
                        self.fail_with(database, CODES[state])
                    self.assertEqual(database.status()["state"], state)
                    self.fail_with(database, code)
                    # Drawn in the service's file: what is broken stays so, and a full disk that is locked is full.
                    stays = state == "broken" or (state, failure) == ("full", "locked")
                    self.assertEqual(database.status()["state"], state if stays else failure)
                    self.close_database(database)

    def fail_with(self, database: Database, code: int) -> None:
        def write(_: sqlite3.Connection) -> None:
            raise failing(sqlite3.OperationalError, code)

        with self.assertRaises(StoreError):
            self.clock.wait_for(database.write(write))


class FullDiskTests(StoreTestCase):
    """A full disk takes nothing new, but lets go of what it has; and heals without help."""

    def setUp(self) -> None:
        super().setUp()
        self.room = 10**9
        self.database = self.open_database(free_bytes=lambda _: self.room)
        self.reserve = Path(f"{self.path}.reserve")

    def fill(self) -> None:
        """Write until SQLite says that the disk is full."""
        ((pages,),) = self.execute(self.database, "PRAGMA page_count")
        self.execute(self.database, f"PRAGMA max_page_count = {pages}")
        with self.assertRaisesRegex(StoreBusyError, "the disk is full"):
            self.execute(
                self.database,
                "INSERT INTO nodes (id, config, enabled, removed) VALUES ('large', zeroblob(100000), 1, 0)",
            )
        self.clock.turn()

    def probe(self) -> None:
        self.clock.advance(1)
        self.execute(self.database, "SELECT 1")
        self.clock.turn()

    def test_gives_up_the_reserve(self) -> None:
        self.clock.advance(500)
        self.room = 0
        self.assertTrue(self.reserve.exists())
        self.fill()
        self.assertFalse(self.reserve.exists())
        status = self.database.status()
        self.assertEqual((status["state"], status["since"]), ("full", 500.0))
        self.assertIn("must be free in", status["reason"])

    def test_takes_nothing_new_but_lets_others_write(self) -> None:
        self.room = 0
        self.fill()
        ran: list[object] = []
        refused = self.database.write(ran.append, intake=True)
        with self.assertRaises(StoreBusyError):
            self.clock.wait_for(refused)
        self.assertEqual(ran, [])
        self.execute(self.database, add_node("small"))
        self.assertEqual(self.database.status()["state"], "full")

    def test_heals_when_there_is_room_for_the_reserve_and_as_much_again(self) -> None:
        self.room = 0
        self.fill()
        self.room = 2 * 65536 - 1
        self.probe()
        self.assertEqual(self.database.status()["state"], "full")
        self.room = 2 * 65536
        self.probe()
        self.assertEqual(self.database.status()["state"], "ok")
        self.assertEqual(self.reserve.stat().st_size, 65536)
        self.assertEqual(self.clock.wait_for(self.database.write(lambda _: "taken", intake=True)), "taken")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_takes_new_into_the_room_that_drained_rows_left_in_the_file(self) -> None:
        self.execute(self.database, "INSERT INTO nodes VALUES (1, 'one', zeroblob(131072 + 16384), 1, 0, 1, NULL, -1)")
        self.room = 0
        self.fill()
        with self.assertRaises(StoreBusyError):
            self.clock.wait_for(self.database.write(lambda _: None, intake=True))
        self.execute(self.database, "DELETE FROM nodes")
        add = "INSERT INTO nodes VALUES (2, 'two', zeroblob(65536), 1, 0, 1, NULL, -1)"
        self.clock.wait_for(self.database.write(lambda connection: connection.execute(add).rowcount, intake=True))
        self.assertEqual(self.database.status()["state"], "full")
        with self.assertRaises(StoreBusyError):
            self.clock.wait_for(self.database.write(lambda _: None, intake=True))

    def test_can_be_full_again(self) -> None:
        self.fill()
        self.probe()
        self.assertEqual(self.database.status()["state"], "ok")
        self.fill()
        self.assertEqual(self.database.status()["state"], "full")
        self.assertFalse(self.reserve.exists())
        self.probe()
        self.assertEqual(self.database.status()["state"], "ok")

    def test_no_room_at_the_start(self) -> None:
        self.close_database(self.database)
        self.reserve.unlink()
        self.room = 0
        self.database = self.open_database(free_bytes=lambda _: self.room)
        self.clock.turn()
        self.assertEqual(self.database.status()["state"], "full")
        with self.assertRaises(StoreBusyError):
            self.clock.wait_for(self.database.write(lambda _: None, intake=True))
        self.execute(self.database, add_node("a"))
        self.room = 10**9
        self.probe()
        self.assertEqual(self.database.status()["state"], "ok")

    def test_opening_may_use_up_the_reserve(self) -> None:
        self.close_database(self.database)

        def open_on_a_full_disk(path: Path, *, is_new_wanted: bool) -> sqlite3.Connection:
            if self.reserve.exists():
                raise failing(sqlite3.OperationalError, sqlite3.SQLITE_IOERR_SHMSIZE)
            return open_prepared(path)

        self.patch(database_service, "open_prepared", open_on_a_full_disk)
        self.room = 0
        self.database = self.open_database(free_bytes=lambda _: self.room)
        self.assertEqual(self.database.status()["state"], "full")
        self.execute(self.database, add_node("a"))

    def test_no_room_to_open_at_all(self) -> None:
        self.close_database(self.database)
        self.reserve.unlink()

        def open_on_a_full_disk(path: Path, *, is_new_wanted: bool) -> sqlite3.Connection:
            raise failing(sqlite3.OperationalError, sqlite3.SQLITE_IOERR_SHMSIZE)

        self.patch(database_service, "open_prepared", open_on_a_full_disk)
        error = self.assertRaises(StartError, self.make_database().startService)
        self.assertIn("the disk is full: make room in", str(error))

    def test_a_reserve_that_is_there_needs_no_room(self) -> None:
        self.close_database(self.database)
        self.room = 0
        self.database = self.open_database(free_bytes=lambda _: self.room)
        self.assertEqual(self.database.status()["state"], "ok")


class QuotaTests(StoreTestCase):
    """A quota that is used up is a full disk, though SQLite says I/O error and the free space says nothing."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.left = 0
        self.patch(os, "posix_fallocate", self.allocate)

    def allocate(self, _file: int, _offset: int, size: int) -> None:
        if size > self.left:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        self.left -= size

    def failing_write(self, code: int) -> Deferred[None]:
        def write(_: sqlite3.Connection) -> None:
            raise failing(sqlite3.OperationalError, code)

        return self.database.write(write, intake=True)

    def probe(self, left: int) -> object:
        self.left = left
        self.clock.advance(1)
        self.execute(self.database, "SELECT 1")
        self.clock.turn()
        return self.database.status()["state"]

    def test_gives_up_the_reserve_and_heals(self) -> None:
        with self.assertRaisesRegex(StoreBusyError, "quota"):
            self.clock.wait_for(self.failing_write(sqlite3.SQLITE_IOERR_WRITE))
        self.assertFalse(Path(f"{self.path}.reserve").exists())
        self.execute(self.database, add_node("a"))
        self.assertEqual(self.probe(65535), "full")
        # The room that the reserve itself left is none for new batches.
        self.assertEqual(self.probe(65536), "full")
        self.assertFalse(Path(f"{self.path}.reserve").exists())
        self.assertEqual(self.probe(10**7), "ok")
        self.assertEqual(self.broken, [])

    def test_a_failed_fsync_is_one_all_the_same(self) -> None:
        with self.assertRaises(StoreBrokenError):
            self.clock.wait_for(self.failing_write(sqlite3.SQLITE_IOERR_FSYNC))
        self.clock.turn()
        self.assertEqual(len(self.broken), 1)

    def test_opening_may_use_up_the_reserve(self) -> None:
        self.close_database(self.database)

        def open_within_a_quota(path: Path, *, is_new_wanted: bool) -> sqlite3.Connection:
            if Path(f"{self.path}.reserve").exists():
                raise failing(sqlite3.OperationalError, sqlite3.SQLITE_IOERR_WRITE)
            return open_prepared(path)

        self.patch(database_service, "open_prepared", open_within_a_quota)
        self.database = self.open_database()
        self.assertEqual(self.database.status()["state"], "full")


class LockedTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.execute(self.database, "PRAGMA busy_timeout = 0")
        self.other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(self.other.close)
        self.other.execute("BEGIN IMMEDIATE")
        with self.assertRaises(StoreBusyError):
            self.execute(self.database, add_node("a"))
        self.clock.turn()
        self.assertEqual(self.database.status()["state"], "locked")

    def test_heals_by_the_probe(self) -> None:
        self.probe()
        self.assertEqual(self.database.status()["state"], "locked")
        self.other.execute("ROLLBACK")
        self.probe()
        self.assertEqual(self.database.status()["state"], "ok")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def probe(self) -> None:
        self.clock.advance(1)
        self.execute(self.database, "SELECT 1")
        self.clock.turn()

    def test_heals_by_the_next_write(self) -> None:
        self.other.execute("ROLLBACK")
        self.clock.wait_for(self.database.write(lambda c: c.execute(add_node("a")).rowcount, intake=True))
        self.assertEqual(self.database.status()["state"], "ok")
        self.assertEqual(self.look(COUNT_NODES), [(1,)])


class BrokenTests(StoreTestCase):
    """After a failed fsync nothing is believed and nothing tried again."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.execute(self.database, add_node("before"))

    def break_it(self, error: sqlite3.Error | None = None) -> None:
        error = error or failing(sqlite3.OperationalError, sqlite3.SQLITE_IOERR_FSYNC)

        def fail(_: sqlite3.Connection) -> None:
            raise error

        with self.assertRaises(StoreBrokenError):
            self.clock.wait_for(self.database.write(fail))
        self.clock.turn()

    def test_every_such_error_breaks_it(self) -> None:
        for kind, code in (
            (sqlite3.OperationalError, sqlite3.SQLITE_IOERR_FSYNC),
            (sqlite3.OperationalError, sqlite3.SQLITE_IOERR_WRITE),
            (sqlite3.DatabaseError, sqlite3.SQLITE_CORRUPT),
            (sqlite3.DatabaseError, sqlite3.SQLITE_NOTADB),
            (sqlite3.OperationalError, sqlite3.SQLITE_READONLY_DBMOVED),
        ):
            self.close_database(self.database)
            self.database = self.open_database()
            self.broken.clear()
            self.break_it(failing(kind, code))
            self.assertEqual(len(self.broken), 1, code)
            self.assertEqual(self.database.status()["state"], "broken")

    def test_tells_once_with_the_reason(self) -> None:
        self.break_it()
        self.break_it()
        (reason,) = self.broken
        self.assertIn("SQLITE_MADE_UP", reason)
        self.assertEqual(self.database.status()["reason"], reason)

    def test_refuses_what_was_queued_and_what_comes(self) -> None:
        obstacle = Obstacle(self.database)
        ran: list[object] = []

        def fail(_: sqlite3.Connection) -> None:
            raise failing(sqlite3.OperationalError, sqlite3.SQLITE_IOERR_FSYNC)

        broke, queued = self.database.write(fail), self.database.write(ran.append)
        obstacle.remove()
        for refused in (broke, queued):
            with self.assertRaises(StoreBrokenError):
                self.clock.wait_for(refused)
        for use in (self.database.write, self.database.read):
            with self.assertRaises(StoreBrokenError):
                self.clock.wait_for(use(ran.append))
        self.assertEqual(ran, [])

    def test_stops_without_writing_again(self) -> None:
        wal = Path(f"{self.path}-wal").read_bytes()
        before = self.path.read_bytes()
        self.break_it()
        self.close_database(self.database)
        self.assertEqual(Path(f"{self.path}-wal").read_bytes(), wal)
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(self.execute(self.open_database(), COUNT_NODES), [(1,)])

    def test_the_same_service_can_be_started_again_and_tells_again(self) -> None:
        self.break_it()
        self.close_database(self.database)
        self.database.startService()
        self.assertEqual(self.database.status()["state"], "ok")
        self.assertEqual(self.execute(self.database, COUNT_NODES), [(1,)])
        self.break_it()
        self.assertEqual(len(self.broken), 2)

    def test_is_closed_even_when_it_is_no_database_any_more(self) -> None:
        connection = self.clock.wait_for(self.database.write(lambda connection: connection))
        for path in (self.path, Path(f"{self.path}-wal")):
            with path.open("r+b") as file:
                file.write(b"\xff" * path.stat().st_size)
        with self.assertRaises(StoreBrokenError):
            self.clock.wait_for(self.database.read(lambda connection: connection.execute(COUNT_NODES)))
        self.close_database(self.database)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertRaisesRegex(sqlite3.ProgrammingError, "closed", connection.execute, COUNT_NODES)

    def test_is_not_probed(self) -> None:
        self.break_it()
        self.assertEqual(self.clock.getDelayedCalls(), [])
