"""The answer with everybody's batches, read in pieces: the same as when it is decoded in one go."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import ChainUnavailableError
from dapi.phases import batch_reader
from dapi.phases.batch_reader import BatchReader, Event, OversizedBatch, Participant, StoredNonces
from dapi.simulator.chain.wire import bytes_field, message_field, packed_double_field, packed_int64_field, varint_field
from tests.chain_tools import Key
from tests.stage_answers import Stored, cut, decode_stage, encode_stage, stored

ONE, TWO = Key(1), Key(2)
NAMES = bytes_field(1, ONE.address) + bytes_field(3, ONE.public.hex())
BATCH = message_field(4, packed_int64_field(4, [1]) + packed_double_field(5, [0.5]))

names = st.text(st.characters(codec="ascii"), max_size=70)
batches = st.tuples(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6), st.lists(st.floats(allow_nan=False), max_size=6)
)
stages = st.lists(st.builds(Stored, names, names, st.lists(batches, max_size=4)), max_size=4)
places = st.lists(st.integers(0, 2**20), max_size=30)


def read(pieces: Iterable[bytes]) -> list[Event]:
    reader = BatchReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    reader.finish()
    return events


def grouped(events: Iterable[Event]) -> list[Stored]:
    """The events as ``decode_stage`` has them."""
    found: list[Stored] = []
    for event in events:
        assert not isinstance(event, OversizedBatch)
        if isinstance(event, Participant):
            found.append(Stored(event.address, event.public_key, []))
        else:
            found[-1].batches.append((list(event.nonces), list(event.dist)))
    return found


class ReadTests(SynchronousTestCase):
    """What the chain may answer, however it is cut."""

    @given(stages, places)
    def test_the_same_as_in_one_go(self, stage: list[Stored], at: list[int]) -> None:
        value = encode_stage(stage)
        self.assertEqual(grouped(read(cut(value, at))), decode_stage(value))

    def test_cut_at_each_byte_and_between_all(self) -> None:
        stage = [stored(ONE, ([1, 300], [0.5, 0.25]), ([2**62], [1.0])), stored(TWO)]
        value = encode_stage(stage)
        for place in range(len(value) + 1):
            self.assertEqual(grouped(read(cut(value, [place]))), stage)
        self.assertEqual(grouped(read(cut(value, range(len(value))))), stage)

    def test_nothing(self) -> None:
        self.assertEqual(read([]), [])
        self.assertEqual(read([b"", b""]), [])

    def test_a_batch_comes_when_its_last_byte_does(self) -> None:
        value = message_field(1, NAMES + BATCH + BATCH)
        reader = BatchReader()
        self.assertEqual(len(list(reader.feed(value[: -len(BATCH) - 1]))), 1)
        self.assertEqual(len(list(reader.feed(value[-len(BATCH) - 1 : -1]))), 1)
        self.assertEqual(len(list(reader.feed(value[-1:]))), 1)

    def test_lengths_that_differ_stay_as_they_are(self) -> None:
        stage = [stored(ONE, ([1, 2], [0.5]), ([], [0.5]))]
        self.assertEqual(grouped(read([encode_stage(stage)])), stage)

    def test_unknown_fields(self) -> None:
        more = varint_field(9, 2**63) + bytes_field(10, b"x" * 5000) + b"\x59" + bytes(8) + b"\x65" + bytes(4)
        value = more + message_field(1, NAMES + more + BATCH + more) + more
        expected = [stored(ONE, ([1], [0.5]))]
        self.assertEqual(grouped(read([value])), expected)
        self.assertEqual(grouped(read(cut(value, range(len(value))))), expected)
        numbers = varint_field(2, 5)
        self.assertEqual(grouped(read([message_field(1, NAMES + numbers + BATCH + numbers)])), expected)

    def test_names_that_are_too_long_or_no_text(self) -> None:
        value = message_field(1, bytes_field(1, b"\xff") + bytes_field(3, b"a" * 1025))
        self.assertEqual(read([value]), [Participant("\ufffd", "")])
        value = message_field(1, bytes_field(1, b"a" * 1024))
        self.assertEqual(read([value]), [Participant("a" * 1024, "")])

    def test_names_behind_the_batches_are_not_there(self) -> None:
        self.assertEqual(grouped(read([message_field(1, BATCH + NAMES)])), [Stored("", "", [([1], [0.5])])])

    def test_a_batch_that_is_too_large(self) -> None:
        self.patch(batch_reader, "MAX_BATCH_BYTES", 100)
        large = message_field(4, packed_double_field(5, [0.5] * 13))
        value = message_field(1, NAMES + BATCH + large + BATCH)
        for pieces in ([value], cut(value, range(len(value)))):
            events = read(pieces)
            self.assertEqual(events[2], OversizedBatch(len(large) - 2))
            self.assertEqual(events[1], events[3])
            self.assertEqual(len(events), 4)
        self.patch(batch_reader, "MAX_BATCH_BYTES", len(large) - 2)
        self.assertIsInstance(read([value])[2], StoredNonces)


class BrokenTests(SynchronousTestCase):
    """What is no such answer."""

    def test_cut_off_anywhere_but_between_participants(self) -> None:
        first = encode_stage([stored(ONE, ([1, 300], [0.5, 0.25]))])
        value = first + encode_stage([stored(TWO, ([1], [0.5]))])
        for size in range(len(value)):
            if size not in (0, len(first)):
                with self.assertRaisesRegex(ChainUnavailableError, "^the batches of the stage are cut off$"):
                    read([value[:size]])

    def test_broken_fields(self) -> None:
        too_long = "^a field is longer than the participant that it belongs to$"
        for value, told in (
            (b"\xff" * 11, "^a number of more than 10 bytes$"),
            (b"\x0b", "^a field of wire type 3$"),
            (b"\x02\x00", "^a field of number 0$"),
            (message_field(1, message_field(4, b"\xff")), "^a batch of the stage cannot be read: "),
            (message_field(1, message_field(4, bytes_field(5, b"seven b"))), "^a batch of the stage cannot be read: "),
            (message_field(1, NAMES + b"\x22\x7f") + bytes(200), too_long),
            (b"\x0a\x02\x4a\x01" + bytes(9), too_long),
            (b"\x0a\x01\x48" + bytes(9), too_long),
        ):
            for pieces in ([value], cut(value, range(len(value)))):
                with self.assertRaisesRegex(ChainUnavailableError, told):
                    read(pieces)

    def test_a_field_that_is_longer_than_its_participant_is_refused_before_it_comes(self) -> None:
        with self.assertRaisesRegex(ChainUnavailableError, "longer than the participant"):
            list(BatchReader().feed(message_field(1, NAMES + b"\x22\x7f")))
