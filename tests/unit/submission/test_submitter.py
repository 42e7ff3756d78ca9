"""The submitter's turns, with a chain that answers when the test says so, on a real database."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.keyring import SigningKey
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import Broadcast
from dapi.errors import ChainRefusedError, ChainStaleError, ChainUnavailableError, StoreBrokenError, StoreBusyError
from dapi.messages import Kind, Via, content_id
from dapi.messages.cosmos_pb2 import AuthInfo, TxRaw
from dapi.submission.begin import Begun, Signer
from dapi.submission.choice import Room
from dapi.submission.problems import HoldCause
from dapi.submission.sender import OFFERS_AT_ONCE
from dapi.timing.loop import RESTART_SECONDS
from tests.batches import generated_batch
from tests.logs import captured_log
from tests.unit.database.store_tools import Obstacle
from tests.unit.submission.submitter_case import SECOND_NS, SubmitterTestCase


class SubmitterTests(SubmitterTestCase):
    def test_sent_found_confirmed(self) -> None:
        self.record(1)
        (tx_hash,) = self.chain.sent
        self.assertEqual(self.counts(), {"in_flight": 1})
        self.include(tx_hash, 11)
        self.block(11)
        self.assertEqual(self.counts(), {"confirmed": 1})
        self.assertEqual(self.submitter.status()["transactions_in_flight"], 0)

    def test_transactions_are_counted_by_what_became_of_them(self) -> None:
        self.record(1)
        self.include(self.chain.sent[-1], 11)
        self.block(11)
        self.record(2)
        self.include(self.chain.sent[-1], 12, 1145, "inference", "no node")
        self.block(12)
        self.assertEqual(self.submitter.outcomes(), {("confirmed", "0"): 1, ("final", "inference/1145"): 1})
        for nonce, codespace in enumerate(("made-up", "inference"), 3):
            self.record(nonce)
            self.include(self.chain.sent[-1], 11 + nonce, 10**6 + nonce, codespace, "no")
            self.block(11 + nonce)
        self.assertEqual(self.submitter.outcomes()["final", "other"], 2)
        self.chain.broadcast_error = ChainRefusedError(19, "sdk", "in the mempool")
        self.record(7)
        self.assertEqual(self.submitter.outcomes()["final", "sdk/19"], 1)

    def test_what_is_in_flight_is_looked_up_once_a_block_whatever_comes_in(self) -> None:
        for nonce in range(10):
            self.record(nonce)
        self.assertEqual(len(self.chain.sent), 10)
        self.assertEqual(self.chain.lookups, [])
        self.block(11)
        self.assertEqual(len(self.chain.lookups), 10)
        self.record(11)
        self.assertEqual(len(self.chain.lookups), 10)

    def test_it_keeps_to_its_settings(self) -> None:
        self.stop()
        raw: list[bytes] = []

        def broadcast(transaction: bytes, *, turn: int) -> Deferred[Broadcast]:
            raw.append(transaction)
            return succeed(Broadcast.ACCEPTED)

        self.patch(self.chain, "broadcast_tx_sync", broadcast)
        busy = self.patch(self.submissions, "begin", lambda *args: fail(StoreBusyError("disk full")))
        self.start_anew(max_in_flight=3, gas_limit=1234, retry_min_seconds=20, retry_max_seconds=20)
        self.record(1)
        self.assertEqual(self.submitter.status()["max_transactions"], 3)
        busy.restore()
        self.pass_time(19.5)
        self.assertEqual(raw, [])
        self.pass_time(1)
        auth_info = AuthInfo.FromString(TxRaw.FromString(raw[0]).auth_info_bytes)
        self.assertEqual((len(raw), auth_info.fee.gas_limit), (1, 1234))

    def test_a_key_without_grants_sends_nothing_that_needs_one(self) -> None:
        self.stop()
        self.start_anew(SigningKey(b"\7" * 32).address, kinds=frozenset({Kind.GENERATED}))
        self.settle()
        self.assertEqual(self.submitter.status()["causes"], {"generated": HoldCause.GRANT})

    def test_the_chain_is_entered_with_each_block_before_anything_is_sent(self) -> None:
        self.assertEqual(set(self.identity.heads), {self.chain.head})
        first = self.chain.head
        self.block(11)
        self.assertEqual(set(self.identity.heads), {first, self.chain.head})

    def test_an_error_is_logged_once_and_again_after_a_success(self) -> None:
        self.record(1)
        (tx_hash,) = self.chain.sent
        with captured_log() as log:
            for number in range(5):
                self.chain.lookup_error = ChainUnavailableError(f"mempool is full: number of txs {number}")
                self.block(11 + number)
                self.pass_time(6)
        self.assertEqual(len(log.warnings("trying again")), 1)
        status = self.submitter.status()
        # Messages that are stored would be sent all the same.
        self.assertEqual(status["state"], "submitting")
        self.assertEqual(status["problem"], "mempool is full: number of txs 4")
        self.chain.lookup_error = None
        self.include(tx_hash, 16)
        self.block(16)
        self.pass_time(6)
        status = self.submitter.status()
        self.assertEqual((status["state"], status["problem"]), ("submitting", None))
        with captured_log() as log:
            self.chain.broadcast_error = ChainUnavailableError("mempool is full: number of txs 4")
            self.record(2)
        self.assertEqual(len(log.warnings("trying again")), 1)

    def test_a_busy_store_is_no_end(self) -> None:
        busy = self.patch(self.submissions, "begin", lambda *args: fail(StoreBusyError("disk full")))
        self.record(1)
        self.assertEqual(self.chain.sent, [])
        self.assertEqual(self.submitter.status()["reason"], "disk full")
        busy.restore()
        self.pass_time(6)
        self.assertEqual(len(self.chain.sent), 1)

    def test_a_defect_of_ours_is_told_and_does_not_end_the_sending(self) -> None:
        broken = self.patch(self.submissions, "begin", None)
        self.record(1)
        status = self.submitter.status()
        self.assertEqual(status["state"], "waiting")
        self.assertIn("Submitter broke", str(status["reason"]))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        broken.restore()
        self.pass_time(RESTART_SECONDS)
        self.assertEqual(len(self.chain.sent), 1)
        self.assertEqual(self.submitter.status()["state"], "submitting")

    def test_a_broken_store_is_told_and_floods_nothing(self) -> None:
        with captured_log() as log:
            self.patch(self.submissions, "begin", lambda *args: fail(StoreBrokenError("bad page")))
            self.record(1)
            self.pass_time(60)
        self.assertEqual(self.submitter.status()["reason"], "bad page")
        self.assertEqual(len(log.warnings("trying again")), 1)
        self.assertEqual(self.chain.sent, [])

    def test_no_message_is_lost_when_the_store_is_busy_in_the_middle_of_a_verdict(self) -> None:
        self.watcher.problem = "halted"
        for nonce in range(3):
            self.record(nonce)
        self.watcher.problem = None
        self.block(11)
        (tx_hash,) = self.chain.sent
        self.include(tx_hash, 12, 1145, "inference", "failed to execute message; message index: 1: no node")
        usual, busy = self.submissions.store_again, [StoreBusyError("disk full")] * 2

        def store_again(*args: Any, **settings: Any) -> Deferred[None]:
            return fail(busy.pop()) if busy else usual(*args, **settings)

        self.patch(self.submissions, "store_again", store_again)
        self.block(12)
        self.pass_time(12)
        self.assertEqual(self.counts(), {"in_flight": 2, "failed": 1})
        self.assertEqual(len(set(self.chain.sent)), 2)

    def test_refused_by_a_mempool_that_may_have_had_it_only_time_decides(self) -> None:
        self.chain.broadcast_error = ChainUnavailableError("no answer within 10 s")
        self.record(1)
        self.chain.broadcast_error = ChainRefusedError(1155, "inference", "blocked")
        self.block(11)
        self.pass_time(4)
        self.assertEqual(self.counts(), {"in_flight": 1})
        self.assertEqual(len(set(self.chain.sent)), 1)
        self.chain.broadcast_error = None
        self.block(40)
        self.assertEqual(len(set(self.chain.sent)), 2)

    def test_stale_at_first_sight_it_may_be_in_a_block_by_way_of_another_node(self) -> None:
        self.chain.broadcast_error = ChainStaleError(18, "sdk", "already used timeout")
        self.record(1)
        self.assertEqual(self.counts(), {"in_flight": 1})
        self.include(self.chain.sent[0], 11)
        self.block(11)
        self.assertEqual(self.counts(), {"confirmed": 1})
        self.assertEqual(len(self.chain.sent), 1)

    def test_a_refused_lookup_is_no_end(self) -> None:
        self.record(1)
        self.chain.lookup_error = ChainRefusedError(-32601, "rpc", "Method not found")
        self.block(11)
        self.assertIn("Method not found", str(self.submitter.status()["problem"]))
        self.chain.lookup_error = None
        self.include(self.chain.sent[0], 11)
        self.pass_time(6)
        self.assertEqual(self.counts(), {"confirmed": 1})

    def test_moved_it_looks_on_and_sends_nothing(self) -> None:
        self.record(1)
        self.watcher.status_error = ChainRefusedError(1161, "inference", "HTTP 503: poc_v2_enabled")
        self.chain.is_poc_v2 = True
        self.block(11)
        self.assertEqual(self.submitter.status()["state"], "moved")
        self.record(2)
        self.pass_time(20)
        self.assertEqual(len(self.chain.sent), 1)
        # What was sent before may be in a block of the time before.
        self.include(self.chain.sent[0], 11)
        self.block(12)
        self.assertEqual(self.counts(), {"confirmed": 1, "stored": 1})

    def test_the_chain_is_asked_before_the_first_message_and_while_it_has_moved(self) -> None:
        self.stop()
        self.chain.epoch_error = ChainUnavailableError("EpochInfo: no answer")
        self.poc_version = self.start_anew()
        self.record(1)
        self.assertEqual(self.chain.sent, [])
        self.assertIn("EpochInfo", str(self.submitter.status()["reason"]))
        self.chain.epoch_error, self.chain.is_poc_v2 = None, True
        self.pass_time(6)
        self.assertEqual((self.chain.sent, self.submitter.status()["state"]), ([], "moved"))
        self.assertIn("poc.follow_chain", str(self.submitter.status()["reason"]))
        # It is no latch.
        self.chain.is_poc_v2 = False
        self.block(11)
        self.assertEqual(len(self.chain.sent), 1)
        self.assertEqual(self.submitter.status()["state"], "submitting")

    def test_a_question_that_fails_later_holds_nothing_up(self) -> None:
        self.chain.epoch_error = ChainUnavailableError("EpochInfo: no answer")
        self.block(30)
        self.record(1)
        self.assertEqual(len(self.chain.sent), 1)

    def test_in_flight_when_the_network_moves_it_is_not_offered_again(self) -> None:
        self.chain.broadcast_error = ChainUnavailableError("no answer within 10 s")
        self.record(1)
        self.chain.is_poc_v2 = True
        self.poc_version.refused("inference 1161: deprecated")
        self.chain.broadcast_error = None
        self.pass_time(60)
        self.assertEqual((len(self.chain.sent), self.counts()), (1, {"in_flight": 1}))

    def test_moved_while_a_transaction_is_put_in_flight_it_is_not_offered(self) -> None:
        usual = self.submissions.begin

        def begin(height: int, room: Room, signer: Signer) -> Deferred[list[Begun]]:
            self.submitter._problems.stop_sending("poc_v2_enabled")
            return usual(height, room, signer)

        self.patch(self.submissions, "begin", begin)
        self.record(1)
        self.assertEqual((self.chain.sent, self.counts()), ([], {"stored": 1}))
        self.assertEqual(self.submitter.status()["transactions_in_flight"], 0)

    def test_without_a_timestamp_it_waits_for_the_chains_clock(self) -> None:
        self.stop()
        self.record(1)
        last = self.chain.head.block_time_ns + 600 * SECOND_NS
        self.execute(self.database, "INSERT INTO numbers VALUES ('last_timeout_ns', ?)", last)
        self.submitter.startService()
        self.settle()
        self.assertEqual(self.chain.sent, [])
        self.assertIn("no timestamp", str(self.submitter.status()["reason"]))
        self.block(11)
        self.pass_time(6)
        self.assertEqual(len(self.chain.sent), 1)

    def test_started_anew_on_an_open_database_it_misses_nothing_that_was_being_written(self) -> None:
        usual = self.submissions.begin
        obstacles: list[Obstacle] = []

        def begin(height: int, room: Room, signer: Signer) -> Deferred[list[Begun]]:
            if not obstacles:
                obstacles.append(Obstacle(self.database))
            return usual(height, room, signer)

        patched = self.patch(self.submissions, "begin", begin)
        batch = generated_batch(block_height=10, nonces=[1], dist=[0.5])
        self.recorder.submit_poc_batch(batch, batch_id=content_id(batch), node_id="n", via=Via.HTTP)
        while not obstacles:
            self.clock.turn()
        self.stop()
        patched.restore()
        self.submitter.startService()
        for _ in range(4):
            self.clock.wait_for(self.database.read(lambda connection: None))
        obstacles[0].remove()
        self.settle()
        self.assertEqual(self.submitter.status()["transactions_in_flight"], 1)
        self.assertEqual(self.counts(), {"in_flight": 1})

    def test_a_call_that_ends_as_failed_when_it_is_cancelled_does_not_keep_it_running(self) -> None:
        self.record(1)
        self.chain.lookup_answer = Deferred(lambda call: call.errback(ChainUnavailableError("DNS lookup failed")))
        self.block(11)
        stopped = self.submitter.stopService()
        self.settle()
        self.successResultOf(stopped)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])

    def test_stopped_while_a_node_hangs_it_offers_nothing_more(self) -> None:
        self.watcher.problem = "halted"
        for nonce in range(20):
            self.record(nonce)
        self.execute(self.database, "UPDATE unfinished SET max_messages = 1")
        asked: list[bytes] = []

        def hang(raw: bytes, *, turn: int) -> Deferred[Broadcast]:
            asked.append(raw)
            return Deferred(lambda call: call.errback(ChainUnavailableError("DNS lookup failed")))

        self.patch(self.chain, "broadcast_tx_sync", hang)
        self.watcher.problem = None
        self.block(11)
        self.assertEqual((len(asked), self.counts()), (OFFERS_AT_ONCE, {"in_flight": 20}))
        self.successResultOf(self.submitter.stopService())
        self.assertEqual(len(asked), OFFERS_AT_ONCE)

    def test_nor_the_watcher(self) -> None:
        asked: Deferred[None] = Deferred(lambda call: call.errback(ChainUnavailableError("DNS lookup failed")))

        class Waiting(ChainRpc):
            def ask_all(self) -> Deferred[None]:
                return asked

        watcher = BlockWatcher(self.clock, Waiting(self.clock, ["http://127.0.0.1:26657"]))
        watcher.startService()
        self.successResultOf(watcher.stopService())

    def test_while_the_chain_takes_nothing_nothing_is_taken_from_the_disk(self) -> None:
        self.watcher.problem = "halted"
        for nonce in range(20):
            self.record(nonce)
        self.pass_time(10)
        self.assertEqual(self.submitter.status()["transactions_in_flight"], 0)
        self.assertEqual(self.chain.sent, [])
