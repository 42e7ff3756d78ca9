"""A timer can be started again, laid to rest and cancelled any number of times."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.timer import Timer


class TimerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.fired: list[float] = []
        self.timer = Timer(self.clock, 3, lambda: self.fired.append(self.clock.seconds()))

    def test_fires_once(self) -> None:
        self.timer.start()
        self.assertTrue(self.timer.is_running)
        self.clock.pump([2.9, 0.2, 10])
        self.assertEqual(len(self.fired), 1)
        self.assertFalse(self.timer.is_running)

    def test_a_second_start_counts_from_then(self) -> None:
        self.timer.start()
        self.clock.advance(2)
        self.timer.start()
        self.clock.advance(2)
        self.assertEqual(self.fired, [])
        self.clock.advance(1)
        self.assertEqual(self.fired, [5])

    def test_other_seconds(self) -> None:
        self.timer.start(0.5)
        self.clock.advance(0.5)
        self.assertEqual(self.fired, [0.5])

    def test_cancel_leaves_nothing(self) -> None:
        self.timer.cancel()
        self.timer.start()
        self.timer.cancel()
        self.timer.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_can_be_started_from_its_own_call(self) -> None:
        def fire() -> None:
            self.fired.append(self.clock.seconds())
            timer.start()

        timer = Timer(self.clock, 1, fire)
        timer.start()
        self.clock.pump([1, 1, 1])
        self.assertEqual(self.fired, [1, 2, 3])

    def test_at_rest(self) -> None:
        self.timer.start()
        self.timer.rest()
        self.assertFalse(self.timer.is_running)
        self.clock.advance(2)
        self.timer.start()
        self.assertTrue(self.timer.is_running)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(2)
        self.assertEqual(self.fired, [])
        self.clock.advance(1)
        self.assertEqual(self.fired, [5])

    def test_at_rest_for_longer_than_its_delay(self) -> None:
        self.timer.rest()
        self.timer.start()
        self.timer.rest()
        self.clock.advance(10)
        self.assertEqual((self.fired, self.clock.getDelayedCalls()), ([], []))
        self.timer.start()
        self.clock.advance(3)
        self.assertEqual(self.fired, [13])

    def test_cancel_at_rest_leaves_nothing(self) -> None:
        self.timer.start()
        self.timer.rest()
        self.timer.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.timer.start()
        self.clock.advance(3)
        self.assertEqual(self.fired, [3])
