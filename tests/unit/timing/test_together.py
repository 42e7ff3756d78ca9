"""Coroutines that run side by side."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.together import together


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
