"""What is lost is logged once, with its number and its reason; what is no loss is not."""

from __future__ import annotations

from twisted.logger import LogLevel

from dapi.chain.keyring import SigningKey
from dapi.messages import Kind
from dapi.orchestration.seed import seed_entry
from tests.logs import log_of
from tests.unit.submission.submissions_case import HASH, SubmissionsTestCase


class LossTests(SubmissionsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log = log_of(self)

    def test_what_failed(self) -> None:
        for nonce in range(2):
            self.record(nonce)
        self.wait(self.submissions.fail(self.send(self.next()), HASH, "inference 1155: blocked"))
        line = "2 generated messages of stage 10 failed: inference 1155: blocked"
        self.assertEqual(self.log.lines(LogLevel.error), [line])
        self.assertEqual(self.log.lines(LogLevel.critical), [])

    def test_a_seed_that_failed_costs_the_whole_stage(self) -> None:
        self.wait(self.outbox.put(seed_entry(SigningKey(b"\1" * 32), 1, 10)))
        self.wait(self.submissions.fail(self.send(self.next()), HASH, "no"))
        self.assertEqual(self.log.lines(LogLevel.error), ["1 seed messages of stage 10 failed: no"])
        self.assertEqual(self.log.lines(LogLevel.critical), ["the seed of stage 10 failed: the stage counts nothing"])

    def test_what_expired_in_several_steps_is_told_in_one_line(self) -> None:
        for nonce in range(3):
            self.record(nonce)
        self.assertEqual(self.wait(self.submissions.expire(10, Kind.GENERATED, "its window ended")), 3)
        self.assertEqual(self.log.lines(LogLevel.error), ["3 generated messages of stage 10 expired: its window ended"])

    def test_what_is_no_loss_and_what_was_nothing_is_not_told(self) -> None:
        self.assertEqual(self.wait(self.submissions.expire(10, Kind.GENERATED, "its window ended")), 0)
        self.record(1)
        expired = self.submissions.expire(10, Kind.GENERATED, "it is not owed any more", is_loss=False)
        self.assertEqual(self.wait(expired), 1)
        self.assertEqual(self.log.lines(LogLevel.error), [])
