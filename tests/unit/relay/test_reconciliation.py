"""What the container's counts say of what was handed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.relay.api_client import ApiUnavailableError
from dapi.relay.book import Book
from dapi.relay.facts import Facts, Target
from dapi.relay.knowledge import Knowledge
from dapi.relay.payload import Payload, Place
from dapi.relay.reconciliation import Reconciliation
from tests.logs import captured_log
from tests.unit.relay.test_forwarder import FakeStore

KEY = (100, "m")


class Container:
    """Counts what a test says; with no ``started_at`` it has no metrics."""

    started_at: float | None = None

    def __init__(self) -> None:
        self.asked = 0
        self.counting: Deferred[int] = Deferred()

    async def epochs(self) -> None:
        raise ApiUnavailableError("not asked for here")

    async def nodes(self) -> None:
        raise ApiUnavailableError("not asked for here")

    async def count(self, _height: int, _model: str) -> int:
        self.asked += 1
        return await self.counting

    async def start_time(self) -> float:
        if self.started_at is None:
            raise ApiUnavailableError("no metrics")
        return self.started_at


class FakeForwarder:
    """Says whether the container was away."""

    away: tuple[float, str] | None = None
    was_away = False
    queue: tuple[Payload, ...] = ()

    def look_at_held(self) -> None:
        """Nothing is held."""


def payload_of(number: int) -> Payload:
    """Return the payload with that number, which has ten nonces."""
    first = 10 * number - 9
    facts = Facts(100, 1, range(first, first + 10), None, first, 1, first + 9, 10)
    return Payload(number, Place("", 0), b"/", (), 1, 0.0, Target("m", "generated"), facts)


class ReconciliationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.container, self.again = Clock(), Container(), list[Payload]()
        store: Any = FakeStore()
        self.book = Book(store)
        self.book.on_again = self.again.append
        client: Any = self.container
        self.forwarder = FakeForwarder()
        forwarder: Any = self.forwarder
        self.reconciliation = Reconciliation(
            self.clock,
            client,
            Knowledge(self.clock, now=self.clock.seconds),
            self.book,
            forwarder,
            store,
            settled_seconds=15.0,
        )
        self.payload = payload_of(1)

    def ask(self, counted: int) -> int:
        """Have the container asked, and what it lost handed on again; return how much that was."""
        ledger = self.book.ledger(KEY)
        with captured_log():
            self.reconciliation._read_count(KEY, ledger.mark(), counted)
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

    def turn(self, counted: int, meanwhile: Callable[[], None] = lambda: None) -> str:
        """Ask the container, which counts so many when ``meanwhile`` has happened; return the payload's state."""
        self.container.counting = Deferred()
        with captured_log():
            turn = Deferred.fromCoroutine(self.reconciliation._turn())
            meanwhile()
            self.container.counting.callback(counted)
            self.successResultOf(turn)
        return self.payload.state

    def test_what_a_container_counts_that_started_during_the_question_settles_nothing_of_before(self) -> None:
        """It may have got as many others since."""
        self.take()
        self.container.started_at = 1.0
        self.assertEqual(self.turn(0), "taken")
        self.assertEqual(self.turn(10, lambda: setattr(self.container, "started_at", 2.0)), "waiting")
        self.take()
        self.assertEqual(self.turn(10), "settled")

    def test_without_metrics_one_that_was_away_may_have_started_anew(self) -> None:
        self.take()
        self.assertEqual(self.turn(0), "taken")

        def go() -> None:
            self.forwarder.away, self.forwarder.was_away = (0.0, "refused"), True

        # It may answer this question, and not yet what is handed on.
        self.assertEqual(self.turn(10, go), "taken")
        self.forwarder.away = None
        self.assertEqual(self.turn(10), "waiting")
        self.take()
        self.assertEqual(self.turn(10), "settled")

    def test_the_container_is_asked_right_after_a_200(self) -> None:
        """So that what comes right before it writes makes up for nothing that it has lost."""
        self.take()
        self.container.counting = succeed(10)
        with captured_log():
            self.reconciliation.startService()
            self.assertEqual((self.payload.state, self.container.asked), ("settled", 1))
            for number in (2, 3, 4):
                self.book.took(payload_of(number), 0.0)
                # The others that came within 0.2 s are looked at together.
                self.assertEqual(self.container.asked, 2)
            self.clock.advance(0.2)
            self.assertEqual(self.container.asked, 3)
            self.clock.advance(0.2)
            self.book.took(payload_of(5), 0.0)
            self.assertEqual(self.container.asked, 4)
            self.successResultOf(self.reconciliation.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
