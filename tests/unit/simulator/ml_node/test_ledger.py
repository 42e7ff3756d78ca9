"""The ledger of a simulated node."""

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.ml_node.ledger import Attempt, Ledger, Via


class LedgerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ledger = Ledger()

    def deliver(self, via: Via, *before: tuple[Via, str]) -> None:
        """Make a batch and deliver it that way, after other tries."""
        entry = self.ledger.record_batch("generated", {"nonces": [1]}, 1.0)
        outcomes = [*before, (via, "acknowledged" if via == "websocket" else "accepted")]
        for way, outcome in outcomes:
            attempt = Attempt(way, 2.0, message_id=f"{entry.number}/{len(entry.attempts)}")
            self.ledger.record_attempt(entry, attempt)
            self.ledger.record_outcome(entry, attempt, outcome, 3.0)

    def test_what_is_waited_for_is_told_once_it_is_true(self) -> None:
        both = self.ledger.when_delivered(2)
        by_http = self.ledger.when_delivered(1, via="http")
        self.deliver("websocket")
        self.assertNoResult(both)
        self.assertNoResult(by_http)
        self.deliver("http")
        self.successResultOf(both)
        self.successResultOf(by_http)
        self.successResultOf(self.ledger.when_delivered(2, kind="generated"))
        self.assertNoResult(self.ledger.when_delivered(1, kind="validated"))

    def test_counts(self) -> None:
        self.deliver("websocket")
        self.deliver("http")
        self.deliver("http", ("websocket", "no ack"))
        self.deliver("websocket", ("websocket", "no ack"), ("http", "refused"))
        self.ledger.record_lost([self.ledger.record_batch("generated", {}, 4.0)])
        self.assertEqual(
            self.ledger.counts,
            {"made": 5, "delivered": 4, "websocket": 2, "http": 2, "offered": 4, "doubled": 1, "lost": 1},
        )
        self.assertEqual([entry.is_doubled for entry in self.ledger.batches], [False, False, True, False, False])
        self.assertEqual([entry.delivered_via for entry in self.ledger.delivered(via="http")], ["http", "http"])
        self.assertTrue(self.ledger.batches[-1].lost)

    def test_a_late_ack_is_found_a_stray_one_kept(self) -> None:
        self.deliver("http", ("websocket", "no ack"))
        self.ledger.record_late_ack("1/0")
        self.ledger.record_late_ack("nobody's")
        self.assertEqual([attempt.late_ack for attempt in self.ledger.batches[0].attempts], [True, False])
        self.assertEqual(list(self.ledger.stray_acks), ["1/0", "nobody's"])

    def test_waiting_can_be_given_up(self) -> None:
        waiting = self.ledger.when_delivered(1)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.deliver("http")

    def test_one_who_waits_may_wait_again(self) -> None:
        told: list[int] = []
        first = self.ledger.when_delivered(1)
        first.addCallback(lambda _: self.ledger.when_delivered(2)).addCallback(told.append)
        self.deliver("http")
        self.assertEqual(told, [])
        self.deliver("http")
        self.assertEqual(told, [None])

    def test_only_the_newest_are_remembered_but_all_are_counted(self) -> None:
        self.ledger = Ledger(remembered=2)
        for _ in range(3):
            self.deliver("http")
        self.assertEqual([entry.number for entry in self.ledger.batches], [2, 3])
        self.successResultOf(self.ledger.when_delivered(3))
