"""Messages go out of the outbox and come to their end, on a real database: in order, bounded, each once."""

from __future__ import annotations

import time
from itertools import chain
from typing import Any

from dapi.chain.cosmos_message_client import CosmosMessageClient
from dapi.chain.outbox import Outbox
from dapi.chain.submission_rows import Message
from dapi.chain.submissions import Submissions
from dapi.database import Database
from dapi.errors import StoreBusyError
from dapi.messages import Kind, State, Via, content_id
from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from tests.batches import generated_batch, validated_batch
from tests.unit.store_tools import StoreTestCase

ROOM = 100_000
MANY = 100_000
HASH = "AB" * 32
OTHER = "CD" * 32


class SubmissionsTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin(self.open_database())

    def begin(self, database: Database) -> None:
        self.database = database
        self.outbox = Outbox(self.clock, database, now=self.clock.seconds)
        self.recorder = CosmosMessageClient(self.outbox)
        self.submissions = Submissions(database, self.outbox, now=self.clock.seconds)
        self.wait(self.outbox.counts())

    def begin_anew(self) -> None:
        """As another process would."""
        self.close_database(self.database)
        self.begin(self.open_database())

    def wait(self, deferred: Any) -> Any:
        return self.clock.wait_for(deferred)

    def record(self, *nonces: int, height: int = 10) -> str:
        batch = generated_batch(block_height=height, nonces=list(nonces), dist=[0.5] * len(nonces))
        batch_id = content_id(batch)
        self.wait(self.recorder.submit_poc_batch(batch, batch_id=batch_id, node_id="node1", via=Via.HTTP))
        return batch_id

    def record_verdict(self, *, height: int = 10, **changes: Any) -> str:
        verdict = validated_batch(block_height=height, **changes)
        batch_id = content_id(verdict)
        self.wait(self.recorder.submit_poc_validation(verdict, batch_id=batch_id, node_id=None, via=Via.HTTP))
        return batch_id

    def next(self, *, height: int = 11, max_bytes: int = ROOM, max_nonces: int = 1000) -> list[Message]:
        messages: list[Message] = self.wait(self.submissions.next_messages(height, max_bytes, max_nonces))
        return messages

    def send(self, messages: list[Message], tx_hash: str = HASH, timeout_ns: int = 7) -> list[Message]:
        under_way = [message.under_way() for message in messages]
        self.wait(self.submissions.sent(under_way, tx_hash, timeout_ns))
        return under_way

    def ids(self, messages: list[Message]) -> list[str]:
        return [MsgSubmitPocBatch.FromString(message.body).batch_id for message in messages]

    def counts(self) -> dict[str, int]:
        """The counts that are not 0; those that are kept must be those on disk."""
        kept = self.wait(self.outbox.counts())
        anew = Outbox(self.clock, self.database)
        self.assertEqual(kept, self.wait(anew.counts()))
        return {state: number for state, number in kept.items() if number}

    def rows(self) -> dict[str, Any]:
        return {row.batch_id: row for row in self.wait(self.outbox.batches(limit=1000)).batches}


