"""The latest small bodies are handed on from memory, within a bound; all others from their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.database.lane import Lane
from dapi.http.raw_client import BytesSource
from dapi.messages.sizes import MIB
from dapi.relay.bodies import FileSource, IncomingBody
from dapi.relay.payload import Payload
from dapi.relay.scan import Facts, Target
from dapi.relay.store import RelayStore


def payload_of(name: str) -> Payload:
    return Payload(1, name, b"/", (), 1, 0.0, Target("m", "generated"), Facts())


class RecentTests(SynchronousTestCase):
    def setUp(self) -> None:
        nothing: Any = None
        self.store = RelayStore(Clock(), nothing, "folder")

    def test_once_from_memory_then_from_the_file(self) -> None:
        self.store._remember("a", bytearray(b"body"))
        source = self.store.source(payload_of("a"))
        self.assertIsInstance(source, BytesSource)
        self.assertEqual(self.successResultOf(source.read(0, 10)), b"body")
        self.assertIsInstance(self.store.source(payload_of("a")), FileSource)
        self.assertEqual(self.store._recent_bytes, 0)

    def test_beyond_the_bound_the_oldest_are_in_their_files_alone(self) -> None:
        for number in range(40):
            self.store._remember(str(number), bytearray(MIB))
        self.assertEqual(self.store._recent_bytes, 32 * MIB)
        kinds = [type(self.store.source(payload_of(str(number)))) for number in range(40)]
        self.assertEqual(kinds, [FileSource] * 8 + [BytesSource] * 32)

    def test_what_is_dropped_is_not_in_memory_any_more(self) -> None:
        self.store._remember("a", bytearray(b"body"))
        dropping = Deferred.fromCoroutine(self.store.drop_bodies(["a", "b"]))
        self.assertNoResult(dropping)
        self.assertIsInstance(self.store.source(payload_of("a")), FileSource)
        self.assertEqual(self.store._recent_bytes, 0)

    def test_a_small_body_leaves_memory_whole_and_a_large_one_in_its_file_alone(self) -> None:
        # Nothing is written: the lane has no thread.
        lane = Lane(Clock(), "writer")
        for length, left in ((MIB, b"x" * MIB), (MIB + 1, None), (0, None)):
            body = IncomingBody(lane, Path("file"), b"/", length, pause=lambda: None, resume=lambda: None)
            for begin in range(0, length, 300_000):
                body.write(b"x" * min(300_000, length - begin))
            body.finish()
            self.assertEqual(body.leave_memory(), left)
            self.assertIsNone(body.leave_memory())
