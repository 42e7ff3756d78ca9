"""What a round puts in flight with one commit: how much, and what is said of batches that are damaged on disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any

from twisted.logger import LogLevel

from dapi.chain.transactions import SignedTransaction
from dapi.database import Database
from dapi.messages import State
from dapi.orchestration.stages import StageBook
from dapi.phases.phases import EpochParameters, regular_stage
from dapi.submission.begin import Begun, Signer
from dapi.submission.choice import Room
from dapi.submission.node_shares import STEP_BYTES
from tests.logs import log_of
from tests.unit.submission.submissions_case import ROOM, SubmissionsTestCase


def sign(messages: Sequence[tuple[str, bytes]], timeout_ns: int) -> SignedTransaction:
    """A transaction of just the bytes of its messages."""
    return SignedTransaction(b"".join(body for _, body in messages), f"hash {timeout_ns}", timeout_ns)


class BeginTests(SubmissionsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log = log_of(self)

    def begin(self, database: Database) -> None:
        super().begin(database)
        self.timestamps = count(1)

    def begin_round(self, most: int, *, height: int = 11, max_bytes: int = ROOM, **room: Any) -> list[Begun]:
        """Begin so many transactions at most."""
        signer = Signer(sign, 7, [next(self.timestamps) for _ in range(most)])
        begun: list[Begun] = self.wait(self.submissions.begin(height, Room(max_bytes, 1000, **room), signer))
        return begun

    def test_each_transaction_is_in_flight_as_it_was_signed(self) -> None:
        for nonce in range(3):
            self.record(nonce)
        first, second = self.begin_round(4, max_messages=2)
        self.assertEqual([len(each.transaction.messages) for each in (first, second)], [2, 1])
        found = self.wait(self.submissions.transactions_in_flight())
        self.assertEqual([each.hash for each in found], ["hash 1", "hash 2"])
        for begun, kept in zip((first, second), found, strict=True):
            self.assertEqual(begun.transaction.messages, kept.messages)
            self.assertEqual((begun.transaction.size, kept.size), (len(begun.raw), len(begun.raw)))
            self.assertEqual((begun.transaction.first_height, kept.first_height), (11, 11))
            self.assertEqual((begun.transaction.timeout_ns, begun.transaction.account_number), (kept.timeout_ns, 7))
            self.assertFalse(begun.transaction.may_be_known)
        self.assertEqual(self.counts(), {"in_flight": 3})
        self.assertEqual(self.log.lines(LogLevel.critical), [])

    def test_another_one_is_begun_while_the_largest_would_fit(self) -> None:
        self.bring("node1", 12, 1000)
        for max_total_bytes, number in ((1, 1), (3299, 2), (3300, 3)):
            begun = self.begin_round(6, max_bytes=1300, max_messages=1, max_total_bytes=max_total_bytes)
            self.assertEqual(len(begun), number)
        self.assertEqual(self.counts(), {"in_flight": 6, "stored": 6})

    def test_near_the_end_of_a_window_all_that_wait_find_room_in_a_round(self) -> None:
        # Batches until the block 75.
        self.wait(StageBook(self.database).begin(regular_stage(EpochParameters(400, 60, 5, 5, 20), 1, 10), 3))
        for nonce in range(8):
            self.record(nonce)
        # Twice as many as in equal shares of what is left, while that is.
        begun = self.begin_round(4, height=75, transactions=4)
        self.assertEqual([len(each.transaction.messages) for each in begun], [4, 2, 2])

    def test_what_the_disk_has_damaged_is_told_with_its_number(self) -> None:
        ids = [self.record(nonce) for nonce in range(5)]
        damaged = {ids[0], ids[2], ids[3]}
        for batch_id in damaged:
            self.damage(batch_id)
        self.clock.advance(5)
        self.assertEqual(len(self.begin_round(4, max_messages=1)), 2)
        line = "3 batches are damaged on disk, and failed: look at the disk"
        self.assertEqual(self.log.lines(LogLevel.critical), [line])
        self.assertEqual(self.counts(), {"in_flight": 2, "failed": 3})
        failed = {batch_id: row.finished_at for batch_id, row in self.rows().items() if row.state is State.FAILED}
        self.assertEqual(failed, dict.fromkeys(damaged, 5.0))

    def test_those_who_wait_for_others_are_passed_over_once_a_round(self) -> None:
        self.submissions._shares.record((10, "generated"), "greedy", STEP_BYTES)
        self.bring("greedy", 2000, 1)
        self.bring("node1", 2, 1)
        once = self.steps(partial(self.next, max_messages=1))
        round_of_six = self.steps(partial(self.begin_round, 6, max_messages=1))
        self.assertLess(round_of_six, 3 * once)
        sent = "SELECT node_id, count(*) FROM unfinished WHERE state = 'in_flight' GROUP BY node_id"
        self.assertEqual(dict(self.look(sent)), {"greedy": 4, "node1": 2})
