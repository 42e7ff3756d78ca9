"""Messages whose window has ended expire, those whose window ends soon are told; on a real database."""

from __future__ import annotations

from twisted.internet.defer import gatherResults
from twisted.logger import LogLevel

from dapi.chain.keyring import SigningKey
from dapi.messages import Kind, Via
from dapi.orchestration.seed import seed_entry
from dapi.outbox.outbox import OutboxEntry
from dapi.phases.phases import EpochParameters, PocStage, regular_stage
from dapi.submission.deadlines import Deadlines, LateMessages
from tests.logs import log_of
from tests.unit.submission.submissions_case import HASH, SubmissionsTestCase

# Durations: 60 of generation, 5 to exchange, 5 to validation, 20 of it.
PARAMETERS = EpochParameters(400, 60, 5, 5, 20)
EXCHANGE_END, VALIDATION_END = 65, 85


def stage(start: int) -> PocStage:
    return regular_stage(PARAMETERS, 1, start)


class DeadlineTests(SubmissionsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.deadlines = Deadlines(self.submissions)
        self.deadlines.remember([stage(100)])
        self.log = log_of(self)

    def check(self, height: int) -> list[LateMessages]:
        """What is late at a height."""
        late: list[LateMessages] = self.wait(self.deadlines.check(height))
        return late

    def test_stored_messages_expire_when_their_window_has_ended(self) -> None:
        batch_id = self.record(1, height=100)
        # What has just come is likely to be in a block in time.
        self.assertEqual(self.check(100 + EXCHANGE_END - 1), [])
        self.clock.advance(16)
        self.assertEqual(self.check(100 + EXCHANGE_END - 1), [LateMessages(100, Kind.GENERATED, 1)])
        self.assertEqual((self.counts(), self.deadlines.blocks_left), ({"stored": 1}, 1))
        self.assertEqual(self.check(100 + EXCHANGE_END), [])
        self.assertEqual(self.deadlines.blocks_left, None)
        reason = f"its window ended with block {100 + EXCHANGE_END}"
        self.assertEqual((self.counts(), self.rows()[batch_id].reason), ({"expired": 1}, reason))
        self.assertEqual(len(self.log.lines(containing=f"1 generated messages of stage 100 expired: {reason}")), 1)
        self.assertEqual(self.check(100 + EXCHANGE_END + 1), [])
        self.assertEqual(len(self.log.events), 1)

    def test_a_seed_that_is_late_is_urgent_at_once_and_a_lost_one_is_critical(self) -> None:
        key = SigningKey(b"\1" * 32)
        self.wait(self.outbox.put(seed_entry(key, 1, 100)))
        self.assertEqual(self.check(101), [])
        self.clock.advance(16)
        self.assertEqual(self.check(102), [LateMessages(100, Kind.SEED, 83)])
        self.wait(self.submissions.store_again(self.send(self.next(height=103)), HASH, "authz 2: no grant"))
        self.check(100 + VALIDATION_END)
        self.assertEqual(self.counts(), {"expired": 1})
        self.assertEqual(len(self.log.lines(LogLevel.critical, "the seed of stage 100 expired")), 1)
        reason = "its window ended with block 185; before: authz 2: no grant"
        self.assertEqual(self.look("SELECT reason FROM finished"), [(reason,)])

    def test_the_blocks_left_are_those_of_the_window_that_ends_first(self) -> None:
        self.assertIs(self.deadlines.blocks_left, None)
        self.deadlines.remember([stage(200)])
        for height in (200, 100):
            self.record(1, height=height)
            self.record_verdict(height=height)
        self.check(110)
        self.assertEqual(self.deadlines.blocks_left, 100 + EXCHANGE_END - 110)
        self.check(100 + EXCHANGE_END - 1)
        self.assertEqual(self.deadlines.blocks_left, 1)
        # The batch has expired, the verdict of the same stage is next.
        self.check(100 + EXCHANGE_END)
        self.assertEqual(self.deadlines.blocks_left, VALIDATION_END - EXCHANGE_END)

    def test_none_are_left_while_a_transaction_is_not_decided_after_the_end(self) -> None:
        self.record(1, height=100)
        self.send(self.next(height=101))
        self.clock.advance(16)
        for height, left in ((100 + EXCHANGE_END, 0), (100 + EXCHANGE_END + 9, 0)):
            self.assertEqual(self.check(height), [])
            self.assertEqual(self.deadlines.blocks_left, left)

    def test_the_window_that_ends_first_is_not_that_of_the_first_stage(self) -> None:
        self.deadlines.remember([stage(95)])
        self.record(1, height=100)
        self.send(self.next(height=101))
        self.record_verdict(height=95)
        self.clock.advance(16)
        self.check(100 + EXCHANGE_END)
        self.assertEqual((self.counts(), self.deadlines.blocks_left), ({"in_flight": 1, "stored": 1}, 0))

    def test_a_window_that_has_ended_counts_beside_one_that_has_not(self) -> None:
        self.deadlines.remember([stage(15)])
        self.record(1, height=100)
        self.record_verdict(height=15)
        for kind in (Kind.GENERATED, Kind.VALIDATED):
            self.send(self.next(height=101, kinds=frozenset({kind})), tx_hash=kind)
        self.clock.advance(16)
        self.check(15 + VALIDATION_END + 5)
        self.assertEqual((self.counts(), self.deadlines.blocks_left), ({"in_flight": 2}, 0))

    def test_a_message_is_late_in_the_last_three_blocks(self) -> None:
        self.record(1, height=100)
        self.clock.advance(16)
        late = [LateMessages(100, Kind.GENERATED, left) for left in (3, 2, 1)]
        checks = [self.check(100 + EXCHANGE_END - left) for left in (4, 3, 2, 1)]
        self.assertEqual(checks, [[], *([each] for each in late)])

    def test_what_no_stage_is_for_ends_and_a_stage_that_is_known_goes_on(self) -> None:
        run = OutboxEntry("of-no-stage", Kind.GENERATED, "node1", 99, 1, Via.HTTP, b"message", "run")
        known = OutboxEntry("of-a-stage", Kind.GENERATED, "node1", 100, 1, Via.HTTP, b"message", "run")
        self.wait(gatherResults([self.outbox.put(run), self.outbox.put(known)]))
        self.assertEqual(self.wait(self.deadlines.end_without_stage(150)), 1)
        self.assertEqual(self.look("SELECT batch_id FROM unfinished"), [("of-a-stage",)])

    def test_each_kind_has_its_own_window(self) -> None:
        self.record(1, height=100)
        self.record_verdict(height=100)
        self.check(100 + EXCHANGE_END)
        self.assertEqual(self.counts(), {"expired": 1, "stored": 1})
        self.check(100 + VALIDATION_END)
        self.assertEqual(self.counts(), {"expired": 2})

    def test_what_the_chain_says_later_counts(self) -> None:
        self.record(1, height=100)
        longer = EpochParameters(400, 60, 9, 9, 20)
        self.deadlines.remember([regular_stage(longer, 1, 100)])
        self.check(100 + EXCHANGE_END)
        self.assertEqual(self.counts(), {"stored": 1})

    def test_the_latest_50_stages_are_remembered(self) -> None:
        for start in range(200, 10_000, 100):
            self.deadlines.remember([stage(start)])
        self.record(1, height=9900 - 49 * 100)
        self.record(1, height=9900 - 50 * 100)
        self.check(100_000)
        self.assertEqual(self.counts(), {"expired": 1, "stored": 1})

    def test_many_at_once_are_bounded_too(self) -> None:
        self.deadlines.remember(stage(start) for start in range(200, 10_000, 100))
        self.record(1, height=100)
        self.record(1, height=9900)
        self.check(100_000)
        self.assertEqual(self.counts(), {"expired": 1, "stored": 1})

    def test_an_old_transaction_is_told_and_left_to_the_submitter(self) -> None:
        self.record(1, height=100)
        self.send(self.next(height=101))
        self.assertEqual(self.check(100 + EXCHANGE_END - 3), [])
        self.clock.advance(21)
        self.assertEqual(len(self.check(100 + EXCHANGE_END - 3)), 1)
        self.check(100 + EXCHANGE_END + 1)
        self.assertEqual(self.counts(), {"in_flight": 1})
        self.assertEqual(self.wait(self.submissions.expire(100, Kind.GENERATED, "late")), 0)
