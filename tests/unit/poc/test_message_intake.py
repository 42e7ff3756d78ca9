"""Messages go to the handler in order, never too many at once, and are acknowledged when they are stored."""

import gc
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import MessageError, QuotaError, StoreBrokenError, StoreBusyError
from dapi.messages import ProofBatch, Receipt
from dapi.messages.wire import decode_large_envelope
from dapi.poc import message_intake
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.large_batches import LargeBatches
from dapi.poc.message_intake import MessageCounter, MessageIntake, TakeLarge
from tests.batches import validated_fields
from tests.logs import log_of
from tests.unit.threadless import ThreadlessReactor
from tests.unit.websocket.client_in_memory import PendingRecorder, message


class IntakeTestCase(SynchronousTestCase):
    max_messages = 2
    max_bytes = 1_000_000
    take_large: TakeLarge | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.recorder = PendingRecorder()
        self.counter = MessageCounter(self.clock, "node-a")
        self.counts = self.counter.counts
        self.acks: list[str] = []
        self.done = 0
        self.judged: list[bool] = []
        self.intake = self.make(BatchHandler("node-a", 1, self.recorder))

    def make(self, handler: BatchHandler, acknowledge: Callable[[str], None] | None = None) -> MessageIntake:
        return MessageIntake(
            self.clock,
            handler,
            self.counter,
            max_messages=self.max_messages,
            max_bytes=self.max_bytes,
            acknowledge=acknowledge or self.acks.append,
            on_done=self._is_done,
            on_judged=lambda _size, is_good: self.judged.append(is_good),
            take_large=self.take_large,
        )

    def _is_done(self) -> None:
        self.done += 1


class AcknowledgeTests(IntakeTestCase):
    def test_only_when_stored_and_in_the_order_of_storing(self) -> None:
        self.intake.store(message("a"))
        self.intake.store(message("b"))
        self.assertEqual(self.acks, [])
        self.recorder.store(1)
        self.assertEqual(self.acks, ["b"])
        self.recorder.store(0)
        self.assertEqual(self.acks, ["b", "a"])
        self.assertEqual(self.intake.pending, 0)

    def test_the_time_to_the_acknowledgement_counts_also_what_was_queued(self) -> None:
        handler = BatchHandler("node-a", 1, self.recorder)
        intake = self.make(handler)
        for name in "abc":
            intake.store(message(name))
        self.clock.advance(2)
        self.recorder.store(0)
        self.clock.advance(2)
        self.recorder.fail(StoreBusyError("full"))
        self.recorder.store()
        times = handler.ack_times.over_websocket
        self.assertEqual((times.cumulative()[-1], times.sum), (2, 2 + 4))
        self.assertEqual(handler.over_websocket.generated, 3)
        self.assertGreater(handler.over_websocket.generated_bytes, 3 * 100)

    def test_validated_batches_too(self) -> None:
        self.intake.store(message("v", "validated", **validated_fields(block_hash="v")))
        self.recorder.store()
        self.assertEqual(self.acks, ["v"])

    def test_a_batch_without_a_nonce_is_acknowledged(self) -> None:
        self.intake.store(message("empty", nonces=[], dist=[]))
        self.assertEqual((self.acks, self.recorder.taken), (["empty"], []))

    def test_never_when_it_could_not_be_stored(self) -> None:
        for count, error in enumerate((StoreBusyError("full"), StoreBrokenError("fsync failed")), 1):
            self.intake.store(message("a"))
            self.recorder.fail(error)
            self.assertEqual((self.counts.not_stored, self.counts.last_problem), (count, str(error)))
        self.assertEqual((self.acks, self.intake.pending, self.done), ([], 0, 2))

    def test_never_when_no_message_can_be_made_of_it(self) -> None:
        self.intake.store(message("a"))
        self.recorder.fail(MessageError("public_key", "is no key"))
        self.assertEqual((self.acks, self.counts.bad_messages), ([], 1))
        self.assertEqual(self.counts.last_problem, "public_key: is no key")

    def test_a_defect_of_ours_is_logged_and_the_next_message_taken(self) -> None:
        self.intake.store(message("a"))
        self.recorder.fail(ZeroDivisionError("ours"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.acks, self.counts.errors, self.intake.pending), ([], 1, 0))
        self.intake.store(message("b"))
        self.recorder.store()
        self.assertEqual(self.acks, ["b"])

    def test_a_handler_that_raises_at_once(self) -> None:
        class Raising(BatchHandler):
            def handle_generated_batch(self, *_batch: object, **_more: object) -> Deferred[Receipt]:
                raise ZeroDivisionError("ours")

        self.make(Raising("node-a", 1, self.recorder)).store(message("a"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.acks, self.counts.errors), ([], 1))

    def test_an_acknowledgement_that_fails_frees_its_slot(self) -> None:
        def fail(_message_id: str) -> None:
            raise ZeroDivisionError("ours")

        intake = self.make(BatchHandler("node-a", 1, self.recorder), acknowledge=fail)
        for name in "abc":
            intake.store(message(name))
        self.recorder.store()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.recorder.taken, self.done, self.counts.errors), (["a", "b", "c"], 1, 1))

    def test_a_batch_is_not_kept_while_the_disk_takes_it(self) -> None:
        """As numbers it is several times as large as the message that is counted."""
        self.intake.store(message("a batch of its own"))
        self.assertEqual(self.intake.pending, 1)
        batches = [thing for thing in gc.get_objects() if isinstance(thing, ProofBatch)]
        self.assertNotIn("a batch of its own", [batch.block_hash for batch in batches])

    def test_a_bad_message_costs_nothing_but_itself(self) -> None:
        self.intake.store(b"no json")
        self.intake.store(b'{"type": "else", "id": "x"}')
        self.assertEqual((self.counts.bad_messages, self.counts.messages, self.intake.pending), (2, 2, 0))
        self.intake.store(message("a"))
        self.assertEqual(self.judged, [False, False, True])

    def test_what_a_bad_message_says_is_shortened(self) -> None:
        self.intake.store(b'{"type": "' + b"x" * 10_000 + b'\\n", "id": "x", "batch": {}}')
        assert self.counts.last_problem is not None
        self.assertLessEqual(len(self.counts.last_problem), 200)
        self.assertTrue(self.counts.last_problem.isprintable())


