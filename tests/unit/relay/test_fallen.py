"""What a count that falls costs, and one that falls again and again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.relay.book import Book
from dapi.relay.facts import Facts, Target
from dapi.relay.knowledge import Knowledge
from dapi.relay.payload import Payload, Place
from dapi.relay.reconciliation import Reconciliation
from tests.logs import captured_log
from tests.unit.relay.test_forwarder import FakeStore

KEY = (100, "m")


class Container:
    """Counts what a test says."""

    counted = 0

    async def count(self, _height: int, _model: str) -> int:
        return self.counted


class FallenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.container, self.again = Clock(), Container(), list[Payload]()
        store: Any = FakeStore()
        self.book = Book(store)
        self.book.on_again = self.again.append
        client: Any = self.container
        nothing: Any = None
        self.reconciliation = Reconciliation(
            self.clock, client, Knowledge(self.clock), self.book, nothing, store, settled_seconds=15.0
        )
        self.payload = Payload(
            1, Place("", 0), b"/", (), 1, 0.0, Target("m", "generated"), Facts(100, 1, range(1, 11), None, 1, 1, 10, 10)
        )

    def ask(self, counted: int) -> int:
        """Have the container asked, and what it lost handed on again; return how much that was."""
        self.container.counted = counted
        ledger = self.book.ledger(KEY)
        with captured_log():
            self.successResultOf(Deferred.fromCoroutine(self.reconciliation._ask_count(KEY, ledger.mark())))
        again, self.again[:] = len(self.again), []
        if again:
            self.take()
        return again

    def take(self) -> None:
        self.book.ledger(KEY).sending(self.payload.facts.nonces)
        self.book.took(self.payload, self.clock.seconds())

    def test_the_whole_stage_goes_again_once_and_not_each_second(self) -> None:
        """Of two containers behind one address, each tells its own count."""
        self.take()
        self.assertEqual(self.ask(10), 0)
        self.assertEqual(self.ask(4), 1)
        for _ in range(7):
            self.clock.advance(1)
            self.assertEqual(self.ask(10), 0)
            self.clock.advance(1)
            self.assertEqual(self.ask(4), 0)
        self.clock.advance(1)
        self.assertEqual((self.ask(10), self.ask(4)), (0, 1))
        self.assertIn("counts 4 artifacts of stage 100", self.reconciliation.fallen[KEY])
