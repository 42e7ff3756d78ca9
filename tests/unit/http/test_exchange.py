"""An answer that is read in pieces, while its connection is paused and resumed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.http.exchange import Answer, AnswerTooLongError, Exchanges, NoAnswerError
from tests.unit.http.answers_by_hand import AgentByHand

URL = "http://a.example/"


class AnswerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.agent = AgentByHand(200)
        (self.answer,) = self.agent.answers
        self.connection = self.answer.connection
        self.exchanges = Exchanges(Clock(), self.agent, 3)
        self.opened: Answer = self.successResultOf(self.start(self.exchanges.open("GET", URL, None)))

    def start(self, step: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(step)

    def read(self, size: int) -> Deferred[bytes]:
        return self.start(self.opened.read(size))

    def test_at_least_as_much_as_is_wanted(self) -> None:
        reading = self.read(4)
        self.answer.send(b"abc")
        self.assertNoResult(reading)
        self.answer.send(b"def")
        self.assertEqual(self.successResultOf(reading), b"abcdef")
        reading = self.read(1)
        self.assertNoResult(reading)
        self.answer.send(b"g")
        self.assertEqual(self.successResultOf(reading), b"g")

    def test_paused_while_nobody_reads(self) -> None:
        self.answer.send(b"abc")
        self.assertTrue(self.connection.is_paused)
        self.assertEqual(self.successResultOf(self.read(2)), b"abc")
        self.assertTrue(self.connection.is_paused)
        reading = self.read(2)
        self.assertFalse(self.connection.is_paused)
        self.answer.send(b"d")
        self.assertFalse(self.connection.is_paused)
        self.answer.send(b"e")
        self.assertTrue(self.connection.is_paused)
        self.assertEqual(self.successResultOf(reading), b"de")

    def test_the_rest_and_then_nothing(self) -> None:
        self.answer.send(b"abc")
        reading = self.read(4)
        self.answer.end()
        self.assertEqual(self.successResultOf(reading), b"abc")
        self.assertEqual(self.successResultOf(self.read(4)), b"")

    def test_what_came_before_anybody_reads(self) -> None:
        self.answer.send(b"abc")
        self.answer.end()
        self.assertEqual(self.successResultOf(self.read(1)), b"abc")
        self.assertEqual(self.successResultOf(self.read(1)), b"")

    def test_a_connection_that_is_lost(self) -> None:
        reading = self.read(4)
        self.answer.send(b"abc")
        self.answer.lose()
        self.assertIn("it went away", str(self.failureResultOf(reading, NoAnswerError).value))
        self.failureResultOf(self.read(4), NoAnswerError)

    def test_cancelled(self) -> None:
        reading = self.read(4)
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertTrue(self.connection.is_closed)
        self.answer.send(b"what is on its way")
        self.answer.lose()

    def test_aborted(self) -> None:
        self.opened.abort()
        self.assertTrue(self.connection.is_closed)

    def test_nothing_is_aborted_after_the_end(self) -> None:
        self.answer.end()
        self.opened.abort()
        self.assertFalse(self.connection.is_closed)


class ExchangeTests(SynchronousTestCase):
    def test_an_answer_as_long_as_it_may_be_and_longer(self) -> None:
        for body in (b"", b"abcd", b"abcde"):
            agent = AgentByHand(404)
            exchange = Deferred.fromCoroutine(Exchanges(Clock(), agent, 3).exchange("GET", URL, None, max_bytes=4))
            agent.answers[0].send(body)
            if len(body) > 4:
                error = self.failureResultOf(exchange, AnswerTooLongError).value
                self.assertEqual((error.status, error.begin), (404, body))
                self.assertTrue(agent.answers[0].connection.is_closed)
            else:
                agent.answers[0].end()
                self.assertEqual(self.successResultOf(exchange), (404, body))

    def test_cancelled_before_the_answer(self) -> None:
        agent = AgentByHand()
        agent.hangs = True
        opening = Deferred.fromCoroutine(Exchanges(Clock(), agent, 3).open("GET", URL, None))
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
