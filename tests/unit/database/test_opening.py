"""The database opens only what it may, and says of the rest what to do about it."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from pathlib import Path

from twisted.application.service import IService
from zope.interface.verify import verifyObject

from dapi.database import Database
from dapi.database import file as database_file
from dapi.database.schema import SCHEMA_VERSIONS
from dapi.errors import StartError, StoreBrokenError
from tests.unit.database.store_tools import COUNT_NODES, StoreTestCase, add_node


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

    def test_it_writes_nothing_anywhere_else(self) -> None:
        database = self.open_database()
        # 2 is memory. Otherwise what undoes a statement, and what is sorted, goes into files of /tmp.
        self.assertEqual(self.execute(database, "PRAGMA temp_store"), [(2,)])
        read = database.read(lambda connection: connection.execute("PRAGMA temp_store").fetchall())
        self.assertEqual(self.clock.wait_for(read), [(2,)])

    def test_what_was_written_is_there_again(self) -> None:
        database = self.open_database()
        self.execute(database, add_node("a"))
        self.close_database(database)
        self.assertEqual(self.execute(self.open_database(), "SELECT id FROM nodes"), [("a",)])

    def test_an_older_one_is_brought_up_to_date_with_what_is_in_it(self) -> None:
        database = self.open_database()
        self.execute(database, add_node("a"))
        self.close_database(database)
        versions = (*SCHEMA_VERSIONS, "CREATE TABLE more (x);")
        self.patch(database_file, "SCHEMA_VERSIONS", versions)
        for _ in range(2):
            newer = self.open_database()
            self.assertEqual(self.execute(newer, "SELECT id FROM nodes"), [("a",)])
            self.assertEqual(self.execute(newer, "SELECT count(*) FROM more"), [(0,)])
            self.assertEqual(self.execute(newer, "PRAGMA user_version"), [(len(versions),)])
            self.close_database(newer)

    def test_a_creation_that_was_interrupted_is_taken_up(self) -> None:
        self.path.parent.mkdir()
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        self.assertGreater(self.path.stat().st_size, 0)
        self.assertEqual(self.execute(self.open_database(), COUNT_NODES), [(0,)])

    def test_a_creation_that_was_killed_is_begun_anew(self) -> None:
        self.path.parent.mkdir()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}.new{suffix}").write_bytes(b"left behind")
        self.assertEqual(self.execute(self.open_database(), COUNT_NODES), [(0,)])
        self.assertEqual(list(self.path.parent.glob("*.new*")), [])

    def test_a_new_one_takes_the_place_of_an_empty_one_where_it_is_wanted(self) -> None:
        self.path.parent.mkdir()
        self.path.touch()
        database = self.open_database(is_new_wanted=True)
        self.execute(database, add_node("a"))
        self.close_database(database)
        # What is in it is never lost, however often a new one is asked for.
        self.assertEqual(self.execute(self.open_database(is_new_wanted=True), "SELECT id FROM nodes"), [("a",)])

    def test_a_new_one_does_not_read_the_log_of_the_old_one(self) -> None:
        old = self.open_database()
        self.execute(old, add_node("a"))
        log = Path(f"{self.path}-wal").read_bytes()
        self.close_database(old)
        self.path.unlink()
        Path(f"{self.path}-wal").write_bytes(log)
        self.assertEqual(self.execute(self.open_database(is_new_wanted=True), COUNT_NODES), [(0,)])

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

        def free_bytes(folder: str) -> int:
            asked.append(folder)
            return 10**9

        database = self.open_database(free_bytes=free_bytes)
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
            {
                "state": "ok",
                "reason": "",
                "since": 1000.0,
                "writing_seconds": 0.0,
                "commit_p99_seconds": None,
                "path": str(self.path),
            },
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

    def test_empty_file(self) -> None:
        self.path.parent.mkdir()
        self.path.touch()
        message = self.refusal()
        self.assertIn("is empty", message)
        self.assertIn("start once with --new-database", message)
        self.assertEqual(self.path.stat().st_size, 0)

    def test_log_without_its_file(self) -> None:
        self.path.parent.mkdir()
        log = Path(f"{self.path}-wal")
        log.write_bytes(b"the newest rows")
        message = self.refusal()
        self.assertIn("is missing, while its -wal file is there", message)
        self.assertIn("start once with --new-database", message)
        self.assertEqual(log.read_bytes(), b"the newest rows")

    def test_database_of_another_program(self) -> None:
        self.make_file("CREATE TABLE t (x)")
        self.assertIn("of another program: give dapi a path of its own", self.refusal())
        self.assertEqual(self.look("SELECT name FROM sqlite_master"), [("t",)])

    def test_a_file_of_another_user(self) -> None:
        self.close_database(self.open_database())
        self.patch(os, "access", lambda path, _mode: path != self.path)
        self.assertIn("cannot be read and written by this user: run dapi as the user", self.refusal())

    def test_newer_version(self) -> None:
        self.close_database(self.open_database())
        self.make_file("PRAGMA user_version = 1000")
        self.assertIn("newer dapi (its schema is 1000, this one knows ", self.refusal())

    def test_corrupt_page(self) -> None:
        self.close_database(self.open_database())
        corrupt_page(self.path, "finished")
        refusal = self.refusal()
        self.assertIn("is corrupt", refusal)
        self.assertNotIn("\n", refusal)

    def test_truncated_file(self) -> None:
        self.close_database(self.open_database())
        os.truncate(self.path, 2 * 16384 + 100)
        self.assertIn("is corrupt", self.refusal())

    def test_large_file_is_not_looked_through_but_found_out_in_use(self) -> None:
        database = self.open_database()
        self.execute(
            database,
            "INSERT INTO unfinished"
            " (batch_id, kind, state, via, height, nonces, seen, received_at, last_seen_at, crc32, message)"
            " VALUES ('large', 'generated', 'stored', 'http', 1, 1, 1, 0, 0, 0, zeroblob(65 * 1024 * 1024))",
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
        self.make_file("PRAGMA journal_mode = DELETE", "PRAGMA user_version = 0")
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        self.assertIn("locked by another program", self.refusal())
