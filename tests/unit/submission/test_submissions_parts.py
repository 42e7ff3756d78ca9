"""A batch that is sent in parts, on a real database: cut once, and one batch all the same."""

from __future__ import annotations

from itertools import chain
from typing import Any

from dapi.messages import Kind, State, Via
from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from dapi.submission.rows import Message
from tests.batches import generated_batch
from tests.submissions import put_in_flight
from tests.unit.submission.submissions_case import HASH, OTHER, SubmissionsTestCase


class PartTests(SubmissionsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.batch_id = self.record(*range(25))

    def cut(self) -> list[Message]:
        return self.next(max_nonces=10)

    def ranges(self, messages: list[Message]) -> list[list[int]]:
        return [list(MsgSubmitPocBatch.FromString(message.body).nonces) for message in messages]

    def test_parts_under_derived_ids(self) -> None:
        parts = self.cut()
        suffixes = ("0-9", "10-19", "20-24")
        self.assertEqual(self.ids(parts), [f"{self.batch_id}-{suffix}" for suffix in suffixes])
        self.assertEqual(list(chain(*self.ranges(parts))), list(range(25)))
        self.assertEqual(self.counts(), {"in_flight": 1})
        self.assertEqual(list(self.rows()), [self.batch_id])
        # Asked for again, they are what they are.
        self.assertEqual(self.cut(), parts)

    def test_each_nonce_by_itself_where_no_two_are_allowed(self) -> None:
        self.assertEqual(self.ranges(self.next(max_nonces=1)), [[nonce] for nonce in range(25)])

    def test_done_with_the_last_of_them(self) -> None:
        parts = self.send(self.cut())
        for number, part in enumerate(parts):
            self.assertEqual(self.counts(), {"in_flight": 1})
            self.wait(self.submissions.confirm([part], HASH, 12 + number))
        self.assertEqual(self.counts(), {"confirmed": 1})
        self.assertEqual(self.rows()[self.batch_id].included_height, 14)
        self.assertEqual(self.look("SELECT 1 FROM unfinished"), [])

    def test_a_part_that_goes_again_changes_no_count(self) -> None:
        parts = self.send(self.cut())
        self.wait(self.submissions.store_again(parts[:1], HASH, "dropped", has_vanished=True))
        self.assertEqual(self.counts(), {"in_flight": 1})
        self.assertEqual(len(self.cut()), 1)

    def test_failed_with_the_first_of_them(self) -> None:
        parts = self.send(self.cut()[:1])
        self.wait(self.submissions.fail(parts, HASH, "blocked"))
        self.assertEqual(self.counts(), {"failed": 1})
        self.assertEqual(self.look("SELECT 1 FROM unfinished"), [])
        self.wait(self.outbox.retry(self.batch_id))
        self.assertEqual(self.counts(), {"stored": 1})
        self.assertEqual(len(self.cut()), 3)

    def test_not_failed_while_another_is_under_way(self) -> None:
        parts = self.cut()
        first, second = self.send(parts[:1]), self.send(parts[1:2], OTHER)
        for end in ("confirm", "store_again", "fail"):
            with self.subTest(end=end):
                self.wait(self.submissions.fail(first, HASH, "blocked"))
                self.assertEqual(self.counts(), {"in_flight": 1})
                self.assertEqual(self.cut(), [])
                self.begin_anew()
                (left,) = self.wait(self.submissions.transactions_in_flight())
                self.assertEqual((left.hash, left.messages), (OTHER, second))
                told: Any = 12 if end == "confirm" else "why"
                self.wait(getattr(self.submissions, end)(second, OTHER, told))
                self.assertEqual(self.counts(), {"failed": 1})
                row = self.rows()[self.batch_id]
                self.assertEqual(row.reason, "why" if end == "fail" else "blocked")
                self.wait(self.outbox.retry(self.batch_id))
                parts = self.cut()
                first, second = self.send(parts[:1]), self.send(parts[1:2], OTHER)

    def test_a_part_that_was_chosen_is_not_sent_when_another_has_failed_meanwhile(self) -> None:
        parts = self.cut()
        first = self.send(parts[:1])
        self.wait(self.submissions.fail(first, HASH, "blocked"))
        small = self.record(1000)
        (chosen,) = self.next()
        self.wait(put_in_flight(self.submissions, [chosen, *parts[1:2]], OTHER, 7, 11))
        self.assertEqual(self.counts(), {"failed": 1, "stored": 1})
        self.assertEqual(self.ids(self.next()), [small])
        self.assertEqual(self.wait(self.submissions.transactions_in_flight()), [])

    def test_expired_with_one_under_way(self) -> None:
        under_way = self.send(self.cut()[:1])
        self.wait(self.submissions.expire(10, Kind.GENERATED, "its window ended"))
        self.assertEqual(self.counts(), {"in_flight": 1})
        self.wait(self.submissions.confirm(under_way, HASH, 12))
        self.assertEqual(self.counts(), {"expired": 1})

    def test_cut_again_when_less_is_allowed(self) -> None:
        self.cut()
        self.assertEqual([len(nonces) for nonces in self.ranges(self.next(max_nonces=6))], [5, 6, 4])
        self.assertEqual(self.look("SELECT DISTINCT parent FROM unfinished"), [(None,), (1,)])
        sent = []
        for number in range(5):
            messages = self.next(max_nonces=6)
            sent += self.ranges(messages)
            self.wait(self.submissions.confirm(self.send(messages, str(number)), str(number), 12))
        self.assertEqual(sorted(chain(*sent)), list(range(25)))
        self.assertEqual(self.counts(), {"confirmed": 1})

    def test_by_the_bytes_of_a_transaction(self) -> None:
        parts = self.next(max_bytes=500)
        self.assertEqual(len(parts), 1)
        self.assertLess(len(self.ranges(parts)[0]), 25)

    def test_delivered_again_it_is_known(self) -> None:
        self.cut()
        batch = generated_batch(block_height=10, nonces=list(range(25)), dist=[0.5] * 25)
        again = self.recorder.submit_poc_batch(batch, batch_id=self.batch_id, node_id="node1", via=Via.WEBSOCKET)
        self.assertEqual(self.wait(again).seen, 2)
        self.assertEqual(self.rows()[self.batch_id].state, State.IN_FLIGHT)

    def test_many_large_ones_are_cut_one_after_the_other(self) -> None:
        for number in range(1, 5):
            self.record(*range(100 * number, 100 * number + 25))
        self.assertEqual(len(self.cut()), 3)
        self.assertEqual(self.look("SELECT count(DISTINCT parent) FROM unfinished"), [(1,)])

    def test_a_smaller_one_does_not_wait_for_a_large_one(self) -> None:
        self.send(self.cut())
        small = self.record(1000)
        self.record(*range(2000, 2025))
        self.assertEqual(self.ids(self.cut()), [small])
