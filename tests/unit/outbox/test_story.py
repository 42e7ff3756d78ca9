"""The story of a batch: the ways that it came, and each transaction that it was in."""

from __future__ import annotations

from typing import Any

from dapi.errors import UnknownBatchError
from dapi.messages import Kind, State, Via, content_id
from dapi.outbox import queries
from dapi.outbox.story import BatchStory, TransactionRecord
from tests.batches import generated_batch
from tests.unit.outbox.outbox_case import entry
from tests.unit.submission.submissions_case import HASH, OTHER, SubmissionsTestCase

THIRD = "EF" * 32
REFUSAL = "sdk 5: 3 are smaller than 5: insufficient funds; send coins to gonka1"


class StoryTests(SubmissionsTestCase):
    def story(self, batch_id: str) -> BatchStory:
        return self.clock.wait_for(self.outbox.story(batch_id))

    def told(self, batch_id: str) -> list[tuple[Any, ...]]:
        """Of each transaction the hash, the code, the codespace, the block, and how many there were."""
        return [
            (one.tx_hash, one.code, one.codespace, one.included_height, one.times)
            for one in self.story(batch_id).transactions
        ]

    def deliver(self, via: Via) -> str:
        batch = generated_batch(block_height=10, nonces=[1], dist=[0.5])
        batch_id = content_id(batch)
        self.wait(self.recorder.submit_poc_batch(batch, batch_id=batch_id, node_id="node1", via=via))
        return batch_id

    def test_unknown(self) -> None:
        self.record(1)
        with self.assertRaisesRegex(UnknownBatchError, "'other'"):
            self.story("other")

    def test_the_beginning_of_an_id(self) -> None:
        for batch_id in ("beginning-1", "beginning-2", "begin", "beginning-10"):
            self.wait(self.outbox.put(entry(batch_id)))
        self.assertEqual(self.story("begin").row.seq, 3)
        self.assertEqual(self.story("beginning-1").row.seq, 1)
        with self.assertRaisesRegex(UnknownBatchError, "more than one"):
            self.story("beginning")
        with self.assertRaisesRegex(UnknownBatchError, "no batch has the id 'beg'"):
            self.story("beg")
        with self.assertRaisesRegex(UnknownBatchError, "no batch has the id 'beginning-3'"):
            self.story("beginning-3")
        batch_id = self.record(1)
        self.assertEqual(self.story(batch_id[:8]).row, self.rows()[batch_id])
        self.wait(self.submissions.fail(self.send(self.next(max_nonces=1)), HASH, "no"))
        self.assertEqual(self.story(batch_id[:63]).row, self.rows()[batch_id])

    def test_the_beginning_is_looked_for_along_the_index_of_ids(self) -> None:
        plan = self.look(f"EXPLAIN QUERY PLAN {queries.BEGINNING_WITH}".replace(":begin", "'a'").replace(":end", "'b'"))
        steps = [step for *_, step in plan if "finished" in step]
        # That of each stage; the stages are found along the same index.
        self.assertIn(
            "SEARCH finished USING COVERING INDEX finished_ids (height=? AND batch_id>? AND batch_id<?)", steps
        )
        self.assertTrue(all(step.startswith("SEARCH") and "INDEX" in step for step in steps), steps)

    def test_a_batch_that_was_just_stored(self) -> None:
        batch_id = self.record(1)
        story = self.story(batch_id)
        self.assertEqual(story.row, self.rows()[batch_id])
        self.assertEqual((story.attempts, story.parts, story.transactions), (0, {}, []))

    def test_deliveries_are_counted_by_way(self) -> None:
        for via in (Via.WEBSOCKET, Via.HTTP, Via.HTTP):
            batch_id = self.deliver(via)
        self.assertEqual(self.story(batch_id).ways, {Via.WEBSOCKET: 1, Via.HTTP: 2})
        self.wait(self.submissions.confirm(self.send(self.next()), HASH, 12))
        for via in (Via.WEBSOCKET, Via.HTTP):
            self.deliver(via)
        self.assertEqual(self.story(batch_id).ways, {Via.WEBSOCKET: 2, Via.HTTP: 3})

    def test_deliveries_of_one_commit_are_counted_by_way(self) -> None:
        batch = generated_batch(block_height=10, nonces=[1], dist=[0.5])
        batch_id = content_id(batch)
        stored = [
            self.recorder.submit_poc_batch(batch, batch_id=batch_id, node_id="node1", via=via)
            for via in (Via.HTTP, Via.WEBSOCKET, Via.HTTP)
        ]
        for each in stored:
            self.wait(each)
        self.assertEqual(self.story(batch_id).ways, {Via.WEBSOCKET: 1, Via.HTTP: 2})

    def test_ways_that_an_earlier_version_did_not_count(self) -> None:
        batch_id = self.record(1)
        self.execute(self.database, "UPDATE unfinished SET seen_by_http = NULL")
        self.assertEqual(self.story(batch_id).ways, {Via.HTTP: 1})
        self.record(1)
        self.assertIsNone(self.story(batch_id).ways)

    def test_from_a_refusal_to_the_block(self) -> None:
        batch_id = self.record(1)
        self.clock.advance(100)
        self.wait(self.submissions.store_again(self.send(self.next()), HASH, REFUSAL))
        self.assertEqual(
            self.story(batch_id).transactions, [TransactionRecord(HASH, 5, "sdk", REFUSAL, None, 100, 100)]
        )
        self.clock.advance(50)
        sent = self.send(self.next(), OTHER)
        self.assertEqual(
            self.story(batch_id).transactions,
            [
                TransactionRecord(HASH, 5, "sdk", REFUSAL, None, 100, 100),
                TransactionRecord(OTHER, None, None, "in flight", None, None, None),
            ],
        )
        self.wait(self.submissions.confirm(sent, OTHER, 14))
        self.assertEqual(self.told(batch_id), [(HASH, 5, "sdk", None, 1), (OTHER, 0, None, 14, 1)])
        self.assertEqual(self.story(batch_id).transactions[1], TransactionRecord(OTHER, 0, None, None, 14, 150, 150))

    def test_equal_answers_are_counted_and_the_last_is_told(self) -> None:
        batch_id = self.record(1)
        for number in range(50):
            reason = f"sdk 5: {number} are smaller than 5"
            self.wait(self.submissions.store_again(self.send(self.next(), f"{number:064X}"), f"{number:064X}", reason))
            self.clock.advance(1)
        (one,) = self.story(batch_id).transactions
        self.assertEqual(
            (one.times, one.first_at, one.last_at, one.reason), (50, 0, 49, "sdk 5: 49 are smaller than 5")
        )
        self.assertEqual(one.tx_hash, f"{49:064X}")
        self.assertEqual(self.look("SELECT count(*) FROM earlier_transactions"), [(1,)])

    def test_one_that_vanished_has_no_code(self) -> None:
        batch_id, reason = self.record(1), "in no block when its time had passed"
        for _ in range(2):
            self.clock.advance(10)
            self.wait(self.submissions.store_again(self.send(self.next()), HASH, reason, has_vanished=True))
        story = self.story(batch_id)
        self.assertEqual(story.transactions, [TransactionRecord(HASH, None, None, reason, None, 10, 20, 2)])
        self.assertEqual(story.attempts, 2)

    def test_one_that_found_the_batch_in_a_block(self) -> None:
        batch_id, reason = self.record(1), "inference 1105: duplicate"
        self.wait(self.submissions.confirm(self.send(self.next()), HASH, 13, reason=reason))
        self.assertEqual(self.rows()[batch_id].state, State.CONFIRMED)
        self.assertEqual(
            self.story(batch_id).transactions, [TransactionRecord(HASH, 1105, "inference", reason, 13, 0, 0)]
        )

    def test_a_batch_that_expired_before_it_was_sent_was_in_none(self) -> None:
        batch_id = self.record(1)
        self.wait(self.submissions.expire(10, Kind.GENERATED, "its window has ended"))
        self.assertEqual(self.told(batch_id), [])

    def test_failed_and_sent_again(self) -> None:
        batch_id = self.record(1)
        self.wait(self.submissions.fail(self.send(self.next()), HASH, "inference 1107: too late"))
        failed = [(HASH, 1107, "inference", None, 1)]
        self.assertEqual(self.told(batch_id), failed)
        self.wait(self.outbox.retry(batch_id))
        self.assertEqual(self.told(batch_id), failed)
        self.wait(self.submissions.fail(self.send(self.next(), OTHER), OTHER, "inference 1107: too late"))
        self.assertEqual(self.told(batch_id), [*failed, (OTHER, 1107, "inference", None, 1)])

    def test_parts(self) -> None:
        batch_id = self.record(*range(25))
        first, second, third = self.next(max_nonces=10)
        self.send([first, second])
        story = self.story(batch_id)
        self.assertEqual(story.parts, {"in_flight": 2, "stored": 1})
        self.assertEqual(self.told(batch_id), [(HASH, None, None, None, 1)])
        self.wait(self.submissions.confirm([first.in_flight(), second.in_flight()], HASH, 12))
        self.wait(self.submissions.store_again(self.send([third], OTHER), OTHER, REFUSAL))
        self.wait(self.submissions.confirm(self.send([third], THIRD), THIRD, 13))
        whole = [(HASH, 0, None, 12, 1), (OTHER, 5, "sdk", None, 1), (THIRD, 0, None, 13, 1)]
        self.assertEqual(sorted(self.told(batch_id)), sorted(whole))
        self.assertEqual((self.story(batch_id).parts, self.counts()), ({}, {"confirmed": 1}))

    def test_a_claim_of_ours_came_no_way(self) -> None:
        self.wait(self.outbox.put(entry("claim-1", kind=Kind.CLAIM, node_id=None, via=Via.OWN)))
        self.assertEqual(self.story("claim-1").ways, {Via.OWN: 1})

    def test_a_damaged_row_is_told_as_far_as_it_goes(self) -> None:
        batch_id = self.record(1)
        self.execute(self.database, "UPDATE unfinished SET kind = x'ff00ff', attempts = 'often'")
        story = self.story(batch_id)
        self.assertEqual((story.row.reason, story.ways, story.attempts), ("damaged on disk: kind", None, 0))

    def test_what_is_no_text_of_a_transaction_is_marked_as_such(self) -> None:
        batch_id = self.record(1)
        self.wait(self.submissions.store_again(self.send(self.next()), HASH, "sdk 5: no"))
        self.execute(self.database, "UPDATE earlier_transactions SET reason = CAST('sdk 5: ' || x'ff' AS TEXT)")
        self.assertEqual([one.reason for one in self.story(batch_id).transactions], ["sdk 5: \ufffd"])
