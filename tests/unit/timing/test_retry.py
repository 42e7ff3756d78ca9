"""Trying again after a delay."""

from __future__ import annotations

from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.retry import RetryDelay, retry


class RetryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.outcomes: list[Exception | str] = []
        self.errors: list[Exception] = []

    async def attempt(self) -> str:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def begin(self) -> Deferred[str]:
        trying = retry(self.clock, self.attempt, errors=OSError, delay=lambda: 4.0, on_error=self.errors.append)
        return Deferred.fromCoroutine(trying)

    def test_it_tries_until_it_succeeds(self) -> None:
        first, second = OSError("1"), OSError("2")
        self.outcomes = [first, second, "done"]
        trying = self.begin()
        self.clock.advance(4.0)
        self.assertNoResult(trying)
        self.clock.advance(4.0)
        self.assertEqual(self.successResultOf(trying), "done")
        self.assertEqual(self.errors, [first, second])

    def test_an_error_of_another_kind_ends_it(self) -> None:
        self.outcomes = [ValueError("x"), "done"]
        self.failureResultOf(self.begin(), ValueError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_delay_is_uniform_between_the_bounds(self) -> None:
        delay = RetryDelay(Random(1))
        delays = sorted(delay() for _ in range(1000))
        self.assertTrue(3.0 <= delays[0] < 3.05 and 4.95 < delays[-1] <= 5.0)
        self.assertTrue(3.9 < delays[500] < 4.1)
