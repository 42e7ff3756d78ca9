"""The database: it opens only what it may, keeps what it said it kept, and stands faults as it promises."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import threading
from pathlib import Path

from twisted.application.service import IService
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from dapi.database import Database, transaction
from dapi.database import service as database_service
from dapi.database.file import open_prepared
from dapi.errors import StartError, StoreBrokenError, StoreBusyError
from tests.unit.store_tools import Obstacle, StoreTestCase

COUNT_NODES = "SELECT count(*) FROM nodes"


def add_node(name: str) -> str:
    return f"INSERT INTO nodes (id, config, enabled, removed) VALUES ('{name}', '', 1, 0)"


def failing(error: type[sqlite3.Error], code: int) -> sqlite3.Error:
    """An error as SQLite reports it."""
    made = error("made up")
    made.sqlite_errorcode = code
    made.sqlite_errorname = "SQLITE_MADE_UP"
    return made


def corrupt_page(path: Path, table: str) -> None:
    """Overwrite the page in which a table begins."""
    connection = sqlite3.connect(path)
    ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchall()
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 16384)
        file.write(b"\xff" * 16384)


class OpeningTests(StoreTestCase):
    def test_is_a_service(self) -> None:
        verifyObject(IService, self.make_database())

    def test_only_its_user_may_look(self) -> None:
        self.open_database()
        self.assertEqual(stat.S_IMODE(self.path.parent.stat().st_mode), 0o700)
        for suffix in ("", "-wal", "-shm", ".lock", ".reserve"):
            self.assertEqual(stat.S_IMODE(os.stat(f"{self.path}{suffix}").st_mode), 0o600, suffix)

    def test_settings_that_durability_rests_on(self) -> None:
        database = self.open_database()
        found = {
            name: self.execute(database, f"PRAGMA {name}")[0][0]
            for name in ("journal_mode", "synchronous", "page_size", "wal_autocheckpoint")
        }
        expected = {"journal_mode": "wal", "synchronous": 2, "page_size": 16384, "wal_autocheckpoint": 256}
        self.assertEqual(found, expected)

    def test_what_was_written_is_there_again(self) -> None:
        database = self.open_database()
        self.execute(database, add_node("a"))
        self.close_database(database)
        self.assertEqual(self.execute(self.open_database(), "SELECT id FROM nodes"), [("a",)])

    def test_a_creation_that_was_interrupted_is_taken_up(self) -> None:
        self.path.parent.mkdir()
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        self.assertGreater(self.path.stat().st_size, 0)
        self.assertEqual(self.execute(self.open_database(), COUNT_NODES), [(0,)])

    def test_reserve_is_really_allocated(self) -> None:
        self.open_database(reserve_bytes=1024 * 1024)
        reserve = os.stat(f"{self.path}.reserve")
        self.assertEqual(reserve.st_size, 1024 * 1024)
        self.assertGreaterEqual(reserve.st_blocks * 512, 1024 * 1024)

    def test_what_is_beside_it_is_where_a_link_leads(self) -> None:
        disk = self.path.parent / "disk"
        disk.mkdir(parents=True)
        self.path.symlink_to(disk / "there.db")
        asked: list[str] = []
        database = self.open_database(free_bytes=lambda folder: asked.append(folder) or 10**9)
        self.execute(database, add_node("a"))
        self.assertEqual(asked, [str(disk)])
        beside = {f"there.db{end}" for end in ("", "-shm", "-wal", ".lock", ".reserve")}
        self.assertEqual({found.name for found in disk.iterdir()}, beside)

    def test_status(self) -> None:
        self.clock.advance(1000)
        database = self.open_database()
        status = database.status()
        self.assertGreater(status.pop("bytes"), 0)
        self.assertGreaterEqual(status.pop("wal_bytes"), 0)
        self.assertEqual(
            status,
            {"state": "ok", "reason": "", "since": 1000.0, "writing_seconds": 0.0, "path": str(self.path)},
        )


class RefusalTests(StoreTestCase):
    """What must not be used is not, with a message that says what to do, and nothing is left behind."""

    def refusal(self) -> str:
        before = threading.active_count()
        database = self.make_database()
        message = str(self.assertRaises(StartError, database.startService))
        self.assertFalse(database.running)
        self.assertEqual(threading.active_count(), before)
        self.assertIn(str(self.path), message)
        return message

    def make_file(self, *statements: str) -> None:
        self.path.parent.mkdir(exist_ok=True)
        connection = sqlite3.connect(self.path, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    def test_second_service(self) -> None:
        database = self.open_database()
        self.assertIn("in use by another dapi: stop that one", self.refusal())
        self.close_database(database)
        self.open_database()

    def test_second_service_by_another_name(self) -> None:
        link = self.path.parent / "link.db"
        self.path.parent.mkdir()
        link.symlink_to(self.path)
        with self.assertRaisesRegex(StartError, "in use by another dapi"):
            self.open_database()
            Database(self.clock, str(link), on_broken=self.broken.append).startService()

    def test_a_refusal_gives_the_lock_back(self) -> None:
        self.make_file("CREATE TABLE t (x)")
        self.refusal()
        self.path.unlink()
        self.open_database()

    def test_no_database(self) -> None:
        self.path.parent.mkdir()
        self.path.write_bytes(b"these are notes, no database " * 100)
        self.assertIn("restore it from a back-up, or move it away", self.refusal())

    def test_database_of_another_program(self) -> None:
        self.make_file("CREATE TABLE t (x)")
        self.assertIn("of another program: give dapi a path of its own", self.refusal())
        self.assertEqual(self.look("SELECT name FROM sqlite_master"), [("t",)])

    def test_newer_version(self) -> None:
        self.close_database(self.open_database())
        self.make_file("PRAGMA user_version = 1000")
        self.assertIn("newer dapi (its schema is 1000, this one knows ", self.refusal())

    def test_corrupt_page(self) -> None:
        self.close_database(self.open_database())
        corrupt_page(self.path, "finished")
        self.assertIn("is corrupt", self.refusal())

    def test_truncated_file(self) -> None:
        self.close_database(self.open_database())
        os.truncate(self.path, 2 * 16384 + 100)
        self.assertIn("is corrupt", self.refusal())

    def test_large_file_is_not_looked_through_but_found_out_in_use(self) -> None:
        database = self.open_database()
        self.execute(
            database,
            "INSERT INTO waiting (batch_id, kind, state, via, height, nonces, seen, received_at, last_seen_at, message)"
            " VALUES ('large', 'generated', 'stored', 'http', 1, 1, 1, 0, 0, zeroblob(65 * 1024 * 1024))",
        )
        self.close_database(database)
        corrupt_page(self.path, "nodes")
        database = self.open_database()
        with self.assertRaises(StoreBrokenError):
            self.clock.wait_for(database.read(lambda connection: connection.execute("SELECT * FROM nodes").fetchall()))
        self.clock.turn()
        self.assertEqual(len(self.broken), 1)

    def test_folder(self) -> None:
        self.path.mkdir(parents=True)
        self.assertIn("check the path", self.refusal())

    def test_folder_that_cannot_be_made(self) -> None:
        self.path.parent.parent.mkdir(parents=True, exist_ok=True)
        self.path.parent.write_text("in the way")
        self.assertIn("check the path", self.refusal())

    def test_locked_by_another_program(self) -> None:
        self.make_file("PRAGMA journal_mode = DELETE")
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        self.assertIn("locked by another program", self.refusal())


class UseTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()

    def test_writes_are_in_order(self) -> None:
        order: list[int] = []
        written = [self.database.write(lambda _, number=number: order.append(number)) for number in range(50)]
        self.clock.wait_for(written[-1])
        self.assertEqual(order, list(range(50)))

    def test_write_fires_with_what_was_returned_not_before_it_was_done(self) -> None:
        obstacle = Obstacle(self.database)
        written = self.database.write(lambda connection: connection.execute(add_node("a")).rowcount)
        self.clock.turn()
        self.assertNoResult(written)
        obstacle.remove()
        self.assertEqual(self.clock.wait_for(written), 1)
        self.assertEqual(self.look(COUNT_NODES), [(1,)])

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


class HungDiskTests(StoreTestCase):
    """A disk that hangs holds up the thread that waits for it, and nothing else."""

    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.obstacle = Obstacle(self.database)
        self.addCleanup(self.obstacle.remove)

    def test_status_tells_for_how_long(self) -> None:
        self.assertTrue(self.obstacle.reached.wait(10))
        self.clock.advance(7)
        self.assertEqual(self.database.status()["writing_seconds"], 7.0)
        self.obstacle.remove()
        self.execute(self.database, "SELECT 1")
        self.assertEqual(self.database.status()["writing_seconds"], 0.0)

    def test_status_does_not_look_at_the_disk(self) -> None:
        before = self.database.status()["bytes"]
        self.assertTrue(self.obstacle.reached.wait(10))
        os.truncate(self.path, 5)
        self.assertEqual(self.database.status()["bytes"], before)

    def test_what_waits_is_bounded(self) -> None:
        self.assertTrue(self.obstacle.reached.wait(10))
        for use in (self.database.write, self.database.read):
            held = threading.Event()
            self.addCleanup(held.set)
            waiting = [use(lambda _, held=held: held.wait(10)) for _ in range(1010)]
            refused = [each for each in waiting if each.called]
            self.assertIn(len(refused), (9, 10))
            for each in refused:
                self.assertIn("wait for the disk already", str(self.failureResultOf(each, StoreBusyError).value))
            held.set()
            self.obstacle.remove()
            for each in waiting[:1000]:
                self.clock.wait_for(each)


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
            self.failureResultOf(use(lambda _: None), StoreBusyError)
        self.clock.wait_for(stopped)

    def test_cancels_the_probe(self) -> None:
        database = self.open_database(free_bytes=lambda _: 0)
        self.clock.turn()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.close_database(database)
        self.assertEqual(self.clock.getDelayedCalls(), [])


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
        self.execute(self.database, "INSERT INTO nodes VALUES (1, 'one', zeroblob(131072 + 16384), 1, 0)")
        self.room = 0
        self.fill()
        with self.assertRaises(StoreBusyError):
            self.clock.wait_for(self.database.write(lambda _: None, intake=True))
        self.execute(self.database, "DELETE FROM nodes")
        add = "INSERT INTO nodes VALUES (2, 'two', zeroblob(65536), 1, 0)"
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

        def open_on_a_full_disk(path: Path) -> sqlite3.Connection:
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

        def open_on_a_full_disk(path: Path) -> sqlite3.Connection:
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

    def fail(self, code: int) -> Deferred[None]:
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
            self.clock.wait_for(self.fail(sqlite3.SQLITE_IOERR_WRITE))
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
            self.clock.wait_for(self.fail(sqlite3.SQLITE_IOERR_FSYNC))
        self.clock.turn()
        self.assertEqual(len(self.broken), 1)

    def test_opening_may_use_up_the_reserve(self) -> None:
        self.close_database(self.database)

        def open_within_a_quota(path: Path) -> sqlite3.Connection:
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
