"""A copy that is put in the place of the database."""

from __future__ import annotations

import contextlib
import gzip
import os
import sqlite3
import time
from pathlib import Path

from dapi.database.file import take_lock
from dapi.database.restore import look_into, restore
from dapi.database.schema import SCHEMA_VERSIONS
from dapi.errors import StartError
from tests.unit.database.old_file import OLD_FILE
from tests.unit.database.store_tools import COUNT_NODES, StoreTestCase, add_node


class RestoreTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.execute(self.database, add_node("in the copy"))
        self.copy = self.path.parent / "copy.db"
        self.execute(self.database, "VACUUM INTO ?", str(self.copy))
        self.execute(self.database, add_node("later"))

    def nodes(self, path: Path) -> int:
        connection = sqlite3.connect(path)
        try:
            return int(connection.execute(COUNT_NODES).fetchone()[0])
        finally:
            connection.close()


class RestoreTests(RestoreTestCase):
    def test_the_copy_takes_the_place_and_the_database_is_moved_aside(self) -> None:
        self.close_database(self.database)
        before = restore(self.copy, self.path)
        assert before is not None
        self.assertEqual((self.nodes(self.path), self.nodes(before)), (1, 2))
        self.assertEqual(self.nodes(self.copy), 1)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.database = self.open_database()
        self.assertEqual(self.execute(self.database, COUNT_NODES), [(1,)])

    def test_the_rows_of_the_log_are_moved_aside_with_their_file(self) -> None:
        self.execute(self.database, "PRAGMA wal_autocheckpoint = 0")
        self.execute(self.database, add_node("in the log alone"))
        wal = Path(f"{self.path}-wal").read_bytes()
        main = self.path.read_bytes()
        self.close_database(self.database)
        # As it is after a kill.
        self.path.write_bytes(main)
        Path(f"{self.path}-wal").write_bytes(wal)
        before = restore(self.copy, self.path)
        assert before is not None
        self.assertFalse(Path(f"{self.path}-wal").exists())
        self.assertEqual((self.nodes(self.path), self.nodes(before)), (1, 3))

    def test_where_there_was_none(self) -> None:
        new = self.path.parent / "deep" / "new.db"
        self.assertIsNone(restore(self.copy, new))
        self.assertEqual(self.nodes(new), 1)

    def test_root_gives_it_to_whom_the_database_belonged_or_the_folder(self) -> None:
        # Who is not root can only give it to themselves.
        user = 12345 if os.geteuid() == 0 else os.geteuid()
        self.close_database(self.database)
        os.chown(self.path, user, -1)
        restore(self.copy, self.path)
        self.assertEqual(self.path.stat().st_uid, user)
        folder = self.path.parent / "new"
        folder.mkdir()
        os.chown(folder, user, -1)
        restore(self.copy, folder / "outbox.db")
        self.assertEqual({each.stat().st_uid for each in folder.iterdir()}, {user})
        self.assertEqual({each.name for each in folder.iterdir()}, {"outbox.db", "outbox.db.lock"})

    def test_while_a_dapi_runs(self) -> None:
        with self.assertRaisesRegex(StartError, "in use by another dapi"):
            restore(self.copy, self.path)
        self.assertEqual(self.execute(self.database, COUNT_NODES), [(2,)])

    def test_the_lock_is_free_afterwards(self) -> None:
        self.close_database(self.database)
        restore(self.copy, self.path)
        os.close(take_lock(self.path))

    def test_two_in_one_second(self) -> None:
        self.close_database(self.database)
        self.patch(time, "strftime", lambda *_: "then")
        restore(self.copy, self.path)
        with self.assertRaisesRegex(StartError, "try again"):
            restore(self.copy, self.path)
        self.assertEqual(self.nodes(self.path), 1)


class LookTests(RestoreTestCase):
    def test_what_a_copy_holds(self) -> None:
        found = look_into(self.copy)
        self.assertEqual((found.version, found.chain_id, found.batches), (len(SCHEMA_VERSIONS), None, {}))
        self.assertEqual(found.size, self.copy.stat().st_size)

    def test_what_was_finished_long_ago_and_is_deleted_is_counted(self) -> None:
        for node in ("node1", "node2"):
            self.execute(
                self.database, f"INSERT INTO ledger VALUES (100, '{node}', 'generated', 'confirmed', 3, 60, 0)"
            )
        self.assertEqual(look_into(self.path, is_copy=False).batches, {"confirmed": 6})

    def test_a_copy_of_an_earlier_version(self) -> None:
        old = self.path.parent / "old.db"
        old.write_bytes(gzip.decompress(OLD_FILE.read_bytes()))
        found = look_into(old)
        self.assertEqual(found.version, 11)
        self.assertEqual(found.batches, {"confirmed": 8, "expired": 2, "failed": 2, "in_flight": 1, "stored": 5})

    def test_a_database_in_use_may_be_looked_into_and_is_no_copy(self) -> None:
        self.assertEqual(look_into(self.path, is_copy=False).version, len(SCHEMA_VERSIONS))
        with self.assertRaisesRegex(StartError, "and no copy"):
            look_into(self.path)

    def test_what_is_no_copy_changes_nothing(self) -> None:
        self.close_database(self.database)
        bad = self.path.parent / "bad.db"
        for content, message in (
            (None, "missing"),
            (b"", "empty"),
            (b"no database at all" * 1000, "no whole database"),
            (self.copy.read_bytes()[: self.copy.stat().st_size // 2], "(damaged|no whole database)"),
            (self.of_another_program(), "another program"),
            (self.of_a_newer_version(), "newer dapi"),
        ):
            if content is not None:
                bad.write_bytes(content)
            with self.assertRaisesRegex(StartError, message):
                restore(bad, self.path)
            self.assertEqual(self.nodes(self.path), 2)

    def of_another_program(self) -> bytes:
        return self.changed("PRAGMA application_id = 7")

    def of_a_newer_version(self) -> bytes:
        return self.changed(f"PRAGMA user_version = {len(SCHEMA_VERSIONS) + 1}")

    def changed(self, statement: str) -> bytes:
        other = self.path.parent / "changed.db"
        other.write_bytes(self.copy.read_bytes())
        connection = sqlite3.connect(other)
        connection.execute(statement)
        connection.commit()
        connection.close()
        return other.read_bytes()

    def test_a_copy_of_the_first_version(self) -> None:
        first = self.path.parent / "first.db"
        connection = sqlite3.connect(first)
        connection.executescript((Path(__file__).parents[2] / "vectors" / "database_v1.sql").read_text())
        connection.commit()
        with contextlib.closing(sqlite3.connect(self.copy)) as copy:
            (application_id,) = copy.execute("PRAGMA application_id").fetchone()
        connection.execute(f"PRAGMA application_id = {application_id}")
        connection.execute("PRAGMA user_version = 1")
        connection.close()
        found = look_into(first)
        self.assertEqual(found.version, 1)
        self.assertTrue(found.batches)
