"""What becomes of the messages of a transaction, for each meaning of the chain's answer; on a real database."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel

from dapi.chain.rpc_answers import TxResult
from dapi.messages import Kind
from dapi.messages.cosmos_pb2 import Any as PackedAny
from dapi.messages.cosmos_pb2 import TxMsgData
from dapi.messages.host_pb2 import MsgClaimRewardsResponse
from dapi.submission.decisions import Answer
from dapi.submission.problems import HoldCause
from dapi.submission.rows import Message, TransactionInFlight
from tests.unit.submission.sending_case import LATEST, SIZE, SendingTestCase
from tests.unit.submission.submissions_case import HASH, OTHER

# The block that had the transaction.
BLOCK = 12


def of_block(code: int, codespace: str = "inference", log: str = "no") -> Answer:
    return Answer(code, codespace, log, BLOCK)


def of_mempool(code: int, codespace: str = "inference", log: str = "no") -> Answer:
    return Answer(code, codespace, log, None)


def second(code: int = 1145) -> Answer:
    """A block's answer that blames the second message."""
    return of_block(code, log="failed to execute message; message index: 1: no")


class DecisionsTestCase(SendingTestCase):
    def act(self, transaction: TransactionInFlight, answer: Answer) -> None:
        self.run_to_end(self.decisions.act(transaction, answer))


class ConfirmedTests(DecisionsTestCase):
    def confirm_all(self, *transactions: TransactionInFlight, data: bytes = b"") -> None:
        results = [(each, TxResult(each.hash, BLOCK, 0, "", "", data)) for each in transactions]
        self.run_to_end(self.decisions.confirm_all(results))

    def test_one_that_is_in_a_block_is_over_and_lets_more_be_sent(self) -> None:
        transaction = self.sent(2)
        before = self.pace.transactions
        self.problems.record_text("no answer")
        self.problems.hold(Kind.GENERATED, "sdk", 5, "no coins")
        self.confirm_all(transaction)
        self.assertEqual(self.counts(), {"confirmed": 2})
        self.assertEqual({row.included_height for row in self.rows().values()}, {BLOCK})
        self.assert_decided(transaction, "confirmed", "0")
        self.assertEqual(self.pace.transactions, before + 1)
        self.assertEqual((self.problems.last, self.problems.held), (None, {}))

    def test_claims_that_are_paid_are_confirmed_with_the_amount_and_the_others_fail(self) -> None:
        for number in (1, 2):
            self.put(Kind.CLAIM, number)
        transaction = self.send_next()
        paid, refused = MsgClaimRewardsResponse(amount=5, result="paid out"), MsgClaimRewardsResponse(result="too late")
        answers = [
            PackedAny(type_url="/inference.inference.MsgClaimRewardsResponse", value=answer.SerializeToString())
            for answer in (paid, refused)
        ]
        self.confirm_all(transaction, data=TxMsgData(msg_responses=answers).SerializeToString())
        ends = self.look("SELECT state, reason, tx_hash, included_height FROM finished ORDER BY batch_id")
        paid_one = ("confirmed", "paid 5: paid out", HASH, BLOCK)
        self.assertEqual(ends, [paid_one, ("failed", "not paid: too late", HASH, None)])
        self.assert_decided(transaction, "confirmed", "0")

    def test_what_an_earlier_version_sent_beside_a_claim_is_confirmed_with_it(self) -> None:
        self.put(Kind.CLAIM, 1)
        self.put(Kind.SEED, 1)
        seed, claim = self.next(), self.next(kinds=frozenset({Kind.CLAIM}))
        messages = self.send([*claim, *seed])
        transaction = TransactionInFlight(HASH, 7, messages, 11, SIZE)
        self.in_flight.add(transaction)
        self.confirm_all(transaction)
        self.assertEqual(self.look("SELECT state, included_height FROM finished"), [("confirmed", BLOCK)] * 2)

    def test_those_of_one_block_are_confirmed_with_few_commits_and_each_is_counted(self) -> None:
        """At most so many with one commit that what comes in does not wait long for it: about a thousand messages."""
        commits: list[int] = []

        def confirm_all(some: Sequence[tuple[TransactionInFlight, int]]) -> Deferred[None]:
            commits.append(sum(len(each.messages) for each, _ in some))
            self.assertEqual({height for _, height in some}, {BLOCK})
            return succeed(None)

        self.patch(self.submissions, "confirm_all", confirm_all)
        message = Message(1, Kind.GENERATED, 10, 1)
        many = [TransactionInFlight(f"{number}", 7, [message] * 500) for number in range(5)]
        for transaction in many:
            self.in_flight.add(transaction)
        self.confirm_all(*many)
        self.assertEqual(commits, [1000, 1000, 500])
        self.assertEqual(len(self.in_flight), 0)
        self.assertEqual(self.decisions.outcomes, {("confirmed", "0"): 5})


