"""What is kept of the transactions of a message that goes on: of those with one answer the last, on a real database."""

from __future__ import annotations

from tests.unit.submission.submissions_case import SubmissionsTestCase


class EarlierTransactionsTests(SubmissionsTestCase):
    def test_an_answer_is_the_words_before_its_details(self) -> None:
        self.record(1)
        long = "no colon in it " * 10
        reasons = ["inference 1155: a: not you", "inference 1155: b: nor you", "no room: full", long]
        for number, reason in enumerate(reasons):
            self.wait(self.submissions.store_again(self.send(self.next(), f"hash {number}"), f"hash {number}", reason))
        rows = self.look("SELECT answer, tx_hash, reason, times FROM earlier_transactions ORDER BY tx_hash")
        expected = [
            ("inference 1155", "hash 1", reasons[1], 2),
            ("no room", "hash 2", reasons[2], 1),
            (long[:60], "hash 3", long, 1),
        ]
        self.assertEqual(rows, expected)
