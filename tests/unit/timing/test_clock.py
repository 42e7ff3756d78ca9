"""The reactor's clock, and the times that are shown."""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.python import runtime
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.clock import follows_wall_clock, make_monotonic, unix_seconds


class FakeReactor(ReactorBase):
    """A reactor with Twisted's own time, which is not run."""

    def installWaker(self) -> None:
        """Do without: no thread wakes it."""


class ClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()

    def test_a_reactor_follows_the_wall_clock_until_it_is_made_monotonic(self) -> None:
        self.assertTrue(follows_wall_clock(self.reactor))
        make_monotonic(self.reactor)
        self.assertFalse(follows_wall_clock(self.reactor))
        self.assertIs(self.reactor.seconds, time.monotonic)

    def test_a_test_clock_is_neither(self) -> None:
        clock = Clock()
        self.assertFalse(follows_wall_clock(clock))
        clock.advance(7)
        self.assertEqual((unix_seconds(clock), unix_seconds(clock, 5)), (7, 5))

    def test_calls_that_are_planned_come_when_they_were_to_come(self) -> None:
        for is_new in (False, True):
            reactor = FakeReactor()
            called: list[int] = []
            calls = [reactor.callLater(delay, called.append, delay) for delay in (0, 1000)]
            if not is_new:
                # The reactor keeps those that it has seen in another list.
                reactor._insertNewDelayedCalls()
            make_monotonic(reactor)
            reactor.runUntilCurrent()
            self.assertEqual(called, [0])
            self.assertTrue(990 < calls[1].getTime() - time.monotonic() <= 1000)
            calls[1].reset(50)
            self.assertTrue(40 < calls[1].getTime() - time.monotonic() <= 50)

    def test_times_are_shown_in_unix_seconds(self) -> None:
        for change in (make_monotonic, lambda reactor: None):
            change(self.reactor)
            self.assertTrue(abs(unix_seconds(self.reactor) - time.time()) < 10)
            before = unix_seconds(self.reactor, self.reactor.seconds() - 100)
            self.assertTrue(90 < time.time() - before < 110)

    def test_the_wall_clock_is_found_under_twisteds_name(self) -> None:
        self.assertIs(ReactorBase.seconds, runtime.seconds)