class LargeTests(IntakeTestCase):
    """Large messages are decoded on a thread, one at a time; all else is as with the others."""

    max_messages = 3

    def setUp(self) -> None:
        self.patch(message_intake, "LARGE_BYTES", 1000)
        self.reactor = ThreadlessReactor()
        self.reactor.holds_threads = True
        large = LargeBatches(self.reactor)
        self.take_large = lambda payload, handle: large.take(payload, decode_large_envelope, handle, None)
        super().setUp()

    def large(self, name: str) -> bytes:
        return message(name, nonces=list(range(1, 2001, 4)), dist=[0.5] * 500)

    def run_threads(self) -> None:
        # Decoding, the id, whose the nonces are.
        for _ in range(3):
            self.reactor.run_threads()

    def test_it_is_acknowledged_when_it_is_stored(self) -> None:
        self.intake.store(self.large("a"))
        self.assertEqual((self.recorder.taken, self.judged, self.intake.pending), ([], [], 1))
        self.clock.advance(2)
        self.run_threads()
        self.assertEqual((self.recorder.taken, self.judged, self.acks, self.intake.pending), (["a"], [True], [], 1))
        self.recorder.store()
        self.assertEqual((self.acks, self.done, self.intake.pending, self.intake.is_full), (["a"], 1, 0, False))

    def test_a_verdict_too(self) -> None:
        lists = {"nonces": list(range(300)), "dist": [0.5] * 300, "received_dist": [0.5] * 300}
        self.intake.store(message("v", "validated", **validated_fields(block_hash="v", **lists)))
        self.run_threads()
        self.recorder.store()
        self.assertEqual(self.acks, ["v"])

    def test_small_ones_do_not_wait_for_it(self) -> None:
        self.intake.store(self.large("a"))
        self.intake.store(message("b"))
        self.recorder.store()
        self.assertEqual((self.acks, self.judged, self.intake.pending), (["b"], [True], 1))

    def test_they_fill_the_connection_as_others_do(self) -> None:
        for name in "abcd":
            self.intake.store(self.large(name))
        self.assertEqual((self.intake.pending, self.intake.is_full), (3, True))
        for name in "abcd":
            self.run_threads()
            self.assertEqual(self.recorder.taken[-1], name)
            self.recorder.store()
        self.assertEqual((self.acks, self.intake.pending), (list("abcd"), 0))

    def test_a_bad_one_is_judged_when_it_is_decoded(self) -> None:
        self.intake.store(b"{" + b" " * 1000)
        self.assertEqual(self.judged, [])
        self.run_threads()
        self.assertEqual((self.judged, self.counts.bad_messages, self.intake.pending, self.done), ([False], 1, 0, 1))

    def test_one_that_is_not_stored_is_a_good_one(self) -> None:
        self.intake.store(self.large("a"))
        self.run_threads()
        self.recorder.fail(StoreBusyError("full"))
        self.assertEqual((self.judged, self.counts.not_stored, self.counts.bad_messages), ([True], 1, 0))

    def test_those_that_wait_are_dropped_with_their_connection_and_the_one_that_has_begun_goes_on(self) -> None:
        for name in "abc":
            self.intake.store(self.large(name))
        self.intake.clear_queue()
        self.assertEqual((self.intake.pending, self.counts.errors), (0, 0))
        self.run_threads()
        self.assertEqual(self.recorder.taken, ["a"])
        self.recorder.store()
        self.reactor.run_threads()
        self.assertEqual((self.recorder.taken, self.acks), (["a"], []))


