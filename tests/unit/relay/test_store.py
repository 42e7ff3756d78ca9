"""What is kept at the same time shares a file, which stays for as long as any body in it is needed."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from dapi.database.schema import SCHEMA_VERSIONS
from dapi.errors import StoreBusyError, StoreError
from dapi.relay import rows
from dapi.relay import store as store_module
from dapi.relay.bodies import Body, SmallBody
from dapi.relay.book import Book
from dapi.relay.facts import Target
from dapi.relay.payload import Payload, PayloadState, Place
from dapi.relay.rows import NewRow
from dapi.relay.store import RelayStore
from dapi.simulator.vllm.sender import generated_body
from tests.unit.database.store_tools import Obstacle, StoreTestCase

TARGET = b"/v2/poc-batches/m/generated"


def content_of(number: int, count: int = 1) -> bytes:
    """Return a body of some artifacts, that is like no other."""
    return generated_body(100, 1, list(range(number, number + 7 * count, 7)))


def fail_with(error: Exception) -> Callable[..., Any]:
    """Return a function that raises."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


class RelayStoreTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.folder = self.path.parent / "bodies"
        self.store = self.open_store()

    def open_store(self) -> RelayStore:
        store = RelayStore(self.clock, self.database, str(self.folder), now=self.clock.seconds)
        store.startService()
        self.addCleanup(lambda: self.clock.wait_for(store.stopService()) if store.running else None)
        return store

    def start_again(self) -> list[Payload]:
        """Have the store begin anew, some seconds later; return what it has kept."""
        self.clock.wait_for(self.store.stopService())
        self.clock.advance(5)
        self.store = self.open_store()
        return self.clock.wait_for(Deferred.fromCoroutine(self.store.load()))

    def keep(self, content: bytes, *, is_alone: bool = False) -> Deferred[Payload | None]:
        """Keep a callback with such a body."""
        body: Body = self.store.open_body(TARGET, len(content), pause=lambda: None, resume=lambda: None)
        body.write(content)

        async def keep() -> Payload | None:
            facts = await self.store.read(body)
            row = NewRow(body, (), self.clock.seconds(), "peer", Target("m", "generated"), facts)
            try:
                return await self.store.keep(row, is_alone=is_alone)
            except StoreError:
                body.discard()
                raise

        return Deferred.fromCoroutine(keep())

    def keep_together(self, *contents: bytes) -> list[Payload]:
        """Keep callbacks that come while another one is brought to the disk, which is the first of the payloads."""
        obstacle = Obstacle(self.database)
        obstacle.reached.wait(10)
        first = self.keep(content_of(1_000_000 + len(self.files())))
        others = [self.keep(content) for content in contents]
        obstacle.remove()
        kept = self.clock.wait_for(gatherResults([first, *others]))
        return [payload for payload in kept if payload is not None]

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.body"))

    def bytes_of(self, payload: Payload) -> bytes:
        return self.clock.wait_for(self.store.source(payload).read(0, 2**20))

    def drop(self, *payloads: Payload) -> None:
        self.clock.wait_for(Deferred.fromCoroutine(self.store.drop_bodies(payload.place for payload in payloads)))

    def finish(self, *payloads: Payload) -> None:
        ended = [(payload, PayloadState.SETTLED, None) for payload in payloads]
        self.clock.wait_for(Deferred.fromCoroutine(self.store.finish(ended)))

    def test_what_waits_shares_a_file(self) -> None:
        contents = [content_of(number, 1 + number) for number in range(5)]
        first, *others = self.keep_together(*contents)
        self.assertEqual({payload.place.name for payload in others}, {others[0].place.name})
        self.assertNotEqual(first.place.name, others[0].place.name)
        self.assertEqual(len(self.files()), 2)
        # From memory, and then from the file.
        for _ in range(2):
            self.assertEqual([self.bytes_of(payload) for payload in others], contents)
        self.assertEqual(self.store.bytes, sum(path.stat().st_size for path in self.files()))

    def test_a_folder_that_is_made_is_on_the_disk(self) -> None:
        synced: list[int] = []
        self.patch(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
        self.clock.wait_for(self.store.stopService())
        self.folder.rmdir()
        self.store = self.open_store()
        self.assertEqual(synced, [self.folder.parent.stat().st_ino])
        self.clock.wait_for(self.keep(content_of(1)))
        self.assertEqual(synced[1:], [self.folder.stat().st_ino])

    def test_a_file_stays_until_its_last_body_is_dropped(self) -> None:
        first, *others = self.keep_together(content_of(1), content_of(2), content_of(3))
        self.drop(first, others[1])
        # Dropped once more, it is still one.
        self.drop(others[1])
        self.drop(others[0])
        self.assertEqual(len(self.files()), 1)
        self.assertEqual(self.bytes_of(others[2]), content_of(3))
        self.assertEqual(self.store.bytes, self.files()[0].stat().st_size)
        self.drop(others[2])
        self.assertEqual((self.files(), self.store.bytes), ([], 0))

    def test_what_may_stay_for_long_is_alone(self) -> None:
        obstacle = Obstacle(self.database)
        obstacle.reached.wait(10)
        keeping = [self.keep(content_of(number), is_alone=number in (2, 3)) for number in range(6)]
        obstacle.remove()
        payloads = [payload for payload in self.clock.wait_for(gatherResults(keeping)) if payload is not None]
        names = [payload.place.name for payload in payloads]
        self.assertEqual([names.count(name) for name in names], [1, 3, 1, 1, 3, 3])

    def test_a_file_has_a_bound(self) -> None:
        self.patch(store_module, "_TOGETHER_BYTES", 1000)
        _, *others = self.keep_together(*(content_of(number, 8) for number in range(6)))
        self.assertGreater(len({payload.place.name for payload in others}), 1)
        for path in self.files():
            self.assertLess(path.stat().st_size, 1000 + others[0].size)

    def test_the_same_body_again_leaves_no_file(self) -> None:
        first = self.clock.wait_for(self.keep(content_of(1)))
        self.assertIsNone(self.clock.wait_for(self.keep(content_of(1))))
        self.clock.wait_for(self.store._janitor.submit(lambda: None))
        self.assertEqual([path.name for path in self.files()], [first.place.name if first is not None else ""])

    def test_the_same_body_twice_at_once_is_one(self) -> None:
        payloads = self.keep_together(content_of(1), content_of(1), content_of(2))
        self.assertEqual([self.bytes_of(payload) for payload in payloads[1:]], [content_of(1), content_of(2)])

    def test_a_large_one_is_in_its_own_file(self) -> None:
        large = content_of(1, 20_000)
        small, payload, other = self.keep_together(large, content_of(2))
        self.assertEqual(payload.place.offset, 0)
        self.assertEqual((self.folder / payload.place.name).read_bytes(), large)
        self.assertNotIn(payload.place.name, (small.place.name, other.place.name))
        self.drop(payload)
        self.assertFalse((self.folder / payload.place.name).exists())

    def test_a_disk_that_fails_keeps_none_of_them_and_leaves_no_file(self) -> None:
        self.patch(os, "fdatasync", fail_with(OSError(28, "full")))
        keeping = [self.keep(content_of(number)) for number in range(3)]
        for each in keeping:
            with self.assertRaisesRegex(StoreBusyError, "full"):
                self.clock.wait_for(each)
        self.assertEqual((self.files(), self.store.bytes), ([], 0))
        self.assertEqual(self.look("SELECT count(*) FROM relay"), [(0,)])

    def test_a_database_that_fails_leaves_no_file(self) -> None:
        self.patch(self.database, "write", fail_with(StoreBusyError("no room")))
        for content in (content_of(1), content_of(1, 20_000)):
            with self.assertRaisesRegex(StoreBusyError, "no room"):
                self.clock.wait_for(self.keep(content))
        for lane in self.store._lanes():
            self.clock.wait_for(lane.submit(lambda: None))
        self.assertEqual((self.files(), self.store.bytes), ([], 0))

    def test_after_a_start_they_are_where_they_were(self) -> None:
        contents = [content_of(number, 3) for number in range(4)]
        _, *others = self.keep_together(*contents)
        size = self.store.bytes
        loaded = self.start_again()
        again = [payload for payload in loaded if payload.place in {other.place for other in others}]
        self.assertEqual([self.bytes_of(payload) for payload in again], contents)
        self.assertEqual([payload.facts for payload in again], [payload.facts for payload in others])
        self.assertEqual(self.store.bytes, size)
        self.drop(*loaded[:-1])
        self.assertEqual(self.bytes_of(loaded[-1]), contents[-1])
        self.drop(loaded[-1])
        self.assertEqual((self.files(), self.store.bytes), ([], 0))

    def test_after_a_start_what_is_finished_keeps_no_file(self) -> None:
        """But what may go again, or is shown: what was settled in a stage, and the latest that were set aside."""
        states = [PayloadState.LATE, PayloadState.SETTLED, *[PayloadState.SET_ASIDE] * 25]
        first, late, settled, *aside = self.keep_together(*(content_of(number) for number in range(len(states))))
        ended = [(each, state, None) for each, state in zip((late, settled, *aside), states, strict=True)]
        self.clock.wait_for(Deferred.fromCoroutine(self.store.finish(ended)))
        loaded = self.start_again()
        book = Book(self.store)
        dropped: list[Place] = []
        drop_bodies = self.store.drop_bodies

        def drop(places: Iterable[Place]) -> Any:
            dropped.extend(each := list(places))
            return drop_bodies(each)

        self.patch(self.store, "drop_bodies", drop)
        for payload in loaded:
            if payload.state is not PayloadState.WAITING:
                book.restore(payload)
        self.clock.wait_for(Deferred.fromCoroutine(book.record()))
        self.assertEqual(dropped, [late.place, *(each.place for each in aside[:5])])
        self.assertEqual(len(book.set_aside), 20)
        self.drop(first, settled, *aside)
        self.assertEqual((self.files(), self.store.bytes), ([], 0))

    def test_a_file_that_is_too_short_has_lost_its_last_bodies_alone(self) -> None:
        _, *others = self.keep_together(content_of(1), content_of(2), content_of(3))
        path = self.folder / others[0].place.name
        os.truncate(path, others[2].place.offset + 5)
        loaded = {payload.seq: payload for payload in self.start_again()}
        self.assertEqual(self.bytes_of(loaded[others[1].seq]), content_of(2))
        self.assertNotIn(others[2].seq, loaded)

    def load(self) -> list[Payload]:
        return self.clock.wait_for(Deferred.fromCoroutine(self.store.load()))

    def test_a_folder_that_cannot_be_read_at_a_start_has_lost_nothing(self) -> None:
        payloads = self.keep_together(content_of(1), content_of(2))
        size = self.store.bytes
        patch = self.patch(os, "listdir", fail_with(OSError(13, "Permission denied")))
        with self.assertRaisesRegex(StoreBusyError, "Permission denied"):
            self.start_again()
        patch.restore()
        self.assertEqual([each.seq for each in self.load()], [each.seq for each in payloads])
        self.assertEqual(self.store.bytes, size)

    def test_a_database_that_fails_at_a_start_is_asked_again_and_nothing_counts_twice(self) -> None:
        first, *others = self.keep_together(content_of(1), content_of(2))
        size = self.store.bytes - first.size
        (self.folder / first.place.name).unlink()
        patch = self.patch(rows, "finish", fail_with(StoreBusyError("locked")))
        with self.assertRaisesRegex(StoreBusyError, "locked"):
            self.start_again()
        patch.restore()
        self.assertEqual([each.seq for each in self.load()], [each.seq for each in others])
        self.assertEqual(self.store.bytes, size)

    def test_a_body_that_cannot_be_read_at_a_start_is_not_lost(self) -> None:
        (payload,) = self.keep_together()
        self.patch(store_module, "scan_part", fail_with(OSError(5, "Input/output error")))
        (loaded,) = self.start_again()
        self.assertEqual((loaded.seq, loaded.state, loaded.has_body), (payload.seq, PayloadState.WAITING, True))
        self.assertEqual(loaded.facts.height, 100)

    def test_what_came_since_the_start_is_not_loaded_once_more(self) -> None:
        (before,) = self.keep_together()
        self.start_again()
        self.keep_together()
        self.assertEqual([each.seq for each in self.load()], [before.seq])

    def test_a_file_that_cannot_be_deleted_ends_nothing(self) -> None:
        payloads = self.keep_together(content_of(1), content_of(1, 20_000))
        self.patch(Path, "unlink", fail_with(OSError(30, "Read-only file system")))
        self.drop(*payloads)
        self.assertEqual((len(self.files()), self.store.bytes), (3, 0))
        for content in (content_of(1), content_of(1, 20_000)):
            self.assertIsNone(self.clock.wait_for(self.keep(content)))
        for lane in self.store._lanes():
            self.clock.wait_for(lane.submit(lambda: None))
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_defect_fails_what_waits_and_nothing_else(self) -> None:
        patch = self.patch(rows, "insert", fail_with(ZeroDivisionError()))
        with self.assertRaises(ZeroDivisionError):
            self.clock.wait_for(self.keep(content_of(1)))
        patch.restore()
        self.assertIsNotNone(self.clock.wait_for(self.keep(content_of(1))))

    def test_what_is_forgotten_leaves_the_disk(self) -> None:
        payloads = self.keep_together(content_of(1), content_of(2))
        self.finish(*payloads[:2])
        self.clock.wait_for(Deferred.fromCoroutine(self.store.forget_before(101, 0.0)))
        self.assertEqual([path.name for path in self.files()], [payloads[2].place.name])
        self.finish(payloads[2])
        self.clock.wait_for(Deferred.fromCoroutine(self.store.forget_before(101, 0.0)))
        self.assertEqual((self.files(), self.store.bytes), ([], 0))

    def test_those_of_a_version_before_begin_their_files(self) -> None:
        self.clock.wait_for(self.keep(content_of(1)))
        self.execute(self.database, "ALTER TABLE relay DROP COLUMN offset")
        self.execute(self.database, f"PRAGMA user_version = {len(SCHEMA_VERSIONS) - 1}")
        self.clock.wait_for(self.store.stopService())
        self.close_database(self.database)
        self.database = self.open_database()
        self.clock.advance(1)
        self.store = self.open_store()
        (payload,) = self.clock.wait_for(Deferred.fromCoroutine(self.store.load()))
        self.assertEqual(self.bytes_of(payload), content_of(1))

    def test_small_is_at_most_a_mebibyte(self) -> None:
        def opened(length: int) -> Body:
            return self.store.open_body(TARGET, length, pause=lambda: None, resume=lambda: None)

        self.assertIsInstance(opened(2**20), SmallBody)
        self.assertNotIsInstance(opened(2**20 + 1), SmallBody)

    def test_a_place_that_is_not_known_is_dropped_for_nothing(self) -> None:
        self.clock.wait_for(Deferred.fromCoroutine(self.store.drop_bodies([Place("of-nobody", 0)])))
        self.assertEqual(self.store.bytes, 0)