class StoredAgainTests(DecisionsTestCase):
    """The transaction is given up, and its messages go again."""

    def test_when_its_time_has_passed(self) -> None:
        transaction = self.sent(2)
        self.run_to_end(self.decisions.time_has_passed(transaction))
        # The chain may have had it and told nothing: it counts as an attempt.
        self.assertEqual(self.stored(), [("in no block when its time had passed", 0, 0, 1)] * 2)
        self.assert_decided(transaction, "vanished", "")
        line = f"transaction {HASH} is given up: in no block when its time had passed"
        self.assertEqual(self.log.lines(LogLevel.info, "given up"), [line])
        self.run_to_end(self.decisions.time_has_passed(self.send_next(OTHER)))
        self.assertEqual(self.decisions.outcomes, {("vanished", ""): 2})

    def test_when_its_timestamp_was_refused(self) -> None:
        transaction = self.sent(2)
        self.act(transaction, of_block(30, "sdk", "tx timed out"))
        self.assertEqual(self.stored(), [("sdk 30: tx timed out", 0, 0, 0)] * 2)
        self.assert_decided(transaction, "sign_again", "sdk/30")
        self.assertEqual(self.problems.held, {})

    def test_when_the_account_has_another_number_now(self) -> None:
        transaction = self.sent()
        self.chain.account_number = 8
        self.act(transaction, of_mempool(4, "sdk", "signature verification failed"))
        self.assertEqual(self.stored(), [("sdk 4: signature verification failed", 0, 0, 0)])
        self.assert_decided(transaction, "sign_again", "sdk/4")
        self.assertEqual((self.problems.held, self.signing.account_number), ({}, 8))

    def test_when_the_account_has_the_number_that_it_was_signed_for_the_key_is_a_problem(self) -> None:
        transaction = self.sent()
        self.act(transaction, of_mempool(4, "sdk", "signature verification failed"))
        self.assert_decided(transaction, "problem", "sdk/4")
        self.assertEqual(self.problems.causes, {Kind.GENERATED: HoldCause.KEY})
        ((reason, *rest),) = self.stored()
        self.assertEqual((reason, rest), (self.problems.held[Kind.GENERATED], [0, 0, 0]))
        self.assertIn("may sign for", reason)

    def test_when_the_chain_says_which_gas_limit_it_allows(self) -> None:
        transaction = self.sent()
        self.act(transaction, of_block(41, "sdk", "tx gas limit 1000000000 exceeds block max gas 90000"))
        self.assert_decided(transaction, "sign_again", "sdk/41")
        self.assertEqual((self.signing.gas_limit, self.problems.held, len(self.stored())), (90_000, {}, 1))

    def test_when_the_chain_does_not_say_it_the_gas_limit_is_a_problem(self) -> None:
        transaction = self.sent()
        self.act(transaction, of_block(41, "sdk", "too much gas"))
        self.assert_decided(transaction, "problem", "sdk/41")
        self.assertEqual((self.problems.causes, len(self.stored())), ({Kind.GENERATED: HoldCause.GAS}, 1))

    def test_when_the_network_has_moved(self) -> None:
        transaction = self.sent()
        self.act(transaction, of_mempool(1161, log="poc_v2_enabled"))
        self.assert_decided(transaction, "moved", "inference/1161")
        self.assertEqual(self.stored(), [("inference 1161: poc_v2_enabled", 0, 0, 0)])
        self.assertIn("inference 1161: poc_v2_enabled", str(self.problems.moved_reason))

    def test_too_many_messages_go_in_halves_and_the_next_transactions_have_fewer(self) -> None:
        transaction = self.sent(5)
        self.act(transaction, of_block(11, "sdk", "out of gas"))
        self.assertEqual(self.stored(), [("sdk 11: out of gas", 0, 2, 0)] * 5)
        self.assertEqual((self.pace.max_messages, self.pace.max_bytes), (2, 700_000))
        self.assert_decided(transaction, "too_much", "sdk/11")
        text = (
            f"a transaction of 5 messages and {SIZE} bytes was refused; the next ones are smaller: sdk 11: out of gas"
        )
        self.assertEqual(self.log.warnings("was refused"), [text])

    def test_of_two_messages_each_goes_alone(self) -> None:
        transaction = self.sent(2)
        self.act(transaction, of_block(2, "sdk", "tx parse error"))
        self.assertEqual([row[1:] for row in self.stored()], [(0, 1, 0)] * 2)
        self.assertEqual(self.pace.max_messages, 1)
        self.assert_decided(transaction, "too_much", "sdk/2")

    def test_too_many_bytes_go_in_halves_and_the_next_transactions_are_smaller(self) -> None:
        transaction = self.sent(4)
        self.act(transaction, of_mempool(21, "sdk", "Tx too large. Max size is 30000, but got 60000"))
        self.assertEqual([row[1:] for row in self.stored()], [(0, 2, 0)] * 4)
        self.assertEqual((self.pace.max_bytes, self.pace.max_messages), (30_000, 500))
        self.assert_decided(transaction, "too_large", "sdk/21")

    def test_what_cannot_be_smaller_waits_for_some_blocks(self) -> None:
        for answer, not_before in ((of_mempool(21, "rpc"), LATEST + 3), (of_block(21, "sdk"), BLOCK + 3)):
            transaction = self.sent()
            transaction.size = 1000
            self.act(transaction, answer)
            self.assertEqual([row[1:] for row in self.stored()], [(not_before, 1, 0)])
            self.execute(self.database, "DELETE FROM unfinished")

    def test_a_problem_holds_the_kind_back_and_says_what_to_do(self) -> None:
        transaction = self.sent(2)
        self.act(transaction, of_block(5, "sdk", "insufficient funds"))
        self.assert_decided(transaction, "problem", "sdk/5")
        (reason,) = set(self.problems.held.values())
        self.assertEqual(self.stored(), [(reason, 0, 0, 0)] * 2)
        self.assertTrue(reason.startswith("sdk 5: insufficient funds; send coins to "), reason)

    def test_when_nobody_is_blamed_in_halves(self) -> None:
        transaction = self.sent(5)
        self.act(transaction, of_block(1145))
        self.assertEqual(self.stored(), [("inference 1145: no", 0, 2, 0)] * 5)
        self.assert_decided(transaction, "final", "inference/1145")

    def test_an_index_in_a_transaction_of_an_earlier_version_blames_nobody(self) -> None:
        transaction = self.sent(2)
        transaction.account_number = None
        self.act(transaction, second())
        self.assertEqual([row[1:] for row in self.stored()], [(0, 1, 0)] * 2)