class ChoiceTests(SubmissionsTestCase):
    def test_oldest_stage_first_then_kind_then_as_they_came(self) -> None:
        young = self.record(1, height=20)
        self.record_verdict(height=10)
        first, second = self.record(2), self.record(3)
        messages = self.next()
        self.assertEqual([message.kind for message in messages], ["generated", "generated", "validated", "generated"])
        self.assertEqual(self.ids(messages[:2] + messages[3:]), [first, second, young])
        self.assertEqual([message.height for message in messages], [10, 10, 10, 20])

    def test_none_waits(self) -> None:
        self.assertEqual(self.next(), [])

    def test_what_is_under_way_is_not_chosen_again(self) -> None:
        self.record(1)
        self.send(self.next())
        self.assertEqual(self.next(), [])
        self.assertEqual(self.counts(), {"in_flight": 1})

    def test_up_to_the_limit_of_bytes(self) -> None:
        for number in range(10):
            self.record(*range(1000 * number, 1000 * number + 100))
        messages = self.next(max_bytes=5_000)
        self.assertEqual(len(messages), 3)
        self.assertLessEqual(sum(len(message.body) for message in messages), 5_000)

    def test_one_that_is_larger_than_the_limit_goes_alone(self) -> None:
        self.record_verdict()
        self.record(1, height=20)
        self.assertEqual(len(self.next(max_bytes=100, max_nonces=1)), 1)

    def test_not_before_its_block(self) -> None:
        self.record(1)
        under_way = self.send(self.next())
        self.wait(self.submissions.again(under_way, HASH, "too early", not_before=15))
        self.assertEqual(self.next(height=14), [])
        self.assertEqual(len(self.next(height=15)), 1)

    def test_alone_means_alone(self) -> None:
        self.record(1)
        self.record(2)
        under_way = self.send(self.next())
        self.record(3)
        self.record(4)
        self.wait(self.submissions.again(under_way, HASH, "one of them", alone=True))
        self.assertEqual([len(self.send(self.next(), str(number))) for number in range(3)], [1, 1, 2])
        self.assertEqual(self.next(), [])

    def test_those_that_go_alone_do_not_hold_up_what_came_before_them(self) -> None:
        # Alone is the second of three: the first and the third share a transaction.
        first, second, third = self.record(1), self.record(2), self.record(3)
        under_way = self.send(self.next())
        self.wait(self.submissions.again(under_way[1:2], HASH, "one of them", alone=True))
        self.wait(self.submissions.again([under_way[0], under_way[2]], HASH, "its neighbour"))
        self.assertEqual(self.ids(self.next()), [first, third])
        self.send(self.next())
        self.assertEqual(self.ids(self.next()), [second])

    def test_many_that_go_alone_are_all_sent(self) -> None:
        for number in range(300):
            self.record(number)
        for _ in range(2):
            self.wait(self.submissions.again(self.send(self.next()), HASH, "one of them", alone=True))
            self.execute(self.database, "UPDATE waiting SET not_before = 100 WHERE alone = 1")
        self.execute(self.database, "UPDATE waiting SET not_before = 0")
        for number in range(300):
            self.assertEqual(len(self.send(self.next(), str(number))), 1)
        self.assertEqual(self.next(), [])

    def fill(self, number: int) -> None:
        """Record many at once, two of three of them generated, in seven stages."""
        self.execute(
            self.database,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO waiting (batch_id,"
            " kind, state, node_id, via, height, nonces, seen, received_at, last_seen_at, message)"
            " SELECT i, iif(i % 3, 'generated', 'validated'), 'stored', 'n', 'http', i % 7, 20, 1, 0, 0, ? FROM n",
            number,
            b"\x18\x0a" + bytes(2000),
        )

    def test_a_huge_backlog_costs_no_time(self) -> None:
        self.fill(MANY)
        started = time.perf_counter()
        for number in range(16):
            self.assertGreater(len(self.send(self.next(height=10**6), str(number))), 10)
        self.wait(self.submissions.in_flight())
        self.wait(self.submissions.oldest_received_at())
        # 50 calls; one that read all rows would take as long alone.
        self.assertLess(time.perf_counter() - started, 1.0)

    def test_what_comes_in_does_not_wait_for_a_huge_backlog_that_expires(self) -> None:
        self.fill(21_000)
        expired = self.submissions.expire(3, Kind.GENERATED, "its window ended")
        count = "SELECT count(*) FROM finished WHERE state = 'expired'"
        ((before,),) = self.execute(self.database, count)
        self.assertLess(before, 1500)
        self.assertEqual(self.wait(expired), 2000)
        self.assertEqual(self.execute(self.database, count), [(2000,)])


class CourseTests(SubmissionsTestCase):
    def test_sent_then_confirmed(self) -> None:
        batch_id = self.record(1)
        self.assertEqual(self.counts(), {"stored": 1})
        under_way = self.send(self.next(), HASH, 77)
        self.assertEqual(self.look("SELECT state, tx_hash, tx_timeout_ns FROM waiting"), [("in_flight", HASH, 77)])
        self.clock.advance(5)
        self.wait(self.submissions.confirmed(under_way, HASH, 12))
        self.assertEqual(self.counts(), {"confirmed": 1})
        row = self.rows()[batch_id]
        self.assertEqual((row.tx_hash, row.included_height, row.finished_at, row.reason), (HASH, 12, 5.0, None))
        self.assertEqual(self.look("SELECT message FROM finished"), [(None,)])

    def test_told_twice_or_of_an_older_transaction_nothing_happens(self) -> None:
        self.record(1)
        under_way = self.send(self.next(), HASH)
        self.wait(self.submissions.again(under_way, HASH, "gone", has_vanished=True))
        self.send(self.next(), OTHER)
        self.wait(self.submissions.confirmed(under_way, HASH, 12))
        self.wait(self.submissions.failed(under_way, HASH, "no"))
        self.wait(self.submissions.again(under_way, HASH, "no"))
        self.assertEqual(self.counts(), {"in_flight": 1})
        for _ in range(2):
            self.wait(self.submissions.confirmed(under_way, OTHER, 13))
        self.assertEqual(self.counts(), {"confirmed": 1})

    def test_failed_is_kept_with_its_reason_and_can_be_sent_again(self) -> None:
        batch_id = self.record(1)
        before = self.next()
        self.wait(self.submissions.failed(self.send(before), HASH, "inference 1155: blocked"))
        self.assertEqual(self.counts(), {"failed": 1})
        self.assertEqual(self.rows()[batch_id].reason, "inference 1155: blocked")
        self.assertEqual(self.next(), [])
        self.wait(self.outbox.retry(batch_id))
        self.assertEqual(self.counts(), {"stored": 1})
        (again,) = self.next()
        self.assertEqual(again.body, before[0].body)
        # That nothing came of its transactions so far is known.
        self.assertEqual(again.attempts, 0)

    def test_attempts_count_transactions_of_which_nothing_was_heard(self) -> None:
        self.record(1)
        for has_vanished, expected in ((True, 1), (False, 1), (True, 2)):
            under_way = self.send(self.next())
            self.wait(self.submissions.again(under_way, HASH, "why", has_vanished=has_vanished))
            self.assertEqual(self.next()[0].attempts, expected)

    def test_what_is_under_way_is_found_by_another_process(self) -> None:
        for number in range(5):
            self.record(number)
        self.record_verdict()
        messages = self.next()
        self.send(messages[:4], HASH, 70)
        self.send(messages[4:], OTHER, 71)
        self.begin_anew()
        found = self.wait(self.submissions.in_flight())
        self.assertEqual([(each.hash, each.timeout_ns) for each in found], [(HASH, 70), (OTHER, 71)])
        for transaction, sent in zip(found, (messages[:4], messages[4:]), strict=True):
            self.assertEqual(transaction.messages, [message.under_way() for message in sent])
            self.assertTrue(transaction.may_be_known)
            bodies = self.wait(self.submissions.bodies(transaction.messages))
            self.assertEqual(bodies, [message.body for message in sent])
        self.assertEqual(self.wait(self.submissions.last_timeout()), 71)

    def test_the_last_timeout_never_goes_back(self) -> None:
        self.assertEqual(self.wait(self.submissions.last_timeout()), 0)
        for number, timeout_ns in enumerate((70, 60, 80)):
            self.record(number)
            self.send(self.next(), str(number), timeout_ns)
        self.assertEqual(self.wait(self.submissions.last_timeout()), 80)

    def test_age_of_what_waits(self) -> None:
        self.assertIs(self.wait(self.submissions.oldest_received_at()), None)
        self.clock.advance(3)
        self.record(1)
        self.clock.advance(3)
        self.record(2)
        self.assertEqual(self.wait(self.submissions.oldest_received_at()), 3.0)

    def test_observers_hear_of_what_is_new_and_of_what_is_to_be_sent_again(self) -> None:
        heard: list[str] = []
        self.submissions.observe(lambda: heard.append("x"))
        batch_id = self.record(1)
        self.assertEqual(len(heard), 1)
        self.record(1)
        self.assertEqual(len(heard), 1)
        self.wait(self.submissions.failed(self.send(self.next()), HASH, "no"))
        self.wait(self.outbox.retry(batch_id))
        self.assertEqual(len(heard), 2)

    def test_expired(self) -> None:
        self.record(1)
        self.record(2, height=20)
        under_way = self.send(self.next()[:1])
        self.assertEqual(self.wait(self.submissions.expire(20, Kind.GENERATED, "its window ended")), 1)
        self.assertEqual(self.wait(self.submissions.expire(10, Kind.GENERATED, "its window ended")), 0)
        self.assertEqual(self.counts(), {"in_flight": 1, "expired": 1})
        self.wait(self.submissions.confirmed(under_way, HASH, 12))
        # Whole, as proof of what the node has done: only what the chain has needs to be kept no longer.
        bodies = dict(self.look("SELECT state, message FROM finished"))
        self.assertIsNone(bodies["confirmed"])
        self.assertEqual(list(MsgSubmitPocBatch.FromString(bodies["expired"]).nonces), [2])


class VerdictTests(SubmissionsTestCase):
    def is_on_chain(self) -> bool | None:
        """Whether what is to be sent next is on the chain."""
        answer: bool | None = self.wait(self.submissions.is_on_chain(self.next()[0]))
        return answer

    def confirm(self) -> None:
        self.wait(self.submissions.confirmed(self.send(self.next()), HASH, 12))

    def test_nothing_is_known(self) -> None:
        self.record_verdict(height=20)
        self.confirm()
        self.record_verdict()
        self.assertIs(self.is_on_chain(), None)

    def test_another_one_on_the_participant(self) -> None:
        self.record_verdict(n_invalid=1)
        self.confirm()
        self.record_verdict(n_invalid=2)
        self.assertIs(self.is_on_chain(), False)

    def test_the_same_one_from_other_lists(self) -> None:
        self.record_verdict(nonces=[1, 2])
        self.confirm()
        self.record_verdict(nonces=[3, 4])
        self.assertIs(self.is_on_chain(), True)

    def test_one_that_failed_is_not_on_the_chain(self) -> None:
        self.record_verdict(n_invalid=1)
        self.wait(self.submissions.failed(self.send(self.next()), HASH, "no"))
        self.record_verdict(n_invalid=2)
        self.assertIs(self.is_on_chain(), None)


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

    def test_done_with_the_last_of_them(self) -> None:
        parts = self.send(self.cut())
        for number, part in enumerate(parts):
            self.assertEqual(self.counts(), {"in_flight": 1})
            self.wait(self.submissions.confirmed([part], HASH, 12 + number))
        self.assertEqual(self.counts(), {"confirmed": 1})
        self.assertEqual(self.rows()[self.batch_id].included_height, 14)
        self.assertEqual(self.look("SELECT 1 FROM waiting"), [])

    def test_a_part_that_goes_again_changes_no_count(self) -> None:
        parts = self.send(self.cut())
        self.wait(self.submissions.again(parts[:1], HASH, "dropped", has_vanished=True))
        self.assertEqual(self.counts(), {"in_flight": 1})
        self.assertEqual(len(self.cut()), 1)

    def test_failed_with_the_first_of_them(self) -> None:
        parts = self.send(self.cut()[:1])
        self.wait(self.submissions.failed(parts, HASH, "blocked"))
        self.assertEqual(self.counts(), {"failed": 1})
        self.assertEqual(self.look("SELECT 1 FROM waiting"), [])
        self.wait(self.outbox.retry(self.batch_id))
        self.assertEqual(self.counts(), {"stored": 1})
        self.assertEqual(len(self.cut()), 3)

    def test_not_failed_while_another_is_under_way(self) -> None:
        parts = self.cut()
        first, second = self.send(parts[:1]), self.send(parts[1:2], OTHER)
        for end in ("confirmed", "again", "failed"):
            with self.subTest(end=end):
                self.wait(self.submissions.failed(first, HASH, "blocked"))
                self.assertEqual(self.counts(), {"in_flight": 1})
                self.assertEqual(self.cut(), [])
                self.begin_anew()
                (left,) = self.wait(self.submissions.in_flight())
                self.assertEqual((left.hash, left.messages), (OTHER, second))
                told: Any = 12 if end == "confirmed" else "why"
                self.wait(getattr(self.submissions, end)(second, OTHER, told))
                self.assertEqual(self.counts(), {"failed": 1})
                row = self.rows()[self.batch_id]
                self.assertEqual(row.reason, "why" if end == "failed" else "blocked")
                self.wait(self.outbox.retry(self.batch_id))
                parts = self.cut()
                first, second = self.send(parts[:1]), self.send(parts[1:2], OTHER)

    def test_a_part_that_was_chosen_is_not_sent_when_another_has_failed_meanwhile(self) -> None:
        parts = self.cut()
        first = self.send(parts[:1])
        self.wait(self.submissions.failed(first, HASH, "blocked"))
        small = self.record(1000)
        (chosen,) = self.next()
        with self.assertRaises(StoreBusyError):
            self.send([chosen, *parts[1:2]], OTHER)
        self.assertEqual(self.counts(), {"failed": 1, "stored": 1})
        self.assertEqual(self.ids(self.next()), [small])
        self.assertEqual(self.wait(self.submissions.in_flight()), [])

    def test_expired_with_one_under_way(self) -> None:
        under_way = self.send(self.cut()[:1])
        self.wait(self.submissions.expire(10, Kind.GENERATED, "its window ended"))
        self.assertEqual(self.counts(), {"in_flight": 1})
        self.wait(self.submissions.confirmed(under_way, HASH, 12))
        self.assertEqual(self.counts(), {"expired": 1})

    def test_cut_again_when_less_is_allowed(self) -> None:
        self.cut()
        self.assertEqual([len(nonces) for nonces in self.ranges(self.next(max_nonces=6))], [5, 6, 4])
        self.assertEqual(self.look("SELECT DISTINCT parent FROM waiting"), [(None,), (1,)])
        sent = []
        for number in range(5):
            messages = self.next(max_nonces=6)
            sent += self.ranges(messages)
            self.wait(self.submissions.confirmed(self.send(messages, str(number)), str(number), 12))
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
        self.assertEqual(self.look("SELECT count(DISTINCT parent) FROM waiting"), [(1,)])

    def test_a_smaller_one_does_not_wait_for_a_large_one(self) -> None:
        self.send(self.cut())
        small = self.record(1000)
        self.record(*range(2000, 2025))
        self.assertEqual(self.ids(self.cut()), [small])
