"""What a mempool's answer to an offer changes, and what is offered again; on a real database."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail

from dapi.chain.rpc_answers import Broadcast
from dapi.errors import (
    ChainRefusedError,
    ChainStaleError,
    ChainUnavailableError,
    MempoolFullError,
)
from dapi.messages.sizes import MIB
from dapi.submission.rows import TransactionInFlight
from dapi.submission.sender import OFFERS_AT_ONCE
from tests.unit.submission.sender_case import SenderTestCase
from tests.unit.submission.sending_case import LATEST
from tests.unit.submission.submitter_case import status_at

FULL = "mempool is full: number of txs 5 (max: 5000), total txs bytes 9 (max: {})"


def refusal(node: str = "first:1") -> ChainRefusedError:
    error = ChainRefusedError(1155, "inference", f"{node} says no")
    error.node = node
    return error


class OfferTests(SenderTestCase):
    def test_what_a_mempool_takes_is_known_to_it(self) -> None:
        self.record(1)
        self.clock.advance(5)
        self.send_all()
        transaction = self.only()
        self.assertEqual(self.chain.sent, [transaction.hash])
        self.assertEqual((transaction.is_taken, transaction.may_be_known, transaction.offers), (True, True, 1))
        self.assertEqual((transaction.offered_at, transaction.is_being_offered), (5.0, False))
        self.assertEqual((transaction.account_number, transaction.first_height), (7, LATEST + 1))
        self.assertEqual((self.problems.last, self.chain.asked), (None, []))

    def test_what_one_node_refuses_the_others_are_asked_about_until_one_takes_it(self) -> None:
        self.record(1)
        self.chain.broadcast_error = refusal()
        # The first one has been asked.
        self.chain.others = {
            "full:1": MempoolFullError("full"),
            "first:1": None,
            "no:1": refusal("no:1"),
            "yes:1": None,
            "more:1": None,
        }
        self.send_all()
        self.assertEqual(self.chain.asked, ["full:1", "no:1", "yes:1"])
        self.assertEqual(self.chain.hashes_asked, {self.only().hash})
        self.assertEqual((self.only().is_taken, self.counts()), (True, {"in_flight": 1}))

    def test_what_all_refuse_is_sent_again_some_blocks_later(self) -> None:
        self.record(1)
        self.chain.broadcast_error = refusal()
        self.chain.others = {"no:1": refusal("no:1"), "full:1": MempoolFullError("full")}
        self.send_all()
        self.assertEqual(self.chain.asked, ["no:1", "full:1"])
        self.assertEqual(len(self.in_flight), 0)
        # What the first one said.
        self.assertEqual(self.stored(), [("inference 1155: first:1 says no", LATEST + 3, 0, 0)])
        self.assertEqual(self.problems.last, "inference 1155: first:1 says no")
        self.assertEqual(self.decisions.outcomes, {("final", "inference/1155"): 1})

    def test_where_another_node_gives_no_answer_it_may_have_it(self) -> None:
        self.record(1)
        self.chain.broadcast_error = refusal()
        self.chain.others = {"lost:1": ChainUnavailableError("no answer"), "yes:1": None}
        self.send_all()
        transaction = self.only()
        self.assertEqual((transaction.may_be_known, transaction.is_taken, self.chain.asked), (True, False, ["lost:1"]))
        self.assertEqual(self.problems.last, "no answer")

    def assert_that_only_time_decides_after(self, error: Exception) -> None:
        """A mempool may have it now: whatever others say later changes nothing."""
        self.record(1)
        self.chain.broadcast_error = error
        self.send_all()
        transaction = self.only()
        self.assertEqual((transaction.may_be_known, transaction.is_taken), (True, False))
        self.assertEqual(self.problems.last, str(error))
        for later in (refusal(), MempoolFullError("full")):
            self.chain.broadcast_error = later
            self.offer_again(transaction)
            self.assertEqual((self.problems.last, transaction.may_be_known), (str(later), True))
        self.assertEqual((self.counts(), self.decisions.outcomes), ({"in_flight": 1}, {}))

    def test_a_refusal_after_a_lost_answer_changes_nothing(self) -> None:
        self.assert_that_only_time_decides_after(ChainUnavailableError("no answer"))

    def test_nor_one_of_what_was_stale_and_may_be_in_a_block(self) -> None:
        self.assert_that_only_time_decides_after(ChainStaleError(18, "sdk", "already used timeout"))

    def test_each_further_offer_goes_to_another_node_first(self) -> None:
        self.record(1)
        self.send_all()
        for _ in range(2):
            self.clock.advance(7)
            self.offer_again(self.only())
        self.assertEqual((self.chain.turns, self.only().offers), ([0, 1, 2], 3))
        self.assertEqual((len(set(self.chain.sent)), self.only().offered_at), (1, 14.0))

    def test_it_is_being_offered_until_there_is_an_answer(self) -> None:
        answer: Deferred[Broadcast] = Deferred()
        patched = self.patch(self.chain, "broadcast_tx_sync", lambda raw, turn: answer)
        transaction = self.sent()
        offer = Deferred.fromCoroutine(self.sender.offer(transaction, b"raw"))
        self.assertTrue(transaction.is_being_offered)
        answer.errback(ValueError("a defect"))
        self.failureResultOf(offer, ValueError)
        self.assertFalse(transaction.is_being_offered)
        patched.restore()

    def test_a_node_that_hangs_is_asked_by_few_at_once(self) -> None:
        asked: list[bytes] = []

        def hang(raw: bytes, *, turn: int) -> Deferred[Broadcast]:
            asked.append(raw)
            return Deferred()

        self.patch(self.chain, "broadcast_tx_sync", hang)
        self.pace.max_messages = 1
        for nonce in range(3 * OFFERS_AT_ONCE):
            self.record(nonce)
        sending = Deferred.fromCoroutine(self.sender.send())
        for _ in range(10):
            self.wait(self.database.write(lambda connection: None))
        self.assertEqual((len(self.in_flight), len(asked)), (3 * OFFERS_AT_ONCE, OFFERS_AT_ONCE))
        sending.cancel()
        self.failureResultOf(sending, CancelledError)
        self.assertEqual(len(asked), OFFERS_AT_ONCE)

    def test_only_a_large_one_waits_for_a_turn_of_its_own(self) -> None:
        transaction = self.sent()
        for size, is_offered_at_once in ((MIB // 16, True), (MIB // 16 + 1, False)):
            self.chain.sent.clear()
            transaction.size = size
            offer = Deferred.fromCoroutine(self.sender.offer(transaction, b"raw"))
            self.assertEqual(bool(self.chain.sent), is_offered_at_once)
            self.wait(offer)
            self.assertEqual(len(self.chain.sent), 1)

    def test_what_the_network_has_moved_away_from_is_not_offered(self) -> None:
        transaction = self.sent()
        self.poc_version.refused("deprecated")
        self.offer_again(transaction)
        self.assertEqual((self.chain.sent, transaction.offers), ([], 0))
        ((reason, *_),) = self.stored()
        self.assertEqual(reason, self.poc_version.moved_reason)


class AgainTests(SenderTestCase):
    """The bytes are made anew, and offered again after a time."""

    def test_the_same_bytes_are_made_from_what_is_on_disk(self) -> None:
        for nonce in range(3):
            self.record(nonce)
        self.send_all()
        (found,) = self.wait(self.submissions.transactions_in_flight())
        # As another process would find it, without an account number.
        self.signing.signer = None
        self.offer_again(found)
        self.assertEqual(self.chain.sent, [found.hash] * 2)

    def test_what_signs_other_bytes_offers_nothing(self) -> None:
        self.record(1)
        self.send_all()
        self.signing.signer = None
        self.chain.account_number = 8
        self.offer_again(self.only())
        self.assertEqual((len(self.chain.sent), self.only().is_being_offered), (1, False))
        self.assertEqual(self.counts(), {"in_flight": 1})

    def test_what_is_not_whole_on_disk_offers_nothing(self) -> None:
        for nonce in range(3):
            self.record(nonce)
        self.send_all()
        self.execute(self.database, "DELETE FROM unfinished WHERE seq = 2")
        self.offer_again(self.only())
        self.assertEqual(len(self.chain.sent), 1)

    def due_after(self, **changes: Any) -> float:
        """After how many seconds a transaction that was offered just now is to be offered again, on half a second."""
        self.clock.advance(100)
        values = {"offers": 1, "offered_at": self.clock.seconds(), **changes}
        transaction = TransactionInFlight("AB", 7, [], **values)
        offered_at = self.clock.seconds()
        while not self.sender.is_to_be_offered(transaction):
            self.clock.advance(0.5)
            if self.clock.seconds() - offered_at > 100:
                return float("inf")
        return self.clock.seconds() - offered_at

    def test_it_is_offered_again_later_and_later_once_a_mempool_has_it(self) -> None:
        self.assertEqual([self.due_after(offers=offers) for offers in (1, 2, 9)], [3, 3, 3])
        taken = [self.due_after(offers=offers, is_taken=True) for offers in (1, 2, 3, 4, 5, 9)]
        self.assertEqual(taken, [3, 6, 12, 24, 24, 24])

    def test_not_while_an_answer_is_waited_for_nor_when_the_network_has_moved(self) -> None:
        self.assertEqual(self.due_after(is_being_offered=True), float("inf"))
        self.poc_version.refused("deprecated")
        self.assertEqual(self.due_after(), float("inf"))


class FullTests(SenderTestCase):
    """No mempool has room."""

    def fill(self, max_bytes: int) -> None:
        """Have a transaction refused by mempools that hold so many bytes."""
        self.record(1)
        self.chain.broadcast_error = MempoolFullError(FULL.format(max_bytes))
        self.send_all()

    def test_it_is_stored_again_and_less_is_sent(self) -> None:
        self.fill(10**6)
        self.assertEqual(self.stored(), [(f"no mempool had room for it: {FULL.format(10**6)}", 0, 0, 0)])
        self.assertEqual((len(self.in_flight), self.pace.transactions), (0, 4))
        self.assertEqual(self.decisions.outcomes, {("no_room", ""): 1})
        self.assertEqual(self.problems.last, FULL.format(10**6))

    def test_as_many_as_mempools_have_taken_may_be_in_flight(self) -> None:
        for number in range(9):
            self.in_flight.add(TransactionInFlight(str(number), 7, [], is_taken=number < 6))
        self.fill(10**6)
        self.assertEqual(self.pace.transactions, 6)

    def test_nothing_is_sent_before_the_next_block(self) -> None:
        self.fill(10**6)
        self.chain.broadcast_error = None
        self.clock.advance(2.5)
        self.send_all()
        self.assertEqual(len(self.chain.sent), 1)
        self.watcher.head = status_at(LATEST + 1)
        self.send_all()
        self.assertEqual(len(self.chain.sent), 2)

    def test_each_that_had_no_room_is_counted(self) -> None:
        self.fill(10**6)
        self.watcher.head = status_at(LATEST + 1)
        self.send_all()
        self.assertEqual(self.decisions.outcomes, {("no_room", ""): 2})

    def test_where_no_block_comes_it_is_tried_again_all_the_same(self) -> None:
        self.fill(10**6)
        self.chain.broadcast_error = None
        self.clock.advance(3)
        self.send_all()
        self.assertEqual(len(self.chain.sent), 2)

    def send_to_mempools_of(self, more_bytes: int) -> None:
        """Send to mempools that hold so many bytes more than the transaction has."""

        def broadcast(raw: bytes, *, turn: int) -> Deferred[Broadcast]:
            return fail(MempoolFullError(FULL.format(len(raw) + more_bytes)))

        self.patch(self.chain, "broadcast_tx_sync", broadcast)
        for nonce in range(60):
            self.record(nonce)
        self.send_all()
        self.assertEqual(len(self.in_flight), 0)

    def test_what_no_mempool_ever_has_room_for_is_made_smaller(self) -> None:
        self.send_to_mempools_of(-1)
        self.assertEqual(self.decisions.outcomes["no_room", ""], 0)
        self.assertGreaterEqual(self.decisions.outcomes["too_large", "sdk/21"], 1)
        self.assertEqual({max_messages for _, _, max_messages, _ in self.stored()} - {0}, {30})
        self.assertEqual(self.pace.transactions, 32)

    def test_what_just_fits_is_not_made_smaller(self) -> None:
        self.send_to_mempools_of(0)
        self.assertEqual(self.decisions.outcomes, {("no_room", ""): 1})
        self.assertEqual(self.pace.max_bytes, 700_000)
