"""What is said of a node's batches in a stage."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import StoreBusyError
from dapi.messages import Receipt, Via
from dapi.poc.deliveries import Deliveries, DeliveryStatus
from dapi.timing.clock import unix_seconds
from tests.batches import generated_batch
from tests.logs import log_of


class DeliveriesTests(SynchronousTestCase):
    """``Deliveries``."""

    def setUp(self) -> None:
        self.log = log_of(self)
        self.clock = Clock()
        self.deliveries = Deliveries(self.clock, "a")

    def deliver(self, height: int = 1000, via: Via = Via.WEBSOCKET, seen: int = 1, seconds: float = 0.0) -> None:
        recorded: Deferred[Receipt] = Deferred()
        batch = generated_batch(block_height=height, nonces=[1, 2], dist=[0.1, 0.2])
        self.deliveries.follow(batch, via, recorded)
        self.clock.advance(seconds)
        receipt = Receipt("id", seen)
        recorded.callback(receipt)
        self.assertIs(self.successResultOf(recorded), receipt)

    def test_a_line_at_the_beginning_and_one_at_the_end(self) -> None:
        for _ in range(98):
            self.deliver(seconds=0.01)
        self.deliver(via=Via.HTTP, seconds=0.02)
        self.deliver(via=Via.HTTP, seen=2, seconds=5.0)
        self.assertEqual(self.log.lines(), ["a: batches of stage 1000 begin to arrive, over the WebSocket"])
        self.deliveries.end()
        self.assertEqual(
            self.log.lines()[1:],
            [
                "a: stage 1000: 99 batches with 198 nonces are on disk, from 100 deliveries: 98 over the WebSocket, "
                "2 by HTTP, 1 of them doubled; 99 % could be acknowledged within 20 ms"
            ],
        )
        self.deliveries.end()
        self.assertEqual(len(self.log.lines()), 2)

    def test_when_the_last_one_came_and_how_fast_they_were(self) -> None:
        self.assertEqual(self.deliveries.status(), DeliveryStatus(None, None, None))
        for _ in range(98):
            self.deliver(seconds=0.01)
        self.deliver(seconds=0.02)
        began_at = unix_seconds(self.clock)
        self.deliver(seconds=5.0)
        status = self.deliveries.status()
        self.assertAlmostEqual(status.last_at or 0, began_at, delta=0.2)
        self.assertEqual((status.p50_ms, status.p99_ms), (10.0, 20.0))
        # A stage's end takes nothing away; what is older than 256 batches does not count any more.
        self.deliveries.end()
        self.assertEqual(self.deliveries.status(), status)
        for _ in range(256):
            self.deliver(seconds=0.03)
        self.assertEqual(self.deliveries.status().p99_ms, 30.0)

    def test_one_that_is_not_stored_has_come_all_the_same(self) -> None:
        self.deliveries.follow(generated_batch(), Via.HTTP, fail(StoreBusyError("full")))
        status = self.deliveries.status()
        self.assertIsNotNone(status.last_at)
        self.assertEqual((status.p50_ms, status.p99_ms), (None, None))
        self.flushLoggedErrors(StoreBusyError)

    def test_what_comes_late_is_no_beginning(self) -> None:
        self.deliver()
        self.deliveries.end()
        self.clock.advance(120)
        self.deliver(via=Via.HTTP)
        self.deliveries.end()
        self.assertEqual(len(self.log.lines()), 2, self.log.lines())

    def test_the_next_stage_has_lines_of_its_own(self) -> None:
        for height in (1000, 2000):
            self.deliver(height)
            self.deliveries.end()
            self.clock.advance(60)
        lines = self.log.lines()
        self.assertEqual(["stage 1000" in line for line in lines], [True, True, False, False])

    def test_a_node_from_other_stages_makes_one_line_a_minute(self) -> None:
        self.deliver(1000)
        for height in range(10**9, 10**9 + 120):
            self.deliver(height)
            self.deliver(1000)
            self.clock.advance(1)
        self.assertFalse([line for line in self.log.lines() if line.startswith("a: stage 1000: ")])
        begins = [line for line in self.log.lines() if "begin" in line]
        self.assertEqual(len(begins), 2, begins)
        self.assertLess(len(self.log.lines()), 5, self.log.lines())

    def test_nothing_could_be_stored(self) -> None:
        recorded: Deferred[Receipt] = fail(StoreBusyError("disk full"))
        self.deliveries.follow(generated_batch(block_height=1000), Via.HTTP, recorded)
        self.failureResultOf(recorded, StoreBusyError)
        self.deliveries.end()
        self.assertEqual(self.log.lines()[-1], "a: stage 1000: no batch could be stored")

    def test_p99_of_one(self) -> None:
        self.deliveries.follow(generated_batch(), Via.HTTP, succeed(Receipt("id", 1)))
        self.deliveries.end()
        self.assertIn("within 0 ms", self.log.lines()[-1])
