"""A body of any size is on disk byte for byte, is named by its hash, and says the same."""

from __future__ import annotations

import errno
import hashlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.sizes import MIB
from dapi.relay.bodies import FileSource, LargeBody, SmallBody, scan_part, scan_small, write_together
from dapi.relay.facts import Facts
from dapi.relay.payload import Place
from dapi.simulator.vllm.sender import generated_body

TARGET = b"/v2/poc-batches/m/generated"


def content_of(count: int) -> bytes:
    """Return a body of so many artifacts."""
    return generated_body(1_728_000, 1, list(range(1, 1 + 3 * count, 3)))


def digest_of(content: bytes) -> bytes:
    return hashlib.sha256(TARGET + b"\0" + content).digest()


class PromptLane:
    """Does at once what a thread would do."""

    def submit(self, function: Callable[[], Any]) -> Deferred[Any]:
        return execute(function)


class PatientLane:
    """Does nothing yet."""

    def submit(self, _function: Callable[[], Any]) -> Deferred[Any]:
        return Deferred()


class BodyTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "some.body"

    def note_syncs(self) -> list[int]:
        """Return a list to which each sync adds the size of its file."""
        synced: list[int] = []
        self.patch(os, "fdatasync", lambda file: synced.append(os.fstat(file).st_size))
        return synced


class LargeTests(BodyTestCase):
    def body(self, content: bytes, lane: Any = None) -> LargeBody:
        """Return a body that has come in pieces."""
        prompt: Any = PromptLane()
        body = LargeBody(lane or prompt, self.path, TARGET, pause=lambda: None, resume=lambda: None)
        for begin in range(0, len(content), 100_000):
            body.write(content[begin : begin + 100_000])
        return body

    def test_any_size(self) -> None:
        for count in (1, 8_000, 20_000):
            content = content_of(count)
            body = self.body(content)
            facts = self.successResultOf(body.finish())
            self.assertEqual((facts.height, facts.node_num, len(facts.nonces)), (1_728_000, 1, count))
            self.assertEqual(body.place, Place("some.body", 0))
            self.assertEqual(self.path.read_bytes(), content)
            self.assertEqual(body.digest, digest_of(content))
            self.assertEqual(self.successResultOf(body.read(7, 50)), content[7:57])
            self.path.unlink()

    def test_what_cannot_be_read_is_kept_all_the_same(self) -> None:
        content = b"[" * 2 * MIB
        self.assertEqual(self.successResultOf(self.body(content).finish()), Facts())
        self.assertEqual(self.path.read_bytes(), content)

    def test_a_file_that_cannot_be_made_leaves_the_body_in_memory(self) -> None:
        self.path.mkdir()
        body = self.body(b"x" * 700_000)
        failure = self.failureResultOf(body.finish(), OSError)
        self.assertEqual(failure.value.errno, errno.EEXIST)
        self.assertTrue(body.in_memory)
        self.assertEqual(len(self.successResultOf(body.read(0, 700_001))), 700_000)

    def test_it_can_be_read_whole_before_it_is_finished(self) -> None:
        # Of 2 MB the last 0.1 MB are no piece yet.
        content = content_of(30_000)
        for lane in (PromptLane(), PatientLane()):
            body, read = self.body(content, lane), b""
            while piece := self.successResultOf(body.read(len(read), MIB)):
                read += piece
            self.assertEqual(read, content)

    def test_reading_one_that_is_in_memory_copies_no_more_than_is_read(self) -> None:
        """The disk is full, and a node brings all that has waited for a minute: everybody waits for each copy."""
        self.path.mkdir()
        body = self.body(content := bytes(range(256)) * 4096 * 16)
        self.assertTrue(body.in_memory)
        for offset, size in ((0, 5), (262_139, 20), (262_144, 300_000), (len(content) - 3, 9), (len(content), 9)):
            self.assertEqual(self.successResultOf(body.read(offset, size)), content[offset : offset + size])
        tracemalloc.start()
        try:
            self.successResultOf(body.read(8 * MIB, 1000))
            self.assertLess(tracemalloc.get_traced_memory()[1], MIB)
        finally:
            tracemalloc.stop()

    def test_it_is_synced_before_it_is_finished(self) -> None:
        for size in (300_000, 2 * MIB, 9 * MIB):
            synced = self.note_syncs()
            self.successResultOf(self.body(b"x" * size).finish())
            self.assertEqual(synced[-1], size)
            self.path.unlink()


class SmallTests(BodyTestCase):
    def bodies(self, *contents: bytes) -> list[SmallBody]:
        """Return bodies that have come in pieces."""
        bodies = []
        for content in contents:
            body = SmallBody(TARGET)
            for begin in range(0, len(content), 100_000):
                body.write(content[begin : begin + 100_000])
            bodies.append(body)
        return bodies

    def test_those_in_a_file_are_found_again(self) -> None:
        contents = [content_of(count) for count in (0, 1, 5_000, 8_000)] + [b"null", b"\x00" * 500_000]
        bodies = self.bodies(*contents)
        write_together(self.path, bodies)
        lane: Any = PromptLane()
        for content, body in zip(contents, bodies, strict=True):
            self.assertEqual(body.digest, digest_of(content))
            source = FileSource(lane, self.folder / body.place.name, body.place.offset, body.length)
            self.assertEqual(self.successResultOf(source.read(0, 2 * MIB)), content)
            self.assertEqual(self.successResultOf(source.read(3, 5)), content[3:8])
            facts = scan_part(self.path, body.place.offset, body.length)
            self.assertEqual(facts, scan_small(body.content))
        self.assertEqual([len(scan_small(body.content).nonces) for body in bodies], [0, 1, 5_000, 8_000, 0, 0])

    def test_a_large_part_of_a_file_is_read_to_its_end_and_no_further(self) -> None:
        first, second = content_of(20_000), content_of(1)
        self.path.write_bytes(first + second)
        self.assertEqual(len(scan_part(self.path, 0, len(first)).nonces), 20_000)
        self.assertEqual(len(scan_part(self.path, len(first), len(second)).nonces), 1)

    def test_no_two_begin_at_the_same_place(self) -> None:
        bodies = self.bodies(b"", b"", b"a", b"", b"b")
        write_together(self.path, bodies)
        self.assertEqual(len({body.place for body in bodies}), 5)
        self.assertEqual(self.path.read_bytes()[bodies[4].place.offset :], b"b")

    def test_one_sync_for_all(self) -> None:
        synced = self.note_syncs()
        write_together(self.path, self.bodies(b"x" * 300_000, b"y" * 300_000))
        self.assertEqual(synced, [600_000])

    def test_a_disk_that_fails_leaves_no_file(self) -> None:
        def fail(_file: int) -> None:
            raise OSError(errno.ENOSPC, "full")

        self.patch(os, "fdatasync", fail)
        self.assertRaises(OSError, write_together, self.path, self.bodies(b"a"))
        self.assertFalse(self.path.exists())

    def test_a_file_that_is_there_is_left_alone(self) -> None:
        self.path.write_bytes(b"another one")
        self.assertRaises(FileExistsError, write_together, self.path, self.bodies(b"a"))
        self.assertEqual(self.path.read_bytes(), b"another one")
