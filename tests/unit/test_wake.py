"""A loop is woken by a ring or by time, and misses no ring."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.wake import Wake


class WakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wake = Wake(self.clock)

    def wait(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.wake.wait(5))

    def test_woken_by_a_ring(self) -> None:
        waiting = self.wait()
        self.assertNoResult(waiting)
        self.wake.ring()
        self.successResultOf(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_woken_by_time(self) -> None:
        waiting = self.wait()
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.successResultOf(waiting)

    def test_a_ring_between_two_waits_is_not_lost_and_counts_once(self) -> None:
        self.wake.ring()
        self.wake.ring()
        self.successResultOf(self.wait())
        waiting = self.wait()
        self.assertNoResult(waiting)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)

    def test_cancelled_it_leaves_nothing(self) -> None:
        waiting = self.wait()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.wake.ring()
        self.successResultOf(self.wait())