class BlamedTests(DecisionsTestCase):
    """The answer is about one message, or about all that are alike."""

    def test_final_from_a_block_it_fails_and_its_neighbours_go_again_at_once(self) -> None:
        transaction = self.sent(4)
        self.problems.hold(Kind.GENERATED, "sdk", 5, "no coins")
        self.act(transaction, second())
        self.assertEqual(self.counts(), {"stored": 3, "failed": 1})
        self.assertEqual(self.stored(), [("its transaction's neighbour failed", 0, 3, 0)] * 3)
        (failed,) = [row for row in self.rows().values() if row.state == "failed"]
        log = "failed to execute message; message index: 1: no"
        self.assertEqual((failed.reason, failed.tx_hash), (f"inference 1145: {log}", HASH))
        self.assert_decided(transaction, "final", "inference/1145")
        # The chain executes such messages: nothing holds them back any more.
        self.assertEqual(self.problems.held, {})

    def test_final_for_a_mempool_only_it_is_sent_again_some_blocks_later(self) -> None:
        transaction = self.sent()
        self.problems.hold(Kind.GENERATED, "sdk", 5, "no coins")
        self.act(transaction, of_mempool(1145))
        self.assertEqual(self.stored(), [("inference 1145: no", LATEST + 3, 0, 0)])
        self.assert_decided(transaction, "final", "inference/1145")
        self.assertEqual(set(self.problems.held), {Kind.GENERATED})

    def test_before_the_first_block_is_known_it_waits_for_the_third(self) -> None:
        transaction = self.sent()
        self.watcher.head = None
        self.act(transaction, of_mempool(1145))
        self.assertEqual([row[1] for row in self.stored()], [3])

    def test_one_that_cannot_be_read_alone_fails(self) -> None:
        transaction = self.sent()
        self.act(transaction, of_block(2, "sdk", "tx parse error"))
        self.assertEqual(self.counts(), {"failed": 1})
        self.assertEqual(self.pace.max_messages, 500)

    def duplicate(
        self, *, is_ours: bool | None, attempts: int, answer: Callable[..., Answer] = of_block
    ) -> dict[str, int]:
        """Have the chain say that it has a verdict already; return what became of it."""
        self.record_verdict()
        transaction = self.send_next()
        transaction.messages = [msgspec.structs.replace(transaction.messages[0], attempts=attempts)]
        known = {transaction.messages[0].seq: is_ours}
        self.patch(self.submissions, "is_on_chain", lambda verdict: succeed(known[verdict.seq]))
        self.act(transaction, answer(1160, log="there is one"))
        self.assert_decided(transaction, "duplicate", "inference/1160")
        return self.counts()

    def test_a_doubled_verdict_of_ours_is_confirmed(self) -> None:
        self.assertEqual(self.duplicate(is_ours=True, attempts=1), {"confirmed": 1})
        ((reason, height),) = self.look("SELECT reason, included_height FROM finished")
        self.assertEqual((reason, height), ("inference 1160: there is one", BLOCK))

    def test_where_the_chain_has_another_verdict_ours_fails(self) -> None:
        self.assertEqual(self.duplicate(is_ours=False, attempts=2), {"failed": 1})

    def test_a_verdict_of_which_a_transaction_vanished_came_by_that_one(self) -> None:
        self.assertEqual(self.duplicate(is_ours=None, attempts=2), {"confirmed": 1})

    def test_a_mempool_that_says_so_is_not_believed(self) -> None:
        """One node could have a verdict counted as confirmed that it has swallowed before."""
        self.assertEqual(self.duplicate(is_ours=None, attempts=2, answer=of_mempool), {"stored": 1})

    def test_a_verdict_that_was_in_no_other_transaction_is_not_ours(self) -> None:
        self.assertEqual(self.duplicate(is_ours=None, attempts=1), {"failed": 1})

    def test_outside_its_window_it_goes_again_in_the_first_block_of_it(self) -> None:
        parameters = self.chain.epoch.params.epoch_params
        parameters.epoch_length, parameters.poc_stage_duration, parameters.poc_exchange_duration = 400, 20, 5
        self.chain.epoch.latest_epoch.index, self.chain.epoch.latest_epoch.poc_start_block_height = 1, 10
        # The window has the blocks 11 to 35. A mempool spoke of the block after the latest one.
        for answer, not_before in ((of_block(1108), BLOCK + 1), (of_mempool(1108), LATEST + 2)):
            transaction = self.sent(2)
            self.act(transaction, answer)
            self.assertEqual(self.stored(), [("inference 1108: no", not_before, 0, 0)] * 2)
            self.assertNotIn(transaction, self.in_flight)
            self.execute(self.database, "DELETE FROM unfinished")
        self.assertEqual(self.decisions.outcomes, {("next_block", "inference/1108"): 2})

    def test_when_its_window_is_over_all_of_its_stage_and_kind_expires(self) -> None:
        transaction = self.sent(2)
        self.record(7)
        self.record(8, height=20)
        self.act(transaction, of_block(1108))
        self.assertEqual(self.counts(), {"expired": 3, "stored": 1})
        reasons = {row.reason for row in self.rows().values() if row.state == "expired"}
        self.assertEqual(reasons, {"inference 1108: no"})
        self.assert_decided(transaction, "next_block", "inference/1108")

    def test_one_that_was_decided_meanwhile_is_not_counted_twice_among_those_in_flight(self) -> None:
        transaction, another = self.sent(), self.sent(0, OTHER) if self.record(9) else None
        assert another is not None
        self.in_flight.remove(transaction)
        self.run_to_end(self.decisions.time_has_passed(transaction))
        self.assertEqual((len(self.in_flight), self.in_flight.size), (1, SIZE))


class CodeTests(DecisionsTestCase):
    def test_a_code_that_is_not_known_is_counted_as_other(self) -> None:
        """A chain may answer any number, and each would be one more value of a label."""
        self.sent()
        message = self.in_flight.all()[0]
        for code, codespace, label in (
            (1100, "inference", "inference/1100"),
            (1199, "inference", "inference/1199"),
            (1099, "inference", "other"),
            (1200, "inference", "other"),
            (63, "sdk", "sdk/63"),
            (64, "sdk", "other"),
            (1, "authz", "authz/1"),
            (16, "authz", "other"),
            (-32601, "rpc", "other"),
            (1, "rpc", "rpc/1"),
            (63, "rpc", "rpc/63"),
            (1, "made-up", "other"),
        ):
            self.decisions.outcomes.clear()
            self.act(message, of_mempool(code, codespace))
            self.assertEqual([label for _, label in self.decisions.outcomes], [label])
