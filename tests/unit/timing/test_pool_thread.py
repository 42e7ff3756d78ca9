"""Functions on a thread of the pool, which nobody leaves before they have ended."""

from __future__ import annotations

import gc

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.pool_thread import MeasuredThread, PoolThread
from tests.unit.threadless import ThreadlessReactor


def double(number: int) -> int:
    return 2 * number


def fail() -> None:
    raise ValueError("no")


class PoolThreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = ThreadlessReactor()
        self.thread = PoolThread(self.reactor)

    def test_result_and_error(self) -> None:
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.thread.run(double, 3))), 6)
        self.failureResultOf(Deferred.fromCoroutine(self.thread.run(fail)), ValueError)
        self.assertEqual(self.reactor.deferred, ["double", "fail"])

    def test_it_is_waited_for(self) -> None:
        self.reactor.holds_threads = True
        running = Deferred.fromCoroutine(self.thread.run(double, 3))
        self.assertNoResult(running)
        self.reactor.run_threads()
        self.assertEqual(self.successResultOf(running), 6)

    def test_an_error_that_comes_later_is_raised_and_not_logged(self) -> None:
        self.reactor.holds_threads = True
        running = Deferred.fromCoroutine(self.thread.run(fail))
        self.reactor.run_threads()
        self.failureResultOf(running, ValueError)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_also_when_it_is_cancelled(self) -> None:
        for function in (lambda: None, fail):
            self.reactor.holds_threads = True
            running = Deferred.fromCoroutine(self.thread.run(function))
            running.cancel()
            self.assertNoResult(running)
            self.reactor.run_threads()
            self.failureResultOf(running, CancelledError)


class MeasuredThreadTests(SynchronousTestCase):
    def test_what_its_functions_used(self) -> None:
        thread = MeasuredThread(maybeDeferred, iter((1.0, 1.25, 5.0, 5.5)).__next__)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(thread.run(double, 3))), 6)
        self.assertEqual(thread.used_seconds, 0.25)
        self.failureResultOf(Deferred.fromCoroutine(thread.run(fail)), ValueError)
        self.assertEqual(thread.used_seconds, 0.75)
