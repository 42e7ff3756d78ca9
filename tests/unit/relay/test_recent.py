"""The latest small bodies are handed on from memory, within a bound; all others from their files."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.http.raw_client import BytesSource
from dapi.messages.sizes import MIB
from dapi.relay.bodies import FileSource
from dapi.relay.facts import Facts, Target
from dapi.relay.payload import Payload, Place
from dapi.relay.store import RelayStore

A, B = Place("file", 0), Place("file", 4)


def payload_at(place: Place) -> Payload:
    return Payload(1, place, b"/", (), 1, 0.0, Target("m", "generated"), Facts())


class RecentTests(SynchronousTestCase):
    def setUp(self) -> None:
        nothing: Any = None
        self.store = RelayStore(Clock(), nothing, "folder")

    def test_once_from_memory_then_from_the_file(self) -> None:
        self.store._remember(A, bytearray(b"body"))
        self.assertIsInstance(self.store.source(payload_at(B)), FileSource)
        source = self.store.source(payload_at(A))
        self.assertIsInstance(source, BytesSource)
        self.assertEqual(self.successResultOf(source.read(0, 10)), b"body")
        self.assertIsInstance(self.store.source(payload_at(A)), FileSource)
        self.assertEqual(self.store._recent_bytes, 0)

    def test_beyond_the_bound_the_oldest_are_in_their_files_alone(self) -> None:
        places = [Place("file", number) for number in range(40)]
        for place in places:
            self.store._remember(place, bytearray(MIB))
        self.assertEqual(self.store._recent_bytes, 32 * MIB)
        kinds = [type(self.store.source(payload_at(place))) for place in places]
        self.assertEqual(kinds, [FileSource] * 8 + [BytesSource] * 32)

    def test_what_is_dropped_is_not_in_memory_any_more(self) -> None:
        self.store._remember(A, bytearray(b"body"))
        dropping = Deferred.fromCoroutine(self.store.drop_bodies([A, B]))
        self.assertNoResult(dropping)
        self.assertIsInstance(self.store.source(payload_at(A)), FileSource)
        self.assertEqual(self.store._recent_bytes, 0)
