"""A copy of the database that is made while it is used."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

from dapi.database.backup import TRANSITIONS, Backups, BackupState, BackupStatus
from dapi.errors import ConfigError, NotReadyError, StoreBusyError
from dapi.messages.sizes import MIB
from tests.logs import captured_log
from tests.unit.database.store_tools import COUNT_NODES, StoreTestCase, add_node

FREE = 100_000 * MIB
PATIENCE_SECONDS = 20


class BackupTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.free = FREE
        self.backups = Backups(self.clock, str(self.path), free_bytes=lambda folder: self.free, now=self.clock.seconds)
        self.backups.startService()
        self.addCleanup(self.stop)
        self.copy = self.path.parent / "copy.db"

    def stop(self) -> None:
        self.clock.wait_for(self.backups.stopService())

    def begin(self, path: Any = None) -> BackupStatus:
        return self.clock.wait_for(self.backups.begin(str(self.copy if path is None else path)))

    def ended(self) -> BackupStatus:
        """The status when the copy has ended; another job of the thread comes behind it."""
        while self.backups.status().state is BackupState.RUNNING:
            self.clock.wait_for(self.backups._lane.submit(lambda: None))
        return self.backups.status()

    def nodes_in(self, path: Path) -> int:
        connection = sqlite3.connect(path)
        try:
            (number,) = connection.execute(COUNT_NODES).fetchone()
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        finally:
            connection.close()
        return int(number)

    def left(self) -> set[str]:
        """The files that a copy has left, whole or not."""
        return {path.name for path in self.path.parent.iterdir() if path.name.startswith("copy")}


class BackupTests(BackupTestCase):
    def test_nothing_was_begun(self) -> None:
        self.assertEqual(self.backups.status(), BackupStatus())

    def test_the_copy_is_a_database_like_any_other(self) -> None:
        self.execute(self.database, add_node("a"))
        self.clock.advance(7)
        begun = self.begin()
        self.assertEqual((begun.state, begun.path, begun.began_at), (BackupState.RUNNING, str(self.copy), 7))
        done = self.ended()
        self.assertEqual((done.state, done.problem, done.bytes), (BackupState.DONE, None, self.copy.stat().st_size))
        self.assertEqual(done.pages_done, done.pages)
        self.assertGreater(done.pages, 0)
        self.assertEqual(self.nodes_in(self.copy), 1)
        self.assertEqual(stat.S_IMODE(self.copy.stat().st_mode), 0o600)
        self.close_database(self.database)
        self.path = self.copy
        self.database = self.open_database()
        self.assertEqual(self.execute(self.database, COUNT_NODES), [(1,)])

    def test_it_is_of_one_moment_whatever_is_written_meanwhile(self) -> None:
        for _ in range(300):
            self.execute(self.database, "INSERT INTO numbers (name, value) VALUES (hex(randomblob(8000)), 1)")
        self.execute(self.database, add_node("before"))
        resting, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def rest(_seconds: float) -> None:
            resting.set()
            go_on.wait(PATIENCE_SECONDS)

        self.backups._rest = rest
        self.begin()
        self.assertTrue(resting.wait(PATIENCE_SECONDS))
        status = self.backups.status()
        self.assertGreater(status.pages, status.pages_done)
        self.execute(self.database, "DELETE FROM numbers")
        self.execute(self.database, add_node("meanwhile"))
        go_on.set()
        self.assertEqual(self.ended().state, BackupState.DONE)
        self.assertEqual(self.nodes_in(self.copy), 1)
        connection = sqlite3.connect(self.copy)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("SELECT count(*) FROM numbers").fetchone(), (300,))

    def test_a_second_one_after_the_first(self) -> None:
        self.begin()
        with self.assertRaisesRegex(StoreBusyError, "is being made"):
            self.begin(self.path.parent / "copy2.db")
        self.ended()
        self.begin(self.path.parent / "copy2.db")
        self.assertEqual(self.ended().state, BackupState.DONE)
        self.assertEqual(self.left(), {"copy.db", "copy2.db"})

    def test_paths_that_are_refused(self) -> None:
        self.copy.write_text("precious")
        folder = self.path.parent
        for path, message in (
            ("", "whole path"),
            ("copy.db", "whole path"),
            ("/" + "x" * 2000, "whole path"),
            ("/a\0b", "whole path"),
            (folder / "nowhere" / "copy.db", "no folder"),
            (self.copy, "exists"),
            (folder, "exists"),
            (self.path, "exists"),
            (folder / ("x" * 300), "choose a folder that dapi itself may write"),
            *((f"{self.path}{suffix}", "belongs") for suffix in ("-journal", ".new", "-wal", ".lock")),
        ):
            with self.assertRaisesRegex(ConfigError, message):
                self.begin(path)
            self.assertEqual(self.backups.status(), BackupStatus())
        self.assertEqual(self.copy.read_text(), "precious")

    def test_a_link_to_nowhere_is_not_followed(self) -> None:
        os.symlink(self.path.parent / "elsewhere", self.copy)
        with self.assertRaisesRegex(ConfigError, "exists"):
            self.begin()
        self.assertFalse((self.path.parent / "elsewhere").exists())

    def test_no_room(self) -> None:
        self.free = 64 * MIB
        with self.assertRaisesRegex(StoreBusyError, "64 MiB are free"):
            self.begin()
        self.assertEqual((self.left(), self.backups.status()), (set(), BackupStatus()))

    def test_a_failure_leaves_nothing_and_the_next_may_work(self) -> None:
        folder = self.copy.with_name("copy.db.partial")
        # Its place is taken by what cannot be deleted.
        folder.mkdir()
        (folder / "in the way").touch()
        with captured_log() as log:
            self.begin()
            failed = self.ended()
        self.assertEqual(failed.state, BackupState.FAILED)
        self.assertIn("directory", str(failed.problem))
        self.assertEqual(len(log.warnings("not copied")), 1)
        self.assertFalse(self.copy.exists())
        (folder / "in the way").unlink()
        folder.rmdir()
        self.begin()
        self.assertEqual(self.ended().state, BackupState.DONE)

    def test_a_stop_gives_it_up(self) -> None:
        self.backups._is_stopping = True
        self.begin()
        failed = self.ended()
        self.assertEqual((failed.state, failed.problem), (BackupState.FAILED, "dapi was stopped"))
        self.assertEqual(self.left(), set())
        self.stop()
        with self.assertRaises(NotReadyError):
            self.begin()
        self.backups.startService()
        self.begin()
        self.assertEqual(self.ended().state, BackupState.DONE)

    def test_each_state_is_left_only_as_drawn(self) -> None:
        for before in BackupState:
            for after in BackupState:
                self.backups._status = BackupStatus(before)
                if after in TRANSITIONS[before]:
                    self.backups._turn(BackupStatus(after))
                    self.assertEqual(self.backups.status().state, after)
                else:
                    self.assertRaises(RuntimeError, self.backups._turn, BackupStatus(after))
        self.backups._status = BackupStatus()
