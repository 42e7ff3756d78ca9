"""What is in flight is looked up at each block, offered again, and goes on after a restart."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail

from dapi.chain.rpc_answers import Broadcast, ChainStatus
from dapi.errors import ChainRefusedError, ChainUnavailableError, StoreBusyError
from dapi.submission.sender import OFFERS_AT_ONCE
from tests.logs import captured_log
from tests.unit.submission.submitter_case import SECOND_NS, SubmitterTestCase, status_at


class LookUpTests(SubmitterTestCase):
    def timeout_ns(self) -> int:
        ((timeout_ns,),) = self.look("SELECT tx_timeout_ns FROM unfinished")
        return int(timeout_ns)

    def test_it_is_given_up_when_the_chains_time_is_later_than_its_own(self) -> None:
        self.record(1)
        timeout_ns = self.timeout_ns()
        self.block(20, block_time_ns=timeout_ns)
        self.assertEqual(len(self.chain.sent), 1)
        for transaction in self.submitter._in_flight.all():
            transaction.offered_at = float("-inf")
        self.block(21, block_time_ns=timeout_ns + 1)
        # It went into another one, and the bytes that no block takes any more are not offered again.
        self.assertEqual((len(self.chain.sent), self.counts()), (2, {"in_flight": 1}))
        self.assertEqual(len(set(self.chain.sent)), 2)
        self.assertEqual(self.submitter.outcomes(), {("vanished", ""): 1})
        self.assertGreater(self.timeout_ns(), timeout_ns)

    def test_it_is_given_up_when_it_was_made_for_a_time_that_the_chain_never_had(self) -> None:
        # A node tells a false time once. What was signed by it is refused until then, and so would be all that follows.
        self.block(11, block_time_ns=10**18)
        self.record(1)
        self.assertGreater(self.timeout_ns(), 10**18)
        self.stop()
        self.start_anew()
        self.block(12)
        self.assertEqual((len(set(self.chain.sent)), self.counts()), (2, {"in_flight": 1}))
        self.assertEqual(self.submitter.outcomes(), {("vanished", ""): 1})
        (reason,) = {reason for (reason,) in self.look("SELECT reason FROM earlier_transactions")}
        self.assertEqual(reason, "its time is further ahead of the chain's than any block takes")
        self.assertLessEqual(self.timeout_ns(), status_at(12).block_time_ns + 61 * SECOND_NS)
        # It is still open whether the next one is in a block that nobody has told of yet.
        self.chain.lookup_error = ChainUnavailableError("no answer")
        self.block(13)
        self.assertEqual(len(set(self.chain.sent)), 2)

    def test_what_a_block_says_is_acted_on_with_its_words_and_its_height(self) -> None:
        self.record(1)
        self.include(self.chain.sent[0], 11, 2, "sdk", "tx parse error")
        self.block(13)
        self.assertEqual(self.counts(), {"failed": 1})
        self.assertEqual(
            self.look("SELECT reason, tx_hash FROM finished"), [("sdk 2: tx parse error", self.chain.sent[0])]
        )
        self.record(2)
        self.include(self.chain.sent[1], 14, 21, "sdk", "Max size is 10")
        self.block(15)
        # Three blocks after the one that had it.
        self.assertEqual(self.look("SELECT not_before FROM unfinished"), [(17,)])

    def test_outside_its_window_the_chain_is_asked_when_that_is(self) -> None:
        self.record(1)
        self.include(self.chain.sent[0], 11, 1108, "inference", "too late")
        # It tells of no such stage.
        self.block(13)
        self.assertEqual(self.counts(), {"expired": 1})

    def test_what_is_confirmed_is_looked_up_no_more(self) -> None:
        self.record(1)
        self.include(self.chain.sent[0], 11)
        self.block(11)
        self.chain.lookups.clear()
        self.block(12)
        self.assertEqual(self.chain.lookups, [])
        self.assertEqual(self.look("SELECT included_height FROM finished"), [(11,)])

    def test_where_no_block_comes_it_is_looked_up_all_the_same(self) -> None:
        self.record(1)
        self.chain.lookups.clear()
        self.pass_time(2.5)
        self.assertEqual(self.chain.lookups, [])
        self.include(self.chain.sent[0], 10)
        self.pass_time(1)
        self.assertEqual(self.counts(), {"confirmed": 1})

    def test_nothing_is_looked_up_while_the_chain_is_in_trouble_or_not_known(self) -> None:
        self.record(1)
        for problem, head in (("halted", status_at(11)), (None, None)):
            self.watcher.problem, self.watcher.head = problem, head
            self.watcher.ring()
            self.pass_time(4)
            self.assertEqual(self.chain.lookups, [])
        self.block(12)
        self.assertEqual(len(self.chain.lookups), 1)

    def test_what_a_mempool_has_not_taken_is_offered_again_after_3_s(self) -> None:
        self.chain.broadcast_error = ChainUnavailableError("no answer")
        self.record(1)
        self.chain.broadcast_error = None
        self.block(11)
        self.assertEqual(len(self.chain.sent), 1)
        self.pass_time(3)
        self.assertEqual((len(self.chain.sent), len(set(self.chain.sent))), (2, 1))

    def test_what_is_in_a_block_is_not_offered_again(self) -> None:
        self.record(1)
        self.pass_time(2.5)
        self.include(self.chain.sent[0], 11, 1145, "inference", "no")
        self.chain.lookups.clear()
        self.pass_time(4)
        self.assertEqual((len(self.chain.sent), self.counts()), (1, {"failed": 1}))

    def test_one_that_fails_hinders_no_other(self) -> None:
        self.watcher.problem = "halted"
        for nonce in range(2):
            self.record(nonce)
        self.execute(self.database, "UPDATE unfinished SET max_messages = 1")
        self.watcher.problem = None
        self.block(11)
        for tx_hash in self.chain.sent:
            self.include(tx_hash, 12, 1145, "inference", "no")
        usual, errors = self.submissions.fail, [ValueError("a defect")]

        def fail_once(*args: object) -> Deferred[None]:
            if errors:
                raise errors.pop()
            return usual(*args)  # type: ignore[arg-type]

        self.patch(self.submissions, "fail", fail_once)
        self.block(12)
        self.assertEqual(self.counts(), {"in_flight": 1, "failed": 1})
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_node_that_hangs_is_asked_by_few_at_once(self) -> None:
        self.chain.broadcast_error = ChainUnavailableError("no answer")
        for nonce in range(OFFERS_AT_ONCE + 4):
            self.record(nonce)
        self.assertEqual(len(self.chain.sent), OFFERS_AT_ONCE + 4)
        asked: list[Deferred[Broadcast]] = []

        def hang(raw: bytes, *, turn: int) -> Deferred[Broadcast]:
            asked.append(Deferred())
            return asked[-1]

        self.patch(self.chain, "broadcast_tx_sync", hang)
        self.pass_time(4)
        self.assertEqual(len(asked), OFFERS_AT_ONCE)


class RestartTests(SubmitterTestCase):
    def restart(self, head: ChainStatus | None = None) -> None:
        self.stop()
        if head is not None:
            self.watcher.head = head
        self.poc_version = self.start_anew()
        self.settle()

    def test_what_was_in_flight_is_looked_up_and_offered_again(self) -> None:
        self.record(1)
        (tx_hash,) = self.chain.sent
        self.restart()
        self.assertEqual(self.submitter.status()["transactions_in_flight"], 1)
        self.assertEqual(self.chain.lookups, [tx_hash])
        # Whether a mempool has it is not known.
        self.pass_time(3)
        self.assertEqual(self.chain.sent, [tx_hash] * 2)
        self.include(tx_hash, 11)
        self.block(11)
        self.assertEqual(self.counts(), {"confirmed": 1})

    def test_no_timestamp_is_given_twice(self) -> None:
        last = status_at(10).block_time_ns + 300 * SECOND_NS
        self.execute(self.database, "INSERT INTO numbers VALUES ('last_timeout_ns', ?)", last)
        self.restart()
        self.record(1)
        ((timeout_ns,),) = self.look("SELECT tx_timeout_ns FROM unfinished")
        self.assertGreater(timeout_ns, last)

    def test_before_the_first_block_is_known_it_waits_and_tells_why(self) -> None:
        self.stop()
        self.record(1)
        head, self.watcher.head = self.watcher.head, None
        self.watcher.status_error = ChainRefusedError(-32601, "rpc", "no such method")
        with captured_log() as log:
            self.start_anew()
            self.settle()
            self.pass_time(12)
        self.assertEqual((self.chain.sent, self.submitter.status()["problem"]), ([], "rpc -32601: no such method"))
        self.assertEqual(len(log.warnings("no such method")), 1)
        self.watcher.status_error = None
        assert head is not None
        self.watcher.move(head)
        self.settle()
        self.assertEqual(len(self.chain.sent), 1)

    def test_what_cannot_be_read_at_the_start_is_read_later(self) -> None:
        self.record(1)
        self.stop()
        busy = self.patch(self.submissions, "last_timeout", lambda: fail(StoreBusyError("disk full")))
        self.start_anew()
        self.settle()
        status = self.submitter.status()
        self.assertEqual((status["state"], status["reason"]), ("waiting", "disk full"))
        busy.restore()
        self.pass_time(6)
        status = self.submitter.status()
        self.assertEqual((status["state"], status["transactions_in_flight"]), ("submitting", 1))
