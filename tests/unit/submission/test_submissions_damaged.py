"""What the disk has damaged is not sent, fails with a reason, and stands in nobody's way; on a real database."""

from __future__ import annotations

from dapi.messages import State
from tests.unit.submission.submissions_case import HASH, OTHER, SubmissionsTestCase


class DamageTests(SubmissionsTestCase):
    def assert_failed(self, batch_id: str) -> None:
        row = self.rows()[batch_id]
        self.assertEqual((row.state, row.tx_hash), (State.FAILED, None))
        self.assertIn("damaged on disk", row.reason or "")

    def test_it_fails_and_the_others_go_on(self) -> None:
        first, damaged, last = (self.record(nonce) for nonce in range(3))
        self.damage(damaged)
        self.assertEqual(self.ids(self.next()), [first, last])
        self.assertEqual(self.counts(), {"failed": 1, "stored": 2})
        self.assert_failed(damaged)

    def test_sent_again_it_fails_again(self) -> None:
        damaged = self.record(1)
        self.damage(damaged)
        for _ in range(2):
            self.assertEqual(self.next(), [])
            self.assert_failed(damaged)
            self.wait(self.outbox.retry(damaged))
        self.assertEqual(self.counts(), {"stored": 1})

    def test_one_that_failed_for_another_reason_is_sound_when_it_goes_again(self) -> None:
        batch_id = self.record(1)
        self.wait(self.submissions.fail(self.send(self.next()), HASH, "blocked"))
        self.wait(self.outbox.retry(batch_id))
        self.assertEqual(self.ids(self.next()), [batch_id])

    def test_a_large_one_is_not_cut(self) -> None:
        damaged, small = self.record(*range(25)), self.record(100)
        self.damage(damaged)
        self.assertEqual(self.ids(self.next(max_nonces=10)), [small])
        self.assert_failed(damaged)
        self.assertEqual(self.look("SELECT count(*) FROM unfinished"), [(1,)])

    def test_a_part_fails_its_batch_when_the_others_are_decided(self) -> None:
        batch_id = self.record(*range(25))
        parts = self.next(max_nonces=10)
        first = self.send(parts[:1])
        self.damage(f"{batch_id}-10-19")
        self.assertEqual(self.next(max_nonces=10), [])
        self.assertEqual(self.counts(), {"in_flight": 1})
        self.wait(self.submissions.confirm(first, HASH, 12))
        self.assert_failed(batch_id)
        self.assertEqual(self.look("SELECT * FROM unfinished"), [])
        # As a whole it is sound, and may go again.
        self.wait(self.outbox.retry(batch_id))
        self.assertEqual(len(self.send(self.next(max_nonces=10), OTHER)), 3)
