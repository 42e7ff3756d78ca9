"""Deferreds that wait for the same event."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.waiters import Waiters


class WaitersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waiters: Waiters[int] = Waiters()

    def test_all_that_wait_are_fired_in_their_order(self) -> None:
        order: list[str] = []
        self.waiters.wait().addCallback(lambda number: order.append(f"a{number}"))
        self.waiters.wait().addCallback(lambda number: order.append(f"b{number}"))
        self.waiters.fire(7)
        self.assertEqual(order, ["a7", "b7"])
        self.assertEqual(len(self.waiters), 0)

    def test_an_event_is_not_for_those_who_come_later(self) -> None:
        later: list[Deferred[int]] = []
        self.waiters.wait().addCallback(lambda _: later.append(self.waiters.wait()))
        self.waiters.fire(1)
        self.assertNoResult(later[0])
        self.assertEqual(len(self.waiters), 1)

    def test_a_failure_makes_them_fail(self) -> None:
        waiter = self.waiters.wait()
        self.waiters.fire(Failure(ValueError("x")))
        self.failureResultOf(waiter, ValueError)

    def test_one_that_is_cancelled_waits_no_longer(self) -> None:
        waiter = self.waiters.wait()
        waiter.cancel()
        self.failureResultOf(waiter, CancelledError)
        self.waiters.fire(1)
        self.assertEqual(len(self.waiters), 0)

    def test_one_that_is_cancelled_while_the_others_are_fired_fails_alone(self) -> None:
        waiters = [self.waiters.wait() for _ in range(3)]
        waiters[0].addCallback(lambda _: waiters[1].cancel())
        self.waiters.fire(1)
        self.failureResultOf(waiters[1], CancelledError)
        self.assertEqual(self.successResultOf(waiters[2]), 1)
