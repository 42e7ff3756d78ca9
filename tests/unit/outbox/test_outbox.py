"""The outbox takes batches in: nothing is acknowledged that is not on disk, and nothing is kept twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import LogLevel

from dapi.errors import StoreBrokenError, StoreBusyError, StoreClosedError
from dapi.messages import Receipt, Via
from dapi.messages.sizes import MIB
from dapi.outbox import outbox
from tests.logs import log_of
from tests.unit.database.store_tools import Obstacle
from tests.unit.outbox.outbox_case import PROPERTY, SHARED, OutboxTestCase, entry


class PutTests(OutboxTestCase):
    def test_what_is_kept(self) -> None:
        self.clock.advance(1000.5)
        receipt = self.put("a", node_id="node7", height=77, nonces=3, via=Via.HTTP, message=b"\x00\xff")
        self.assertEqual(receipt, Receipt("a", 1))
        self.assertEqual(
            self.look(f"SELECT state, message, {SHARED} FROM unfinished"),
            [("stored", b"\x00\xff", "a", "generated", "node7", "http", 77, 3, 1, 1000.5, 1000.5, 0, None)],
        )

    def test_fires_only_after_the_commit(self) -> None:
        obstacle = Obstacle(self.database)
        seen_on_disk: list[Any] = []
        put = self.outbox.put(entry())

        def look(receipt: Receipt) -> Receipt:
            seen_on_disk.append(self.look("SELECT batch_id FROM unfinished"))
            return receipt

        put.addCallback(look)
        self.clock.turn()
        self.assertNoResult(put)
        self.assertEqual(self.look("SELECT batch_id FROM unfinished"), [])
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
            self.failureResultOf(put, StoreClosedError)
        self.assertEqual(self.outbox.status()["pending"], 0)
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
        self.execute(self.database, "DELETE FROM unfinished")
        self.restart()
        self.put("c")
        self.assertEqual(self.look("SELECT seq FROM unfinished"), [(3,)])


class GroupTests(OutboxTestCase):
    def test_one_turn_is_one_statement(self) -> None:
        statements = self.traced()
        puts = [self.outbox.put(entry(str(number))) for number in range(300)]
        for put in puts:
            self.assertEqual(self.clock.wait_for(put).seen, 1)
        self.assertEqual(statements, ["INSERT"])
        self.assertEqual(self.look("SELECT count(*) FROM unfinished"), [(300,)])

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
        # 512 a statement.
        self.assertEqual(statements, ["BEGIN ", "INSERT", "INSERT", "COMMIT", "INSERT"])
        self.assertEqual(self.look("SELECT count(*) FROM unfinished"), [(1025,)])

    def test_bytes_of_a_commit_are_bounded_but_for_one_large_message(self) -> None:
        statements = self.traced()
        large, small = bytes(9 * 1024 * 1024), bytes(3 * 1024 * 1024)
        puts = [self.outbox.put(entry(str(number), message)) for number, message in enumerate([large, *[small] * 3])]
        for put in puts:
            self.clock.wait_for(put)
        self.assertEqual(len(statements), 3)

    def test_a_commit_has_8_mib_at_most_and_not_one_byte_less(self) -> None:
        for too_much, expected in ((0, 1), (1, 2)):
            statements = self.traced()
            # Each delivery counts 1 KiB more than its message.
            messages = [bytes(4 * MIB - 1024), bytes(4 * MIB - 1024 + too_much)]
            puts = [self.outbox.put(entry(f"{too_much}{number}", each)) for number, each in enumerate(messages)]
            for put in puts:
                self.clock.wait_for(put)
            self.assertEqual(statements, ["INSERT"] * expected)

    def test_bytes_that_wait_are_bounded(self) -> None:
        self.outbox = self.make_outbox(max_pending_bytes=5000)
        obstacle = Obstacle(self.database)
        puts = [self.outbox.put(entry("a", bytes(1000)))]
        self.clock.turn()
        puts.append(self.outbox.put(entry("b", bytes(1952))))
        refused = self.failureResultOf(self.outbox.put(entry("c", b"")), StoreBusyError)
        self.assertEqual(str(refused.value), "5000 bytes wait for the disk already")
        # Each delivery counts 1 KiB more than its message. The first one is being written.
        self.assertEqual(
            {name: value for name, value in self.outbox.status().items() if name != "database"},
            {"pending": 1, "pending_bytes": 1000 + 1952 + 2 * 1024, "max_pending_bytes": 5000},
        )
        obstacle.remove()
        for put in puts:
            self.clock.wait_for(put)
        self.assertEqual(self.outbox.status()["pending_bytes"], 0)
        self.assertEqual(self.put("c", message=bytes(500)), Receipt("c", 1))

    def test_a_message_larger_than_all_that_may_wait_is_taken_alone(self) -> None:
        self.outbox = self.make_outbox(max_pending_bytes=5000)
        large = self.outbox.put(entry("large", bytes(6000)))
        self.failureResultOf(self.outbox.put(entry("small")), StoreBusyError)
        self.assertEqual(self.clock.wait_for(large), Receipt("large", 1))


class StopTests(OutboxTestCase):
    """When a stop is near, no group waits for the one before."""

    def setUp(self) -> None:
        super().setUp()
        self.obstacle = Obstacle(self.database)
        self.puts = [self.outbox.put(entry("first"))]
        self.clock.turn()
        self.puts += [self.outbox.put(entry(str(number))) for number in range(1200)]
        self.puts.append(self.outbox.put(entry("first")))

    def test_all_that_is_pending_goes_to_the_database_at_once(self) -> None:
        self.outbox.commit_at_once()
        self.assertEqual(self.outbox.status()["pending"], 0)
        # What comes after it does not wait either.
        self.puts.append(self.outbox.put(entry("last")))
        self.clock.turn()
        self.assertEqual(self.outbox.status()["pending"], 0)
        self.obstacle.remove()
        seen = [self.clock.wait_for(put).seen for put in self.puts]
        self.assertEqual(seen, [1] * 1201 + [2, 1])
        self.assertEqual(self.look("SELECT count(*), sum(seen) FROM unfinished"), [(1202, 1203)])
        self.assertEqual(self.outbox.status()["pending_bytes"], 0)

    def test_a_group_that_fails_leaves_the_others_alone(self) -> None:
        self.outbox.commit_at_once()
        self.puts.append(self.outbox.put(entry("too high", height=2**63)))
        self.clock.turn()
        self.puts.append(self.outbox.put(entry("last")))
        self.clock.turn()
        self.obstacle.remove()
        with self.assertRaises(OverflowError):
            self.clock.wait_for(self.puts.pop(-2))
        for put in self.puts:
            self.clock.wait_for(put)
        self.assertEqual(self.outbox.status()["pending_bytes"], 0)


class DuplicateTests(OutboxTestCase):
    def test_of_what_waits(self) -> None:
        self.put("a", via=Via.WEBSOCKET)
        self.clock.advance(7)
        self.assertEqual(self.put("a", via=Via.HTTP), Receipt("a", 2))
        self.assertEqual(self.put("a"), Receipt("a", 3))
        self.assertEqual(
            self.look("SELECT via, seen, received_at, last_seen_at FROM unfinished"), [("websocket", 3, 0.0, 7.0)]
        )

    def test_of_what_is_finished(self) -> None:
        self.put("a")
        self.finish("a")
        self.clock.advance(7)
        self.assertEqual(self.put("a"), Receipt("a", 2))
        self.assertEqual(self.look("SELECT * FROM unfinished"), [])
        self.assertEqual(self.look("SELECT seen, last_seen_at FROM finished"), [(2, 7.0)])

    def test_within_one_commit(self) -> None:
        puts = [self.outbox.put(entry(batch_id)) for batch_id in "abaab"]
        self.assertEqual([self.clock.wait_for(put).seen for put in puts], [1, 1, 2, 3, 2])
        self.assertEqual(self.look("SELECT batch_id, seen FROM unfinished ORDER BY seq"), [("a", 3), ("b", 2)])

    def test_within_a_commit_of_two_statements(self) -> None:
        for batch_id in ("0", "600"):
            self.put(batch_id)
        self.assertEqual(self.counts(), {"stored": 2})
        puts = [self.outbox.put(entry(str(number))) for number in range(1024)]
        seen = [self.clock.wait_for(put).seen for put in puts]
        self.assertEqual([number for number, times in enumerate(seen) if times != 1], [0, 600])
        self.assertEqual(self.counts(), {"stored": 1024})
        self.assertEqual(self.look("SELECT count(*), sum(seen) FROM unfinished"), [(1024, 1026)])

    def test_all_kinds_within_one_commit(self) -> None:
        self.put("finished")
        self.put("waiting")
        self.finish("finished")
        self.assertEqual(self.counts(), {"stored": 1, "confirmed": 1})
        statements = self.traced()
        names = ("new", "finished", "waiting", "finished", "other", "new")
        puts = [self.outbox.put(entry(name)) for name in names]
        self.assertEqual([self.clock.wait_for(put).seen for put in puts], [1, 2, 2, 3, 1, 2])
        self.assertEqual(statements, ["INSERT", "BEGIN ", "UPDATE", "UPDATE", "INSERT", "COMMIT"])
        self.assertEqual(
            self.look("SELECT batch_id, seen FROM unfinished ORDER BY seq"), [("waiting", 2), ("new", 2), ("other", 1)]
        )
        self.assertEqual(self.look("SELECT batch_id, seen FROM finished"), [("finished", 3)])
        self.assertEqual(self.counts(), {"stored": 3, "confirmed": 1})

    @PROPERTY
    @given(st.lists(st.tuples(st.sampled_from(["put", "put", "put", "finish", "turn"]), st.sampled_from("abcd"))))
    def test_one_row_a_batch_and_every_delivery_counted(self, steps: list[tuple[str, str]]) -> None:
        self.execute(self.database, "DELETE FROM unfinished")
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
        kept = self.look("SELECT batch_id, seen FROM unfinished UNION ALL SELECT batch_id, seen FROM finished")
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

        broke: Deferred[Any] = self.database.write(fail)
        puts: list[Deferred[Any]] = [self.outbox.put(entry(batch_id)) for batch_id in "bcbd"]
        for refused in (broke, *puts):
            with self.assertRaises(StoreBrokenError):
                self.clock.wait_for(refused)
        self.assertEqual(len(self.broken), 1)
        self.assertEqual(self.look("SELECT batch_id FROM unfinished"), [("a",)])

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
        self.assertEqual(self.outbox.status()["pending_bytes"], 0)
        other.execute("ROLLBACK")
        self.assertEqual(self.put("b"), Receipt("b", 1))

    def test_a_mistake_of_our_own_is_logged(self) -> None:
        log = log_of(self)
        self.patch(self.database, "write", lambda function, *, intake: succeed("no result of the writer"))
        self.outbox.put(entry("a"))
        self.clock.turn()
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(log.lines(LogLevel.critical), ["the outbox failed, which it never should"])


class LargeTests(OutboxTestCase):
    """After a commit that is larger than others, what came meanwhile goes first, and then the log into the file."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(outbox, "_MAX_BYTES", MIB)
        self.written: list[str] = []
        for name in ("_store", "_store_large", "_copy_log"):
            self.patch(outbox, name, self.watch(name, getattr(outbox, name)))

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            self.written.append(name)
            return function(*args)

        return watched

    def auto_checkpoint(self) -> int:
        found = self.database.write(lambda connection: connection.execute("PRAGMA wal_autocheckpoint").fetchone())
        return int(self.clock.wait_for(found)[0])

    def test_what_came_meanwhile_goes_before_the_log_is_copied(self) -> None:
        self.put("before")
        obstacle = Obstacle(self.database)
        large = self.outbox.put(entry("large", message=bytes(2 * MIB)))
        self.clock.turn()
        small = self.outbox.put(entry("small"))
        self.written.clear()
        obstacle.remove()
        for each in (large, small):
            self.clock.wait_for(each)
        self.assertEqual(self.auto_checkpoint(), 256)
        self.assertEqual(self.written, ["_store_large", "_store", "_store", "_copy_log"])
        self.assertEqual(self.ids(), ["small", "large", "before"])

    def test_the_log_is_in_the_file_afterwards(self) -> None:
        self.put("large", message=bytes(2 * MIB))
        self.assertEqual(self.auto_checkpoint(), 256)
        # Nothing of the log is left to be copied: of as many pages all are in the file.
        found = self.database.write(lambda connection: connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())
        busy, in_log, copied = self.clock.wait_for(found)
        self.assertEqual((busy, in_log), (0, copied))
        self.assertGreater(self.database._path.stat().st_size, 2 * MIB)

    def test_a_large_one_that_is_not_stored_changes_nothing(self) -> None:
        def fail(*_: object) -> None:
            raise sqlite3.OperationalError("no")

        self.patch(outbox, "_store_rows", fail)
        refused = self.outbox.put(entry("large", message=bytes(2 * MIB)))
        self.assertRaises(sqlite3.OperationalError, self.clock.wait_for, refused)
        self.assertEqual(self.auto_checkpoint(), 256)
        self.assertEqual(self.written, ["_store_large", "_store"])