class LogTests(IntakeTestCase):
    """What fails is counted each time, and told once a minute."""

    def setUp(self) -> None:
        super().setUp()
        self.log = log_of(self)

    def test_a_line_a_minute_for_a_batch_that_comes_again_every_5_seconds(self) -> None:
        for _ in range(12 * 60):
            self.intake.store(message("a", block_height=-1))
            self.clock.advance(5)
        self.assertEqual((len(self.log.lines()), self.counts.bad_messages), (60, 720))
        self.assertIn("node-a: bad message (1 so far): $.batch.block_height: ", self.log.lines()[0])
        self.assertIn("(13 so far)", self.log.lines()[1])

    def test_also_over_a_new_connection(self) -> None:
        self.intake.store(b"bad")
        self.make(BatchHandler("node-a", 1, self.recorder)).store(b"bad")
        self.assertEqual(len(self.log.lines()), 1)

    def test_what_is_too_much_for_nothing_is_no_defect(self) -> None:
        self.intake.store(message("a"))
        self.recorder.fail(QuotaError("1000 messages are kept"))
        line = "node-a: not taken, not acknowledged (1 so far): 1000 messages are kept"
        self.assertEqual((self.log.lines(), self.counts.over_quota, self.acks), ([line], 1, []))

    def test_a_kind_does_not_hide_another(self) -> None:
        for _ in range(3):
            self.intake.store(b"bad")
            self.intake.store(message("a"))
            self.recorder.fail(StoreBusyError("the disk is full"))
            self.intake.store(message("b"))
            self.recorder.fail(ZeroDivisionError("ours"))
        self.assertEqual(len(self.log.lines()), 3, self.log.lines())
        self.assertIn("node-a: not stored, not acknowledged (1 so far): the disk is full", self.log.lines()[1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.counts.bad_messages, self.counts.not_stored, self.counts.errors), (3, 3, 3))


class BoundTests(IntakeTestCase):
    def test_no_more_than_so_many_are_with_the_handler(self) -> None:
        for name in "abcde":
            self.intake.store(message(name))
        self.assertEqual((self.recorder.taken, self.intake.pending), (["a", "b"], 2))
        self.assertTrue(self.intake.is_full)
        self.recorder.store()
        self.assertEqual(self.recorder.taken, ["a", "b", "c"])
        while self.recorder.pending:
            self.recorder.store()
        self.assertEqual(self.acks, list("abcde"))
        self.assertFalse(self.intake.is_full)

    def test_failures_free_slots_too(self) -> None:
        for name in "abc":
            self.intake.store(message(name))
        self.recorder.fail(StoreBusyError("full"))
        self.assertEqual(self.recorder.taken, ["a", "b", "c"])

    def test_a_bad_message_that_waited_is_still_bad(self) -> None:
        for payload in (message("a"), message("b"), b"bad", message("c")):
            self.intake.store(payload)
        self.assertEqual(self.counts.bad_messages, 0)
        self.recorder.store()
        self.assertEqual((self.counts.bad_messages, self.recorder.taken), (1, ["a", "b", "c"]))

    def test_forgotten_ones_never_reach_the_handler(self) -> None:
        for name in "abc":
            self.intake.store(message(name))
        self.intake.clear_queue()
        self.recorder.store()
        self.assertEqual(self.recorder.taken, ["a", "b"])

    def test_many_that_waited_and_are_done_at_once(self) -> None:
        """One loop, not a level of calls for each."""
        first: Deferred[Receipt] = Deferred()
        answers = iter([first])

        class AtOnce(BatchHandler):
            def handle_generated_batch(self, *_batch: object, **_more: object) -> Deferred[Receipt]:
                return next(answers, succeed(Receipt("id", 1)))

        self.max_messages = 1
        intake = self.make(AtOnce("node-a", 1, self.recorder))
        for number in range(2000):
            intake.store(message(str(number)))
        first.callback(Receipt("id", 1))
        self.assertEqual(self.acks, [str(number) for number in range(2000)])
        self.assertEqual((intake.pending, intake.is_full, self.done), (0, False, 2000))


class ByteBoundTests(IntakeTestCase):
    max_messages = 100
    max_bytes = 2 * len(message("a")) + 10

    def test_no_more_than_so_many_bytes(self) -> None:
        for name in "abc":
            self.intake.store(message(name))
        self.assertEqual((self.recorder.taken, self.intake.is_full), (["a", "b"], True))
        self.recorder.store()
        self.assertEqual(self.recorder.taken, ["a", "b", "c"])

    def test_a_small_one_does_not_overtake_a_large_one_that_waits(self) -> None:
        self.intake.store(message("a"))
        self.intake.store(message("large", nonces=list(range(200)), dist=[0.5] * 200))
        self.intake.store(message("b"))
        self.assertEqual(self.recorder.taken, ["a"])
        for _ in range(3):
            self.recorder.store()
        self.assertEqual(self.recorder.taken, ["a", "large", "b"])

    def test_one_message_may_be_larger_than_that_alone(self) -> None:
        large = message("large", nonces=list(range(200)), dist=[0.5] * 200)
        self.assertGreater(len(large), self.max_bytes)
        self.intake.store(large)
        self.intake.store(message("a"))
        self.assertEqual(self.recorder.taken, ["large"])
        self.recorder.store()
        self.intake.store(large)
        self.assertEqual((self.recorder.taken, self.intake.is_full), (["large", "a"], True))
        self.recorder.store()
        self.assertEqual(self.recorder.taken, ["large", "a", "large"])
