"""Whether the chain has a verdict of ours already: told by what is confirmed, on a real database."""

from __future__ import annotations

from tests.unit.submission.submissions_case import HASH, SubmissionsTestCase

ANOTHER_KEY = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


class VerdictTests(SubmissionsTestCase):
    def is_on_chain(self) -> bool | None:
        """Whether what is to be sent next is on the chain."""
        answer: bool | None = self.wait(self.submissions.is_on_chain(self.next()[0]))
        return answer

    def confirm(self) -> None:
        self.wait(self.submissions.confirm(self.send(self.next()), HASH, 12))

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

    def test_one_on_another_participant_says_nothing(self) -> None:
        self.record_verdict(public_key=ANOTHER_KEY)
        self.confirm()
        self.record_verdict()
        self.assertIs(self.is_on_chain(), None)

    def test_one_that_is_not_there_any_more(self) -> None:
        self.record_verdict()
        self.confirm()
        self.record_verdict(n_invalid=2)
        (verdict,) = self.next()
        self.execute(self.database, "DELETE FROM unfinished")
        self.assertIs(self.wait(self.submissions.is_on_chain(verdict)), None)

    def test_the_same_one_from_other_lists(self) -> None:
        self.record_verdict(nonces=[1, 2])
        self.confirm()
        self.record_verdict(nonces=[3, 4])
        self.assertIs(self.is_on_chain(), True)

    def test_one_that_failed_is_not_on_the_chain(self) -> None:
        self.record_verdict(n_invalid=1)
        self.wait(self.submissions.fail(self.send(self.next()), HASH, "no"))
        self.record_verdict(n_invalid=2)
        self.assertIs(self.is_on_chain(), None)
