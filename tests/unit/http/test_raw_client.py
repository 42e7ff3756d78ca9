"""A request goes out byte for byte as it is given, and its answer is bounded."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dapi.http.exchange import NoAnswerError
from dapi.http.raw_client import (
    MAX_ANSWER_BYTES,
    PIECE_BYTES,
    TRANSITIONS,
    BytesSource,
    ConnectionState,
    RawAnswer,
    RawClient,
)

ODD = b"/v2/poc-batches/a%252Fb;c//%7e%7E/generated?"


class Transport(StringTransport):
    """One that can be aborted."""

    def abortConnection(self) -> None:
        self.disconnecting = True


class FullTransport(Transport):
    """One whose peer does not read."""

    def write(self, data: bytes) -> None:
        super().write(data)
        cast(Any, self.producer).pauseProducing()


class RawClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def request(self, target: bytes = ODD, base_url: str = "http://127.0.0.1:9100") -> Deferred[RawAnswer]:
        client = RawClient(self.reactor, base_url, connect_timeout_seconds=5, ca_file=None)
        headers = [(b"Content-Type", b"application/json")]
        return Deferred.fromCoroutine(client.request(b"POST", target, headers, BytesSource(b"body")))

    def connect(self) -> Any:
        """Let the connection be made; return its protocol."""
        host, port, factory, _timeout, _bind = self.reactor.tcpClients[-1]
        self.assertEqual((host, port), ("127.0.0.1", 9100))
        protocol: Any = factory.buildProtocol(None)
        self.transport = Transport()
        protocol.makeConnection(self.transport)
        return protocol

    def test_the_target_as_it_is(self) -> None:
        for base_url, prefix in (("http://127.0.0.1:9100", b""), ("http://127.0.0.1:9100/below/", b"/below")):
            self.request(base_url=base_url).addErrback(lambda _: None)
            self.connect()
            sent = self.transport.value()
            self.assertEqual(sent.partition(b"\r\n")[0], b"POST " + prefix + ODD + b" HTTP/1.1")
            self.assertTrue(sent.endswith(b"\r\n\r\nbody"))
            self.assertIn(b"Content-Length: 4\r\n", sent)

    def test_an_answer(self) -> None:
        answer = self.request()
        self.connect().dataReceived(b"HTTP/1.1 503 x\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nno")
        self.assertEqual(self.successResultOf(answer), RawAnswer(503, b"a/b", b"no"))

    def test_a_large_answer_is_cut(self) -> None:
        answer = self.request()
        self.connect().dataReceived(b"HTTP/1.1 200 x\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 100_000)
        self.assertEqual(len(self.successResultOf(answer).body), MAX_ANSWER_BYTES)

    def test_no_answer(self) -> None:
        for received in (b"", b"HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nno", b"\x00junk\r\n\r\n"):
            answer = self.request()
            protocol = self.connect()
            protocol.dataReceived(received)
            if not received.startswith(b"\x00"):
                protocol.connectionLost(Failure(ConnectionDone()))
            self.failureResultOf(answer, NoAnswerError)

    def test_a_body_that_ends_early_is_no_fault_of_the_other_side(self) -> None:
        client = RawClient(self.reactor, "http://127.0.0.1:9100", connect_timeout_seconds=5, ca_file=None)
        body = BytesSource(b"body")
        body.length = 5
        answer = Deferred.fromCoroutine(client.request(b"POST", ODD, [], body))
        self.connect()
        self.assertIn("shorter than it was", str(self.failureResultOf(answer, OSError).value))
        self.assertTrue(self.transport.disconnecting)

    def test_cancelled_while_it_connects_and_while_it_waits(self) -> None:
        connecting = self.request()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        waiting = self.request()
        self.connect()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertTrue(self.transport.disconnecting)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class KeptConnectionTests(SynchronousTestCase):
    """A connection that was answered serves the next request."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.client = RawClient(
            self.reactor, "http://127.0.0.1:9100", connect_timeout_seconds=5, ca_file=None, max_idle=1
        )

    def request(self, body: bytes = b"body") -> Deferred[RawAnswer]:
        return Deferred.fromCoroutine(self.client.request(b"POST", ODD, [], BytesSource(body)))

    def connect(self, transport: Transport | None = None) -> Any:
        """Let the connection be made; return it."""
        wrapper: Any = self.reactor.tcpClients[-1][2].buildProtocol(None)
        wrapper.makeConnection(transport or Transport())
        return wrapper._wrappedProtocol

    def answered(self) -> Any:
        """Return a connection that has served one request, and is kept."""
        answer = self.request()
        protocol = self.connect()
        protocol.dataReceived(OK)
        self.successResultOf(answer)
        self.assertIs(protocol.state, ConnectionState.IDLE)
        return protocol

    def test_an_answer_ends_a_request_that_is_not_read_to_its_end(self) -> None:
        for received in (b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", b"\x00junk\r\n\r\n"):
            answer = self.request(b"x" * 3 * PIECE_BYTES)
            protocol = self.connect(FullTransport())
            self.assertNoResult(answer)
            protocol.dataReceived(received)
            if received.startswith(b"HTTP"):
                self.assertEqual(self.successResultOf(answer).status, 503)
            else:
                self.failureResultOf(answer, NoAnswerError)
            self.assertTrue(protocol.transport.disconnecting, "the rest of the request has not gone out")

    def lose(self, protocol: Any) -> None:
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertIs(protocol.state, ConnectionState.LOST)

    def test_the_next_request_goes_over_it(self) -> None:
        protocol = self.answered()
        for number in range(3):
            protocol.transport.clear()
            answer = self.request(b"again %d" % number)
            self.assertIs(protocol.state, ConnectionState.BUSY)
            sent = protocol.transport.value()
            self.assertTrue(sent.startswith(b"POST " + ODD + b" HTTP/1.1\r\n"))
            self.assertTrue(sent.endswith(b"\r\n\r\nagain %d" % number))
            self.assertNotIn(b"connection", sent.lower())
            protocol.dataReceived(OK[:20])
            protocol.dataReceived(OK[20:])
            self.assertEqual(self.successResultOf(answer), RawAnswer(200, None, b""))
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_two_at_once_have_a_connection_each_and_one_is_kept(self) -> None:
        first = self.answered()
        one, two = self.request(), self.request()
        second = self.connect()
        first.dataReceived(OK)
        second.dataReceived(OK)
        self.assertEqual([self.successResultOf(each).status for each in (one, two)], [200, 200])
        self.assertEqual((first.state, second.state), (ConnectionState.IDLE, ConnectionState.CLOSING))
        self.assertTrue(second.transport.disconnecting)

    def test_without_room_for_idle_ones_none_is_kept(self) -> None:
        self.client = RawClient(self.reactor, "http://127.0.0.1:9100", connect_timeout_seconds=5, ca_file=None)
        answer = self.request()
        protocol = self.connect()
        self.assertIn(b"Connection: close\r\n", protocol.transport.value())
        protocol.dataReceived(OK)
        self.successResultOf(answer)
        self.assertTrue(protocol.transport.disconnecting)

    def test_after_an_answer_that_ends_the_connection_it_is_closed(self) -> None:
        for ending in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            OK + b"more than was asked for",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * MAX_ANSWER_BYTES,
        ):
            answer = self.request()
            protocol = self.connect()
            protocol.dataReceived(ending)
            self.assertEqual(self.successResultOf(answer).status, 200)
            self.assertIs(protocol.state, ConnectionState.CLOSING, ending[:60])
            self.lose(protocol)

    def test_an_answer_before_the_whole_request_ends_it(self) -> None:
        answer = self.request(b"x" * 3_000_000)
        protocol = self.connect(FullTransport())
        self.assertLess(len(protocol.transport.value()), 2_000_000)
        protocol.dataReceived(OK)
        protocol.resumeProducing()
        self.assertEqual(self.successResultOf(answer).status, 200)
        self.assertIs(protocol.state, ConnectionState.CLOSING)

    def test_one_that_the_other_side_has_closed_is_used_no_more(self) -> None:
        self.lose(self.answered())
        self.request().addErrback(lambda _: None)
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_one_that_turns_out_to_be_closed_costs_nothing(self) -> None:
        """The other side may close it in the moment in which the next request goes out."""
        protocol = self.answered()
        answer = self.request(b"once more")
        self.lose(protocol)
        self.assertNoResult(answer)
        fresh = self.connect()
        self.assertTrue(fresh.transport.value().endswith(b"\r\n\r\nonce more"))
        fresh.dataReceived(OK)
        self.assertEqual(self.successResultOf(answer).status, 200)

    def test_a_part_of_an_answer_is_no_answer(self) -> None:
        protocol = self.answered()
        answer = self.request()
        protocol.dataReceived(b"HTTP/1.1 2")
        self.lose(protocol)
        self.failureResultOf(answer, NoAnswerError)
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_a_new_one_that_is_closed_is_no_answer(self) -> None:
        answer = self.request()
        self.lose(self.connect())
        self.failureResultOf(answer, NoAnswerError)

    def test_a_quiet_one_is_closed(self) -> None:
        protocol = self.answered()
        self.reactor.advance(1.9)
        self.assertIs(protocol.state, ConnectionState.IDLE)
        self.reactor.advance(0.2)
        self.assertTrue(protocol.transport.disconnecting)
        # It is not lost yet, and serves nobody any more.
        self.request().addErrback(lambda _: None)
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_a_request_is_not_ended_because_the_connection_was_quiet_before(self) -> None:
        protocol = self.answered()
        answer = self.request()
        self.reactor.advance(60)
        protocol.dataReceived(OK)
        self.assertEqual(self.successResultOf(answer).status, 200)

    def test_what_comes_unasked_for_closes_it(self) -> None:
        protocol = self.answered()
        protocol.dataReceived(OK)
        self.assertTrue(protocol.transport.disconnecting)

    def test_a_cancel_closes_it(self) -> None:
        protocol = self.answered()
        answer = self.request()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertIs(protocol.state, ConnectionState.CLOSING)

    def test_close_ends_idle_ones_and_waits_for_them(self) -> None:
        protocol = self.answered()
        closed = self.client.close()
        self.assertTrue(protocol.transport.disconnecting)
        self.assertNoResult(closed)
        self.lose(protocol)
        self.successResultOf(closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_every_transition_that_is_drawn_and_no_other(self) -> None:
        for before in ConnectionState:
            for after in ConnectionState:
                protocol = self.unused()
                protocol.state = before
                if after in TRANSITIONS[before]:
                    protocol._turn(after)
                    self.assertIs(protocol.state, after)
                else:
                    self.assertRaises(RuntimeError, protocol._turn, after)

    def unused(self) -> Any:
        """Return a connection that is not used yet."""
        self.request().addErrback(lambda _: None)
        protocol: Any = self.reactor.tcpClients[-1][2].buildProtocol(None)
        return protocol._wrappedProtocol
