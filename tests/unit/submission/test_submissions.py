"""Messages go out of the outbox and come to their end, on a real database: in order, bounded, each once."""

from __future__ import annotations

import time
import zlib
from functools import partial
from typing import Any

from twisted.internet.defer import gatherResults

from dapi.chain.keyring import SigningKey
from dapi.errors import UnknownBatchError
from dapi.messages import Kind, Via
from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from dapi.orchestration.seed import seed_entry
from dapi.orchestration.stages import StageBook
from dapi.outbox.outbox import OutboxEntry
from dapi.phases.phases import ConfirmationEvent, EpochParameters, confirmation_stage, regular_stage
from dapi.submission.node_shares import STEP_BYTES
from tests.unit.submission.submissions_case import HASH, OTHER, SubmissionsTestCase

MANY = 100_000


class ChoiceTests(SubmissionsTestCase):
    def chosen(self, **room: Any) -> list[tuple[int, str, int]]:
        """Send all that is stored; return stage, kind and number of messages of each transaction, in order."""
        transactions: list[tuple[int, str, int]] = []
        while messages := self.send(self.next(**room), str(len(transactions))):
            ((height, kind),) = {(message.height, message.kind) for message in messages}
            transactions.append((height, kind.value, len(messages)))
        return transactions

    def test_the_seed_goes_first_and_alone_then_the_oldest_stage_each_kind_by_itself(self) -> None:
        self.record(1, height=20)
        self.record_verdict(height=10)
        self.record(2)
        self.record(3)
        key = SigningKey(b"\1" * 32)
        # Also where there are two of a stage.
        for epoch, height in ((1, 10), (2, 10), (3, 20)):
            self.wait(self.outbox.put(seed_entry(key, epoch, height)))
        seeds = [(10, "seed", 1), (10, "seed", 1), (20, "seed", 1)]
        others = [(10, "generated", 2), (10, "validated", 1), (20, "generated", 1)]
        self.assertEqual(self.chosen(), seeds + others)

    def test_what_expires_first_goes_first(self) -> None:
        parameters = EpochParameters(400, 60, 5, 5, 20)
        regular = regular_stage(parameters, 1, 10)
        event = ConfirmationEvent(1, trigger_height=30, generation_start=31, seed_block_hash="ab")
        for stage in (regular, confirmation_stage(EpochParameters(400, 10, 5, 5, 20), event)):
            self.wait(StageBook(self.database).begin(stage, 3))
        for kind, height in (
            (Kind.CLAIM, 10),
            (Kind.VALIDATED, 10),
            (Kind.GENERATED, 10),
            (Kind.GENERATED, 30),
            (Kind.HARDWARE, 410),
            # Its stage is not known.
            (Kind.VALIDATED, 5),
        ):
            self.wait(self.outbox.put(OutboxEntry(f"{kind}-{height}", kind, None, height, 1, Via.OWN, b"\x10\1")))
        # The ends: 45, 75, 95, 410 (the next PoC), 496, unknown.
        order = [(30, "generated"), (10, "generated"), (10, "validated")]
        order += [(410, "hardware"), (10, "claim"), (5, "validated")]
        self.assertEqual([(height, kind) for height, kind, _ in self.chosen()], order)

    def test_near_the_end_of_a_window_few_go_together(self) -> None:
        # Batches until the block 75.
        self.wait(StageBook(self.database).begin(regular_stage(EpochParameters(400, 60, 5, 5, 20), 1, 10), 3))
        for nonce in range(40):
            self.record(nonce)
        for height, number in ((71, 40), (72, 16), (73, 4), (74, 1), (75, 1)):
            self.assertEqual(len(self.next(height=height, transactions=1000)), number, f"for block {height}")
        # All that wait have to find room.
        self.assertEqual(len(self.next(height=75, transactions=20)), 4)
        sent = 0
        while messages := self.send(self.next(height=75, transactions=20 - sent), str(sent)):
            sent += 1
        self.assertLessEqual(sent, 20)
        self.assertEqual((messages, self.counts()), ([], {"in_flight": 40}))

    def test_of_one_stage_and_kind_as_they_came(self) -> None:
        ids = [self.record(nonce) for nonce in (3, 1, 2)]
        self.assertEqual(self.ids(self.next()), ids)

    def senders(self, transactions: int) -> list[str]:
        """Send so many transactions in a round; return of which nodes the messages of each are."""
        found = []
        for number in range(transactions):
            messages = self.send(self.next(max_bytes=700_000), f"{self.clock.seconds()}-{number}")
            seqs = [message.seq for message in messages]
            rows = self.look(f"SELECT DISTINCT node_id FROM unfinished WHERE seq IN ({','.join(map(str, seqs))})")
            found.append("+".join(sorted(node for (node,) in rows)))
        return found

    def test_a_node_that_brings_too_much_lets_the_others_go_first(self) -> None:
        self.bring("greedy", 60, 600_000)
        for node in ("node1", "node2"):
            self.bring(node, 3, 100_000)
        # 16 MiB are 28 of its messages.
        self.assertEqual(self.senders(28), ["greedy"] * 28)
        self.assertEqual(self.senders(3), ["node1+node2", "greedy", "greedy"])
        self.bring("node3", 1, 1)
        self.clock.advance(1)
        self.assertEqual(self.senders(2), ["node3", "greedy"])

    def test_those_who_bring_too_much_take_turns_by_steps(self) -> None:
        self.bring("greedy", 90, 600_000)
        self.bring("other", 60, 600_000)
        sent = self.senders(28 * 4)
        self.assertEqual(sent, ["greedy"] * 28 + ["other"] * 28 + ["greedy"] * 28 + ["other"] * 28)

    def test_what_goes_with_a_message_counts_as_the_nodes_too(self) -> None:
        # 256 bytes are counted beside its own.
        for size, then in ((STEP_BYTES - 256, "node1"), (STEP_BYTES - 257, "greedy+node1")):
            self.begin_anew()
            self.bring("greedy", 1, size)
            self.bring("greedy", 1, 1)
            self.bring("node1", 1, 1)
            self.assertEqual(self.senders(2), ["greedy", then])
            self.execute(self.database, "DELETE FROM unfinished")

    def keep(self, run: str, *, height: int = 10, number: int = 1) -> None:
        entries = [
            OutboxEntry(f"{run}-{height + each}", Kind.GENERATED, "node1", height + each, 1, Via.HTTP, b"\x10\1", run)
            for each in range(number)
        ]
        self.wait(gatherResults([self.outbox.put(entry) for entry in entries]))

    def stage(self, height: int, run: str | None) -> None:
        statement = "INSERT OR REPLACE INTO stages (height, stage, node_count, run) VALUES (?, '', 2, ?)"
        self.wait(self.database.write(lambda connection: connection.execute(statement, (height, run))))

    def test_what_is_of_another_run_or_of_no_stage_is_not_sent(self) -> None:
        self.stage(10, "right")
        self.stage(20, None)
        for run, height in (("right", 10), ("another", 10), ("right", 11), ("right", 20)):
            self.keep(run, height=height)
        self.assertEqual(self.chosen(), [(10, "generated", 1)])
        for height in (10, 12):
            self.keep("any", height=height)
        self.assertEqual(self.chosen(), [(10, "generated", 1)])
        self.stage(11, "right")
        self.stage(20, "right")
        self.assertEqual(self.chosen(), [(11, "generated", 1), (20, "generated", 1)])
        self.assertEqual(self.counts(), {"stored": 2, "in_flight": 4})

    def test_what_is_of_no_stage_costs_the_others_nothing(self) -> None:
        self.stage(9000, "right")
        self.keep("right", height=9000)
        alone = self.steps(self.next)
        self.keep("right", height=1, number=6000)
        self.assertEqual(self.steps(self.next), alone)
        self.assertEqual([message.height for message in self.next()], [9000])

    def test_nor_does_what_there_is_no_room_for(self) -> None:
        self.bring("node1", 20, 100)
        alone = self.steps(partial(self.next, max_messages=10))
        self.bring("node2", 500, 100)
        self.assertEqual(self.steps(partial(self.next, max_messages=10)), alone)
        self.assertEqual(len(self.next(max_messages=10)), 10)

    def test_a_kind_that_is_held_does_not_hold_up_the_others(self) -> None:
        self.record(1)
        self.record_verdict()
        verdicts = frozenset({Kind.VALIDATED})
        self.assertEqual(self.chosen(kinds=verdicts), [(10, "validated", 1)])
        self.assertEqual(self.chosen(), [(10, "generated", 1)])

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

    def test_what_just_fits_goes_along(self) -> None:
        # Each takes 256 bytes beside its own.
        self.bring("node1", 3, 744)
        self.assertEqual([len(self.next(max_bytes=size)) for size in (1999, 2000, 2999, 3000)], [1, 2, 2, 3])

    def test_one_that_is_larger_than_the_limit_goes_alone(self) -> None:
        self.record_verdict()
        self.record(1, height=20)
        self.assertEqual(len(self.next(max_bytes=100, max_nonces=1)), 1)

    def test_not_before_its_block(self) -> None:
        self.record(1)
        under_way = self.send(self.next())
        self.wait(self.submissions.store_again(under_way, HASH, "too early", not_before=15))
        self.assertEqual(self.next(height=14), [])
        self.assertEqual(len(self.next(height=15)), 1)

    def test_so_many_share_a_transaction_and_nothing_new_before_them(self) -> None:
        for number in range(4):
            self.record(number)
        under_way = self.send(self.next())
        self.record(5)
        self.record(6)
        self.wait(self.submissions.store_again(under_way, HASH, "one of them", max_messages=2))
        self.assertEqual({message.max_messages for message in self.next()}, {2})
        self.assertEqual([number for _, _, number in self.chosen()], [2, 2, 2])

    def test_no_more_than_there_is_room_for(self) -> None:
        for number in range(5):
            self.record(number)
        self.assertEqual([number for _, _, number in self.chosen(max_messages=2)], [2, 2, 1])

    def test_those_that_go_alone_do_not_hold_up_what_came_before_them(self) -> None:
        # Alone is the second of three: the first and the third share a transaction.
        first, second, third = self.record(1), self.record(2), self.record(3)
        under_way = self.send(self.next())
        self.wait(self.submissions.store_again(under_way[1:2], HASH, "one of them", max_messages=1))
        self.wait(self.submissions.store_again([under_way[0], under_way[2]], HASH, "its neighbour"))
        self.assertEqual(self.ids(self.next()), [first, third])
        self.send(self.next())
        self.assertEqual(self.ids(self.next()), [second])

    def test_many_that_go_alone_are_all_sent(self) -> None:
        for number in range(300):
            self.record(number)
        for _ in range(2):
            self.wait(self.submissions.store_again(self.send(self.next()), HASH, "one of them", max_messages=1))
            self.execute(self.database, "UPDATE unfinished SET not_before = 100 WHERE max_messages = 1")
        self.execute(self.database, "UPDATE unfinished SET not_before = 0")
        for number in range(300):
            self.assertEqual(len(self.send(self.next(), str(number))), 1)
        self.assertEqual(self.next(), [])

    def fill(self, number: int) -> None:
        """Record many at once, two of three of them generated, in seven stages."""
        body = b"\x18\x0a" + bytes(2000)
        self.execute(
            self.database,
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO unfinished"
            " (batch_id, kind, state, node_id, via, height, nonces, seen, received_at, last_seen_at, crc32, message)"
            " SELECT i, iif(i % 3, 'generated', 'validated'), 'stored', 'n', 'http', i % 7, 20, 1, 0, 0, ?, ? FROM n",
            number,
            zlib.crc32(body),
            body,
        )

    def test_a_huge_backlog_costs_no_time(self) -> None:
        self.fill(MANY)
        started = time.process_time()
        for number in range(16):
            self.assertGreater(len(self.send(self.next(height=10**6), str(number))), 10)
        self.wait(self.submissions.transactions_in_flight())
        self.wait(self.submissions.oldest_received_at())
        # Of CPU. 50 calls; one that read all rows would take as long alone.
        self.assertLess(time.process_time() - started, 1.0)

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
        self.assertEqual(self.look("SELECT state, tx_hash, tx_timeout_ns FROM unfinished"), [("in_flight", HASH, 77)])
        self.clock.advance(5)
        self.wait(self.submissions.confirm(under_way, HASH, 12))
        self.assertEqual(self.counts(), {"confirmed": 1})
        row = self.rows()[batch_id]
        self.assertEqual((row.tx_hash, row.included_height, row.finished_at, row.reason), (HASH, 12, 5.0, None))
        self.assertEqual(self.look("SELECT message FROM finished"), [(None,)])

    def test_told_twice_or_of_an_older_transaction_nothing_happens(self) -> None:
        self.record(1)
        under_way = self.send(self.next(), HASH)
        self.wait(self.submissions.store_again(under_way, HASH, "gone", has_vanished=True))
        self.send(self.next(), OTHER)
        self.wait(self.submissions.confirm(under_way, HASH, 12))
        self.wait(self.submissions.fail(under_way, HASH, "no"))
        self.wait(self.submissions.store_again(under_way, HASH, "no"))
        self.assertEqual(self.counts(), {"in_flight": 1})
        for _ in range(2):
            self.wait(self.submissions.confirm(under_way, OTHER, 13))
        self.assertEqual(self.counts(), {"confirmed": 1})

    def test_failed_is_kept_with_its_reason_and_can_be_sent_again(self) -> None:
        batch_id = self.record(1)
        before = self.next()
        self.wait(self.submissions.fail(self.send(before), HASH, "inference 1155: blocked"))
        self.assertEqual(self.counts(), {"failed": 1})
        self.assertEqual(self.rows()[batch_id].reason, "inference 1155: blocked")
        self.assertEqual(self.next(), [])
        self.wait(self.outbox.retry(batch_id))
        self.assertEqual(self.counts(), {"stored": 1})
        (again,) = self.next()
        self.assertEqual(again.body, before[0].body)
        # That nothing came of its transactions so far is known.
        self.assertEqual(again.attempts, 0)

    def test_what_did_not_fail_is_not_sent_again(self) -> None:
        waiting, confirmed = self.record(1), self.record_verdict(height=9)
        self.wait(self.submissions.confirm(self.send(self.next()[:1]), HASH, 12))
        expired = self.record(2, height=20)
        self.wait(self.submissions.expire(20, Kind.GENERATED, "its window ended"))
        before = self.counts()
        self.assertEqual(before, {"stored": 1, "confirmed": 1, "expired": 1})
        for batch_id in (waiting, confirmed, expired, "none"):
            self.assertRaises(UnknownBatchError, self.wait, self.outbox.retry(batch_id))
        self.assertEqual(self.counts(), before)

    def test_attempts_count_transactions_of_which_nothing_was_heard(self) -> None:
        self.record(1)
        for has_vanished, expected in ((True, 1), (False, 1), (True, 2)):
            under_way = self.send(self.next())
            self.wait(self.submissions.store_again(under_way, HASH, "why", has_vanished=has_vanished))
            self.assertEqual(self.next()[0].attempts, expected)

    def test_what_is_under_way_is_found_by_another_process(self) -> None:
        for number in range(5):
            self.record(number)
        self.record_verdict()
        messages = self.next()
        self.send(messages[:4], HASH, 70)
        self.send(messages[4:], OTHER, 71)
        self.begin_anew()
        found = self.wait(self.submissions.transactions_in_flight())
        self.assertEqual([(each.hash, each.timeout_ns) for each in found], [(HASH, 70), (OTHER, 71)])
        for transaction, sent in zip(found, (messages[:4], messages[4:]), strict=True):
            self.assertEqual(transaction.messages, [message.in_flight() for message in sent])
            self.assertTrue(transaction.may_be_known)
            size = sum(len(message.body) for message in sent)
            self.assertEqual((transaction.first_height, transaction.size), (11, size))
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
        self.wait(self.submissions.fail(self.send(self.next()), HASH, "no"))
        self.wait(self.outbox.retry(batch_id))
        self.assertEqual(len(heard), 2)

    def test_the_transactions_of_a_block_are_confirmed_with_one_commit(self) -> None:
        self.record(1)
        self.record(2, height=20)
        self.send(self.next(), HASH)
        self.send(self.next(), OTHER)
        in_flight = self.wait(self.submissions.transactions_in_flight())
        commits = self.database.commit_seconds.cumulative()[-1]
        self.wait(self.submissions.confirm_all([(each, 12) for each in in_flight]))
        self.assertEqual(self.database.commit_seconds.cumulative()[-1], commits + 1)
        self.assertEqual(self.counts(), {"confirmed": 2})
        self.assertEqual({row.included_height for row in self.rows().values()}, {12})

    def test_expired(self) -> None:
        self.record(1)
        self.record(2, height=20)
        under_way = self.send(self.next()[:1])
        self.assertEqual(self.wait(self.submissions.expire(20, Kind.GENERATED, "its window ended")), 1)
        self.assertEqual(self.wait(self.submissions.expire(10, Kind.GENERATED, "its window ended")), 0)
        self.assertEqual(self.counts(), {"in_flight": 1, "expired": 1})
        self.wait(self.submissions.confirm(under_way, HASH, 12))
        # Whole, as proof of what the node has done: only what the chain has needs to be kept no longer.
        bodies = dict(self.look("SELECT state, message FROM finished"))
        self.assertIsNone(bodies["confirmed"])
        self.assertEqual(list(MsgSubmitPocBatch.FromString(bodies["expired"]).nonces), [2])
