"""What is begun in a round: how much, of which kinds, and with which timestamps; on a real database."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail

from dapi.chain.keyring import SigningKey
from dapi.errors import (
    ChainUnavailableError,
    StoreBusyError,
)
from dapi.messages import Kind
from dapi.submission.begin import Begun, Signer
from dapi.submission.choice import Room
from dapi.submission.rows import TransactionInFlight
from dapi.submission.settings import SubmitterSettings
from dapi.submission.signing import Signing
from dapi.submission.state import SendingState
from tests.unit.submission.sender_case import SenderTestCase
from tests.unit.submission.sending_case import LATEST
from tests.unit.submission.submitter_case import SECOND_NS, status_at

MIB = 1024 * 1024


class RoomTests(SenderTestCase):
    """How much is begun at once."""

    def setUp(self) -> None:
        super().setUp()
        self.rooms: list[tuple[int, Room, int]] = []
        usual = self.submissions.begin

        def begin(height: int, room: Room, signer: Signer) -> Deferred[list[Begun]]:
            self.rooms.append((height, room, len(signer.timestamps)))
            return usual(height, room, signer)

        self.patch(self.submissions, "begin", begin)

    def fixed_bytes(self) -> int:
        assert self.signing.signer is not None
        return self.signing.signer.size_of([])

    def test_as_much_as_pace_and_settings_allow(self) -> None:
        settings = SubmitterSettings(max_nonces=77, max_in_flight_bytes=5 * MIB)
        self.make(settings)
        self.pace.max_messages, self.pace.transactions = 33, 20
        self.record(1)
        self.send_all()
        height, room, timestamps = self.rooms[0]
        self.assertEqual((height, timestamps), (LATEST + 1, 16))
        kinds = frozenset(Kind)
        self.assertEqual(
            room, Room(700_000 - self.fixed_bytes(), 77, 33, kinds, transactions=20, max_total_bytes=4 * MIB)
        )

    def test_what_is_in_flight_leaves_less_room(self) -> None:
        for number in range(29):
            self.in_flight.add(TransactionInFlight(str(number), 7, [], size=MIB * 2 + 1))
        self.record(1)
        self.send_all()
        _, room, timestamps = self.rooms[0]
        self.assertEqual((room.transactions, timestamps), (3, 3))
        self.assertEqual(room.max_total_bytes, 4 * MIB)
        self.in_flight.add(TransactionInFlight("more", 7, [], size=4 * MIB))
        self.send_all()
        self.assertEqual(self.rooms[-1][1].max_total_bytes, 64 * MIB - self.in_flight.size)

    def test_one_is_begun_where_there_is_room_for_one(self) -> None:
        self.pace.transactions, self.pace.max_messages = 4, 1
        for number in range(3):
            self.in_flight.add(TransactionInFlight(str(number), 7, []))
        for nonce in range(3):
            self.record(nonce)
        self.send_all()
        self.assertEqual([(room.transactions, timestamps) for _, room, timestamps in self.rooms], [(1, 1)])
        self.assertEqual(self.counts(), {"in_flight": 1, "stored": 2})

    def test_kinds_that_are_held_are_not_chosen_but_for_one_message_a_block(self) -> None:
        self.problems.hold(Kind.GENERATED, "sdk", 5, "no coins")
        for nonce in range(3):
            self.record(nonce)
        self.record_verdict()
        self.send_all()
        kinds = [(room.kinds, room.max_messages, timestamps) for _, room, timestamps in self.rooms]
        others = frozenset(Kind) - {Kind.GENERATED}
        self.assertEqual(kinds[0][0], others)
        self.assertEqual(kinds[-1], (frozenset({Kind.GENERATED}), 1, 1))
        self.assertEqual(self.counts(), {"in_flight": 2, "stored": 2})
        # Not again before there is an answer, and not twice in one block.
        rounds = len(self.rooms)
        self.watcher.head = status_at(LATEST + 1)
        self.send_all()
        self.assertNotIn(frozenset({Kind.GENERATED}), [room.kinds for _, room, _ in self.rooms[rounds:]])
        for transaction in self.in_flight.all():
            self.run_to_end(self.decisions.time_has_passed(transaction))
        self.send_all()
        self.send_all()
        probes = [room for _, room, _ in self.rooms[rounds:] if room.kinds == {Kind.GENERATED}]
        self.assertEqual(len(probes), 1)
        self.assertEqual(self.problems.kinds_to_probe(LATEST + 1), [])
        self.assertEqual(self.problems.kinds_to_probe(LATEST + 2), [Kind.GENERATED])

    def test_a_kind_of_which_nothing_waits_may_be_tried_in_the_same_block(self) -> None:
        self.problems.hold(Kind.GENERATED, "sdk", 5, "no coins")
        self.send_all()
        self.assertEqual((self.problems.kinds_to_probe(LATEST), self.chain.sent), ([Kind.GENERATED], []))
        self.record(1)
        self.send_all()
        self.assertEqual((self.problems.kinds_to_probe(LATEST), len(self.chain.sent)), ([], 1))

    def test_more_than_one_round_has_room_for_goes_in_several(self) -> None:
        self.pace.max_messages = 1
        for nonce in range(40):
            self.record(nonce)
        self.send_all()
        # As many as Pace allows at first, in rounds of 16.
        self.assertEqual((len(self.chain.sent), len(set(self.chain.sent))), (32, 32))
        self.assertEqual([timestamps for _, _, timestamps in self.rooms], [16, 16])

    def test_nothing_is_sent_without_a_block_or_in_trouble_or_on_another_network(self) -> None:
        self.record(1)

        def no_head() -> None:
            self.watcher.head = None

        def trouble() -> None:
            self.watcher.problem = "halted"

        def moved() -> None:
            self.poc_version.refused("deprecated")

        preparations: list[Callable[[], None]] = [no_head, trouble, moved]
        for prepare in preparations:
            prepare()
            self.send_all()
            self.assertEqual((self.rooms, self.signing.signer), ([], None))
            self.watcher.head, self.watcher.problem = status_at(LATEST), None
        self.assertEqual(self.counts(), {"stored": 1})

    def test_what_changes_between_the_turn_and_the_choice_counts(self) -> None:
        self.record(1)
        usual = self.signing.refresh

        async def refresh() -> None:
            await usual()
            self.watcher.problem = "halted"

        self.patch(self.signing, "refresh", refresh)
        self.send_all()
        self.assertEqual((self.rooms, self.counts()), ([], {"stored": 1}))

    def test_timestamps_that_were_not_used_are_given_again(self) -> None:
        self.send_all()
        self.assertEqual(self.timestamps.last, 0)
        self.record(1)
        self.send_all()
        self.assertEqual(self.timestamps.last, self.only().timeout_ns)
        self.assertEqual(self.wait(self.submissions.last_timeout()), self.only().timeout_ns)

    def test_without_a_timestamp_nothing_is_begun(self) -> None:
        self.record(1)
        self.watcher.head = status_at(LATEST)
        self.timestamps.last = self.watcher.head.block_time_ns + 600 * SECOND_NS
        text = "^no timestamp is left: the chain's time is behind our last transaction's$"
        with self.assertRaisesRegex(ChainUnavailableError, text):
            self.send_all()
        self.assertEqual((self.rooms, self.counts()), ([], {"stored": 1}))

    def test_the_few_timestamps_that_are_left_are_used(self) -> None:
        self.pace.max_messages = 1
        for nonce in range(8):
            self.record(nonce)
        # Less than a step of a millisecond is left for each.
        self.timestamps.last = status_at(LATEST).block_time_ns + 600 * SECOND_NS - 1_500_000
        with self.assertRaisesRegex(ChainUnavailableError, "no timestamp is left"):
            self.send_all()
        self.assertGreaterEqual(len(self.chain.sent), 1)
        self.assertEqual(sum(timestamps for _, _, timestamps in self.rooms), len(self.chain.sent))

    def test_what_is_in_flight_on_disk_is_known_here_though_the_other_round_fails(self) -> None:
        self.pace.max_messages = 1
        for nonce in range(20):
            self.record(nonce)
        usual, ends = self.submissions.begin, ["sound", "busy"]

        def begin(height: int, room: Room, signer: Signer) -> Deferred[list[Begun]]:
            is_busy = bool(ends) and ends.pop(0) == "busy"
            return fail(StoreBusyError("disk full")) if is_busy else usual(height, room, signer)

        self.patch(self.submissions, "begin", begin)
        with self.assertRaisesRegex(StoreBusyError, "disk full"):
            self.send_all()
        self.assertEqual((len(self.in_flight), len(self.chain.sent)), (20, 20))


class GrantedKeyTests(SenderTestCase):
    def test_another_key_signs_larger_transactions_and_leaves_less_room(self) -> None:
        """Not more than the limit, whoever signs."""
        participant, key = SigningKey(b"\1" * 32), SigningKey(b"\7" * 32)
        self.signing = Signing(self.chain, key, participant.address)
        self.state = SendingState(self.signing, self.pace, self.problems, self.in_flight)
        self.make(self.settings)
        self.pace.max_bytes = 20_000
        for nonce in range(60):
            self.record(*range(nonce * 100, nonce * 100 + 20))
        self.send_all()
        self.assertGreater(len(self.in_flight), 1)
        self.assertLessEqual(max(each.size for each in self.in_flight.all()), 20_000)
        self.assertGreater(max(each.size for each in self.in_flight.all()), 10_000)
