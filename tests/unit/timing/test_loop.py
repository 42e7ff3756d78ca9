"""A loop is woken by a ring or by time, misses no ring, and survives its own defects."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.loop import RESTART_SECONDS, LoopService, Wake


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


class Looping(LoopService):
    """Ends each of its loops as the test says."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.turns: list[Deferred[None]] = []
        # What a cancelled turn fails with.
        self.ends_as: Exception = CancelledError()

    async def loop(self) -> None:
        self.turns.append(Deferred(lambda turn: turn.errback(self.ends_as)))
        await self.turns[-1]


class LoopServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.service = Looping(self.clock)
        self.service.startService()

    def stop(self) -> None:
        self.assertIsNone(self.successResultOf(self.service.stopService()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_stop_cancels_it(self) -> None:
        self.stop()
        self.service.startService()
        self.assertEqual(len(self.service.turns), 2)
        self.stop()

    def test_never_started(self) -> None:
        self.successResultOf(Looping(self.clock).stopService())
        self.stop()

    def test_broken_it_says_so_and_begins_anew(self) -> None:
        for number in (1, 2):
            self.assertIsNone(self.service.loop_problem)
            self.assertEqual(len(self.service.turns), number)
            self.service.turns[-1].errback(KeyError("height"))
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
            self.assertEqual(self.service.loop_problem, "Looping broke, see the log: KeyError: 'height'")
            self.clock.advance(RESTART_SECONDS)
        self.stop()

    def test_a_cancelled_call_is_no_stop(self) -> None:
        self.service.turns[0].cancel()
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)
        self.clock.advance(RESTART_SECONDS)
        self.assertEqual(len(self.service.turns), 2)
        self.stop()

    def test_stopped_while_it_is_broken(self) -> None:
        self.service.turns[0].errback(KeyError("height"))
        self.flushLoggedErrors(KeyError)
        self.stop()

    def test_a_failure_that_a_stop_brings_about_is_none(self) -> None:
        self.stop()
        self.service.ends_as = KeyError("cancelled")
        self.service.startService()
        self.stop()
