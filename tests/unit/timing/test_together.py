"""Coroutines that run side by side."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.together import to_the_end, together


class TogetherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waited: dict[str, Deferred[str]] = {}

    async def call(self, name: str) -> str:
        self.waited[name] = Deferred()
        return await self.waited[name]

    def start(self, *names: str, at_once: int = 1000) -> Deferred[list[str]]:
        return Deferred.fromCoroutine(together([partial(self.call, name) for name in names], at_once=at_once))

    def test_results_come_in_the_order_of_the_calls(self) -> None:
        results = self.start("a", "b")
        self.waited["b"].callback("B")
        self.assertNoResult(results)
        self.waited["a"].callback("A")
        self.assertEqual(self.successResultOf(results), ["A", "B"])

    def test_without_calls(self) -> None:
        self.assertEqual(self.successResultOf(self.start()), [])

    def test_no_more_than_so_many_at_once(self) -> None:
        results = self.start("a", "b", "c", at_once=2)
        self.assertEqual(list(self.waited), ["a", "b"])
        self.waited["b"].callback("B")
        self.assertEqual(list(self.waited), ["a", "b", "c"])
        self.waited["a"].callback("A")
        self.waited["c"].callback("C")
        self.assertEqual(self.successResultOf(results), ["A", "B", "C"])

    def test_the_first_error_is_raised_as_it_is_and_ends_the_others(self) -> None:
        results = self.start("a", "b", "c", at_once=2)
        self.waited["b"].errback(KeyError("b"))
        self.failureResultOf(results, KeyError)
        self.assertEqual(list(self.waited), ["a", "b"])
        self.assertTrue(self.waited["a"].called)

    def test_a_cancel_reaches_all(self) -> None:
        results = self.start("a", "b", "c", at_once=2)
        results.cancel()
        self.failureResultOf(results, CancelledError)
        self.assertEqual(list(self.waited), ["a", "b"])
        self.assertTrue(all(waited.called for waited in self.waited.values()))


class ToTheEndTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.steps = [Deferred[None]() for _ in range(3)]
        self.ended: list[int] = []

    async def step(self, number: int) -> None:
        await self.steps[number]
        self.ended.append(number)

    def run_all(self, at_once: int) -> Deferred[None]:
        return Deferred.fromCoroutine(to_the_end((partial(self.step, number) for number in range(3)), at_once=at_once))

    def test_an_error_is_raised_when_all_others_have_ended(self) -> None:
        running = self.run_all(3)
        self.steps[0].errback(ValueError("first"))
        self.steps[2].errback(ValueError("second"))
        self.assertNoResult(running)
        self.steps[1].callback(None)
        self.assertEqual(str(self.failureResultOf(running, ValueError).value), "first")
        self.assertEqual(self.ended, [1])

    def test_no_more_at_once_than_allowed_and_none_left_out_after_an_error(self) -> None:
        running = self.run_all(1)
        self.steps[1].callback(None)
        self.steps[2].callback(None)
        self.assertEqual(self.ended, [])
        self.steps[0].errback(ValueError("first"))
        self.failureResultOf(running, ValueError)
        self.assertEqual(self.ended, [1, 2])

    def test_a_cancel_ends_all(self) -> None:
        running = self.run_all(3)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.ended, [])

    def test_a_cancel_ends_those_too_that_have_not_begun(self) -> None:
        running = self.run_all(1)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual([step.called for step in self.steps], [True, False, False])

    def test_a_cancel_is_told_though_a_call_takes_it_for_an_answer(self) -> None:
        self.steps[0] = Deferred(lambda step: step.callback(None))
        running = self.run_all(1)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.ended, [0])
