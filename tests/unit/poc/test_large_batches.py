"""Large batches are taken one at a time, off the reactor's thread, and charged to whoever sent them."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import MessageError, StoreBusyError, UnknownNodeError
from dapi.messages import ProofBatch, Receipt, ValidatedBatch, Via, content_id, decode_generated, number_lists
from dapi.messages.wire import decode_large_generated, decode_large_validated
from dapi.outbox.cosmos_message_client import CosmosMessageClient, encoded_batch
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.large_batches import LargeBatches
from dapi.timing.fair_share import AccountState, FairShare
from dapi.timing.pool_thread import PoolThread
from tests.batches import generated_fields, validated_fields
from tests.unit.database.store_tools import ThreadClock
from tests.unit.threadless import ThreadlessReactor

NONCES = 200


def generated_body(first: int = 1, **changes: Any) -> bytes:
    lists = {"nonces": list(range(first, first + 4 * NONCES, 4)), "dist": [0.5] * NONCES}
    return json.dumps(generated_fields(**lists | changes)).encode()


def validated_body() -> bytes:
    lists = {"nonces": list(range(NONCES)), "dist": [0.5] * NONCES, "received_dist": [0.5] * NONCES}
    return json.dumps(validated_fields(**lists)).encode()


class SlowOutbox(Outbox):
    """An outbox whose disk is as slow as the test wants."""

    def __init__(self) -> None:  # without a database
        self.entries: list[OutboxEntry] = []
        self.storing: list[Deferred[Receipt]] = []

    def put(self, entry: OutboxEntry) -> Deferred[Receipt]:
        self.entries.append(entry)
        self.storing.append(Deferred())
        return self.storing[-1]

    def store(self) -> None:
        self.storing[-1].callback(Receipt(self.entries[-1].batch_id, 1))


class PoolClock(ThreadClock):
    """A clock whose pool does at once what is deferred to it, while other threads are real."""

    def getThreadPool(self) -> ThreadlessReactor:
        return ThreadlessReactor()


class LargeBatchesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(number_lists, "MIN_BYTES", 0)
        self.reactor = ThreadlessReactor()
        self.outbox = SlowOutbox()
        self.handler = BatchHandler("node1", 1, CosmosMessageClient(self.outbox), node_counts=lambda _: {4})
        self.used = 0.0
        self.large = LargeBatches(self.reactor, self.cpu_seconds)
        self.share = FairShare(self.reactor, lambda: 0.0)
        self.account = self.share.of_node(1)
        self.watched: list[weakref.ref[Any]] = []

    def cpu_seconds(self) -> float:
        """Have each function on the thread use 10 ms: it asks twice."""
        self.used += 0.01
        return self.used

    def handle(self, batch: ProofBatch, size: int, thread: PoolThread) -> Deferred[Receipt]:
        self.watched.append(weakref.ref(batch.nonces))
        return self.handler.handle_generated_batch(batch, Via.HTTP, size=size, thread=thread)

    def take(
        self, body: bytes, handle: Callable[[ProofBatch, int, PoolThread], Deferred[Receipt]] | None = None
    ) -> Deferred[Receipt]:
        return self.large.take(body, decode_large_generated, handle or self.handle, self.account)

    def take_verdict(self, body: bytes) -> Deferred[Receipt]:
        def handle(batch: ValidatedBatch, size: int, thread: PoolThread) -> Deferred[Receipt]:
            return self.handler.handle_validated_batch(batch, Via.HTTP, size=size, thread=thread)

        return self.large.take(body, decode_large_validated, handle, self.account)


class LargeBatchesTests(LargeBatchesTestCase):
    def test_it_is_stored_as_a_small_one_is(self) -> None:
        for first, others in ((1, ""), (3, "-1")):
            body = generated_body(first)
            batch = decode_generated(body)
            taken = self.take(body)
            self.assertNoResult(taken)
            batch_id = content_id(batch) + others
            entry = self.outbox.entries[-1]
            self.assertEqual((entry.batch_id, entry.nonces), (batch_id, NONCES))
            self.assertEqual(entry.message, encoded_batch(batch, batch_id, "node1"))
            self.outbox.store()
            self.assertEqual(self.successResultOf(taken), Receipt(batch_id, 1))
        self.assertEqual((self.handler.by_http.generated, self.handler.counts.with_others_nonces), (2, 1))
        self.assertEqual(self.handler.by_http.generated_bytes, len(generated_body()) + len(generated_body(3)))

    def test_a_verdict_too(self) -> None:
        taken = self.take_verdict(validated_body())
        self.outbox.store()
        self.assertEqual(self.successResultOf(taken).seen, 1)
        self.assertEqual(self.handler.by_http.validated, 1)
        taken = self.take_verdict(validated_body().replace(b"[0.5", b"[NaN"))
        self.outbox.store()
        self.successResultOf(taken)
        self.assertEqual(self.handler.counts.with_nan, 1)

    def test_without_a_nonce_there_is_nothing_to_store(self) -> None:
        receipt = self.successResultOf(self.take(generated_body(nonces=[], dist=[])))
        self.assertEqual((receipt.seen, self.outbox.entries), (0, []))

    def test_nothing_that_takes_long_is_done_on_the_reactors_thread(self) -> None:
        self.reactor.holds_threads = True
        self.take(generated_body())
        # Decoding, the id, whose the nonces are, and the message.
        for step in range(4):
            self.assertEqual((len(self.reactor.deferred), self.outbox.entries), (step + 1, []))
            self.reactor.run_threads()
        self.assertEqual((len(self.reactor.deferred), len(self.outbox.entries)), (4, 1))

    def test_one_at_a_time_until_it_is_on_disk(self) -> None:
        taken = [self.take(generated_body(first)) for first in (1, 5, 9)]
        for number, each in enumerate(taken, 1):
            self.assertEqual(len(self.outbox.entries), number)
            self.outbox.store()
            self.successResultOf(each)

    def test_the_next_one_comes_after_a_failure(self) -> None:
        refused, failed, raised, not_stored, stored = (
            self.take(b"{}"),
            self.take(generated_body(dist=["x"])),
            self.take(generated_body(), self.unknown),
            self.take(generated_body()),
            self.take(generated_body()),
        )
        self.failureResultOf(refused, MessageError)
        self.failureResultOf(failed, MessageError)
        self.failureResultOf(raised, UnknownNodeError)
        self.outbox.storing[-1].errback(StoreBusyError("full"))
        self.failureResultOf(not_stored, StoreBusyError)
        self.outbox.store()
        self.successResultOf(stored)

    def unknown(self, *_: object) -> Deferred[Receipt]:
        raise UnknownNodeError("no node has the number 1")

    def test_one_that_waits_is_dropped_when_nobody_wants_it_any_more(self) -> None:
        first, second, third = (self.take(generated_body(first)) for first in (1, 5, 9))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.outbox.store()
        self.successResultOf(first)
        self.outbox.store()
        self.assertEqual(self.successResultOf(third).batch_id, content_id(decode_generated(generated_body(9))))
        self.assertEqual(len(self.outbox.entries), 2)

    def test_one_that_has_begun_goes_on(self) -> None:
        self.reactor.holds_threads = True
        first, second = self.take(generated_body(1)), self.take(generated_body(5))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        for _ in range(4):
            self.reactor.run_threads()
        self.assertEqual(len(self.outbox.entries), 1)
        # The other one waits for it all the same.
        self.assertEqual(len(self.reactor.deferred), 4)
        self.outbox.store()
        for _ in range(4):
            self.reactor.run_threads()
        self.outbox.store()
        self.successResultOf(second)

    def test_its_numbers_do_not_wait_for_the_disk(self) -> None:
        self.take(generated_body())
        self.assertEqual(len(self.outbox.entries), 1)
        self.assertIsNone(self.watched[0]())


class StopTests(SynchronousTestCase):
    def test_what_has_begun_when_the_service_stops_goes_on_without_its_thread(self) -> None:
        self.patch(number_lists, "MIN_BYTES", 0)
        reactor, outbox = PoolClock(), SlowOutbox()
        handler = BatchHandler("node1", 1, CosmosMessageClient(outbox))
        large = LargeBatches(reactor)
        large.startService()

        def handle(batch: ProofBatch, size: int, thread: PoolThread) -> Deferred[Receipt]:
            return handler.handle_generated_batch(batch, Via.HTTP, size=size, thread=thread)

        taken = [large.take(generated_body(first), decode_large_generated, handle, None) for first in (1, 5)]
        # The thread has the first one to decode, and the stop comes behind that.
        reactor.wait_for(large.stopService())
        for each in taken:
            # Each of its four steps is told in a turn of the reactor.
            for _ in range(4):
                reactor.turn()
            self.assertEqual(outbox.entries[-1].nonces, NONCES)
            outbox.store()
            self.assertEqual(self.successResultOf(each).seen, 1)


class ChargeTests(LargeBatchesTestCase):
    """10 ms on the thread count as they are; what keeps the interpreter, or the disk, counts as a long step does."""

    def setUp(self) -> None:
        super().setUp()
        self.charged: list[tuple[float, bool]] = []
        self.patch(self.account, "charge", self.charge)

    def charge(self, seconds: float, *, is_step: bool = True) -> None:
        self.charged.append((round(seconds, 6), is_step))

    def test_a_batch(self) -> None:
        body = generated_body()
        self.take(body)
        self.assertEqual(self.charged, [(0.01, False)])
        self.outbox.store()
        commit = round(len(body) * 1.5e-9, 6)
        self.assertEqual(self.charged[1:], [(0.03, False), (commit, True)])

    def test_a_verdict_takes_little_of_the_disk(self) -> None:
        self.take_verdict(validated_body())
        self.outbox.store()
        self.assertEqual(self.charged, [(0.01, False), (0.02, False)])

    def test_what_had_to_be_decoded_in_one_piece(self) -> None:
        self.take(generated_body(one=[1], more=[2]))
        self.assertEqual(self.charged[0], (0.01, True))

    def test_a_refusal(self) -> None:
        self.failureResultOf(self.take(b"[" * 5000), MessageError)
        self.assertEqual(self.charged, [(0.01, True)])

    def test_nobody_is_charged_where_time_is_not_shared(self) -> None:
        taken = self.large.take(generated_body(), decode_large_generated, self.handle, None)
        self.outbox.store()
        self.successResultOf(taken)
        self.assertEqual(self.charged, [])


class PauseTests(LargeBatchesTestCase):
    def test_whoever_sent_one_has_to_pause(self) -> None:
        self.account.join(lambda: None)
        self.share.of_node(2).charge(1e-4)
        self.reactor.advance(0.5)
        self.take(generated_body())
        self.assertIs(self.account.state, AccountState.FREE)
        self.outbox.store()
        self.assertIs(self.account.state, AccountState.PAUSED)
