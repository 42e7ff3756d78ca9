"""The bounds of the HTTP server, over in-memory connections and a clock."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.http.answers import json_answer
from dapi.http.settings import HttpSettings
from dapi.http.site import JsonSite
from tests.logs import log_of
from tests.unit.http.connections import PEER, Echo, Transport

SETTINGS = HttpSettings(max_body_bytes=100, max_buffered_bytes=250, max_connections=9)


class ServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.resource = Echo()
        self.site = JsonSite(self.clock, self.resource, SETTINGS)
        self.log = log_of(self)

    def connect(self) -> Transport:
        return Transport(self.site)

    def connect_from(self, number: int) -> Transport:
        """Connect from an address of its own."""
        return Transport(self.site, IPv4Address("TCP", f"10.0.0.{number}", 40000))

    def only_answer(self, transport: Transport, status: int) -> tuple[dict[str, str], Any]:
        ((found, headers, body),) = transport.answers()
        self.assertEqual(found, status, body)
        self.assertEqual(headers["content-type"], "application/json")
        if status >= 400:
            self.assertEqual(list(body), ["error"])
        return headers, body

    def assert_refused(self, sent: bytes, status: int) -> Any:
        transport = self.connect()
        transport.send(sent)
        headers, body = self.only_answer(transport, status)
        self.assertEqual(headers["connection"], "close")
        self.assertTrue(transport.disconnecting)
        transport.send(b"x" * 50)
        self.assertEqual(len(transport.answers()), 1)
        transport.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.site.counts.answers, {status: 1})
        return body["error"]

    def test_body_up_to_the_limit(self) -> None:
        transport = self.connect()
        transport.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + b"x" * 100)
        _, body = self.only_answer(transport, 200)
        self.assertEqual(body, {"length": 100})
        self.assertEqual(self.site.counts.answers, {200: 1})

    def test_too_large_by_its_declared_length(self) -> None:
        message = self.assert_refused(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413)
        self.assertEqual(message, "the body has 101 bytes, at most 100 are taken")

    def test_too_large_is_not_invited_to_continue(self) -> None:
        self.assert_refused(
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n" + b"x" * 101, 413
        )

    def test_no_declared_length(self) -> None:
        message = self.assert_refused(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 411
        )
        self.assertIn("Content-Length", message)

    def test_malformed(self) -> None:
        for sent in (
            b"what is this\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\nHost: a\r\n\r\nx",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"GET /" + b"x" * 20000,
            b"GET / HTTP/1.1\r\n" + b"A: 1\r\n" * 600 + b"\r\n",
            b"GET / HTTP/1.1\r\n" + (b"A: " + b"x" * 900 + b"\r\n") * 20 + b"\r\n",
        ):
            with self.subTest(sent[:60]):
                self.setUp()
                self.assert_refused(sent, 400)

    def test_no_request_ever(self) -> None:
        transport = self.connect()
        self.clock.advance(9)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(1)
        self.assertTrue(transport.disconnecting)
        self.clock.advance(SETTINGS.linger_seconds)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.site.connections, 0)

    def drip(self, transport: Transport, sent: bytes) -> float:
        """Send a byte a second until an answer comes; return the time it took."""
        for seconds in range(60):
            if transport.value():
                return seconds
            transport.send(sent[seconds : seconds + 1] or b"x")
            self.clock.advance(1)
        raise AssertionError("no answer")

    def test_slow_headers(self) -> None:
        transport = self.connect()
        self.assertEqual(self.drip(transport, b"GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), 10)
        headers, _ = self.only_answer(transport, 408)
        self.assertEqual(headers["connection"], "close")
        self.assertTrue(transport.disconnecting)

    def test_slow_body(self) -> None:
        transport = self.connect()
        self.clock.advance(9)
        transport.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n")
        self.assertEqual(self.drip(transport, b"y" * 60), 30)
        self.only_answer(transport, 408)
        self.clock.advance(SETTINGS.linger_seconds)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.site.buffered_bytes, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_handler(self) -> None:
        transport = self.connect()
        transport.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        self.clock.advance(29.9)
        self.assertEqual(transport.value(), b"")
        self.clock.advance(0.1)
        headers, _ = self.only_answer(transport, 503)
        self.assertEqual(headers["retry-after"], "5")
        self.assertEqual(headers["connection"], "close")
        self.assertTrue(transport.disconnecting)
        self.resource.gone[0].trap(TimeoutError)

    def test_slow_body_counts_for_the_handler(self) -> None:
        transport = self.connect()
        transport.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
        self.clock.advance(29)
        transport.send(b"x")
        self.assertEqual(len(self.resource.waiting), 1)
        self.clock.advance(1)
        self.only_answer(transport, 503)

    def test_answer_that_is_not_read(self) -> None:
        transport = self.connect()
        transport.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        self.resource.waiting[0].write(b"some")
        self.clock.advance(30)
        self.assertTrue(transport.aborted)

    def test_each_request_has_its_own_deadline(self) -> None:
        transport = self.connect()
        for _ in range(4):
            transport.send(b"GET / HTTP/1.1\r\n")
            self.clock.advance(9)
            transport.send(b"Host: a\r\n\r\n")
            self.clock.advance(20)
        self.assertEqual([status for status, _, _ in transport.answers()], [200] * 4)
        self.assertFalse(transport.disconnecting)

    def test_pipelined_request_has_a_deadline(self) -> None:
        transport = self.connect()
        transport.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n")
        self.assertEqual([status for status, _, _ in transport.answers()], [200])
        self.clock.advance(30)
        self.assertEqual([status for status, _, _ in transport.answers()], [200, 408])

    def test_no_more_than_sixteen_pipelined_requests_are_answered_at_once(self) -> None:
        transport, get = self.connect(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        for _ in range(20):
            transport.send(get)
        self.assertFalse(transport.disconnecting)
        transport.send(get * 1000)
        self.assertEqual([status for status, _, _ in transport.answers()], [200] * 36)
        self.assertTrue(transport.disconnecting)

    def test_pipelined_after_a_slow_one(self) -> None:
        transport = self.connect()
        transport.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(transport.value(), b"")
        request = self.resource.waiting[0]
        request.write(json_answer(request, 1))
        request.finish()
        self.assertEqual([body for _, _, body in transport.answers()], [1, {"length": 0}])

    def test_client_that_goes_away(self) -> None:
        transport = self.connect()
        transport.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        self.assertEqual(self.site.buffered_bytes, 3)
        transport.lose()
        self.resource.gone[0].trap(ConnectionDone)
        self.assertEqual(self.site.buffered_bytes, 0)
        self.assertEqual(self.site.connections, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_all_bodies_together_are_bounded(self) -> None:
        post = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + b"x" * 100
        first, second, third = (self.connect_from(number) for number in range(3))
        first.send(post)
        second.send(post)
        third.send(post)
        headers, _ = self.only_answer(third, 503)
        self.assertEqual(headers["retry-after"], "5")
        third.lose()
        request = self.resource.waiting[0]
        request.write(json_answer(request, {}))
        request.finish()
        self.assertEqual(self.site.buffered_bytes, 100)
        first.send(post)
        self.assertEqual(len(self.resource.waiting), 3)

    def logged_levels(self) -> list[str]:
        """The levels of what was logged about connections so far."""
        return [event["log_level"].name for event in self.log.events if "connections" in event["log_format"]]

    def test_too_many_connections(self) -> None:
        self.site = JsonSite(self.clock, self.resource, HttpSettings(max_connections=3))
        peers = [IPv4Address("TCP", f"10.0.0.{number}", 40000) for number in range(3)]
        transports = [Transport(self.site, peer) for peer in peers]
        self.assertIsNone(self.site.buildProtocol(PEER))
        self.assertIsNone(self.site.buildProtocol(PEER))
        self.assertEqual(self.site.counts.connections_refused, 2)
        self.assertEqual(self.logged_levels(), ["warn"])
        transports[0].lose()
        self.assertEqual(self.logged_levels(), ["warn"])
        self.assertEqual(self.site.connections, 2)
        last = self.connect()
        last.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(self.site.counts.answers, {200: 1})
        for transport in (*transports, last):
            transport.lose()
        self.assertEqual(self.logged_levels(), ["warn", "info"])

    def test_one_peer_leaves_room_for_the_others(self) -> None:
        self.site = JsonSite(self.clock, self.resource, HttpSettings(max_connections=9))
        transports = [self.connect() for _ in range(4)]
        self.assertIsNone(self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40001)))
        self.assertEqual(self.site.counts.connections_refused, 1)
        for number in range(2, 7):
            Transport(self.site, IPv4Address("TCP", f"127.0.0.{number}", 40000))
        self.assertIsNone(self.site.buildProtocol(IPv4Address("TCP", "127.0.0.7", 40000)))
        transports[0].lose()
        Transport(self.site, IPv4Address("TCP", "127.0.0.7", 40000)).send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(self.site.counts.answers, {200: 1})

    def known(self, **settings: Any) -> None:
        """Have a site that knows the callers by their paths."""
        self.site = JsonSite(
            self.clock, self.resource, HttpSettings(**settings), admit=lambda path, address: path.partition(b"?")[2]
        )

    def test_a_caller_makes_so_many_requests_at_once(self) -> None:
        self.known(max_requests_per_caller=2)
        transports = [self.connect() for _ in range(3)]
        for transport in transports:
            transport.send(b"GET /slow?a HTTP/1.1\r\nHost: a\r\n\r\n")
        _, body = self.only_answer(transports[2], 503)
        self.assertIn("more than 2 requests at once", body["error"])
        other = self.connect()
        other.send(b"GET /?b HTTP/1.1\r\nHost: a\r\n\r\n")
        self.only_answer(other, 200)
        request = self.resource.waiting[0]
        request.write(json_answer(request, {}))
        request.finish()
        transports[1].lose()
        for _ in range(2):
            again = self.connect()
            again.send(b"GET /slow?a HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertEqual(again.answers(), [])

    def test_a_caller_leaves_room_for_the_bodies_of_others(self) -> None:
        self.known(max_buffered_bytes=900)
        begin = b"POST /slow?%s HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + bytes(99)
        transports = [self.connect() for _ in range(7)]
        for transport in transports[:4]:
            transport.send(begin % b"a")
        self.assertEqual([transport.answers() for transport in transports[:4]], [[]] * 4)
        transports[4].send(begin % b"a")
        self.assertIn("too many bodies", self.only_answer(transports[4], 503)[1]["error"])
        for transport in transports[5:]:
            transport.send(begin % b"b")
            self.assertEqual(transport.answers(), [])
        for transport in transports:
            transport.lose()
        self.assertEqual(self.site.buffered_bytes, 0)

    def test_an_address_leaves_room_for_the_bodies_of_others(self) -> None:
        """Whoever sends is not known, and one that sends many bodies slowly holds nobody else up."""
        self.site = JsonSite(self.clock, self.resource, HttpSettings(max_body_bytes=800, max_buffered_bytes=900))
        begin = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        slow = [self.connect_from(1) for _ in range(6)]
        for transport in slow:
            transport.send(begin % 100 + bytes(99))
        refused = [code for transport in slow for code, *_ in transport.answers()]
        self.assertEqual(set(refused), {503})
        self.assertLess(len(refused), 4)
        self.assertLessEqual(self.site.buffered_bytes, 500)
        other, another = self.connect_from(2), self.connect_from(3)
        for transport in (other, another):
            transport.send(begin % 100 + bytes(99))
            self.assertEqual(transport.answers(), [])
        for transport in (*slow, other, another):
            transport.lose()
        self.assertEqual((self.site.buffered_bytes, self.site._bodies.holders), (0, 0))

    def test_one_large_body_of_an_address_finds_room_beside_little_else(self) -> None:
        self.site = JsonSite(self.clock, self.resource, HttpSettings(max_body_bytes=800, max_buffered_bytes=900))
        large, small = self.connect_from(1), self.connect_from(1)
        small.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + bytes(99))
        large.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 700\r\n\r\n")
        for _ in range(7):
            large.send(bytes(100))
        self.assertEqual((large.answers(), len(self.resource.waiting)), ([], 1))

    def test_a_connection_that_says_nothing(self) -> None:
        silent, used = self.connect(), self.connect()
        used.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.clock.advance(10)
        self.assertEqual((silent.disconnecting, used.disconnecting), (True, False))
        self.clock.advance(50)
        self.assertTrue(used.disconnecting)

    def test_a_head_has_less_time_than_a_body(self) -> None:
        head, body = self.connect(), self.connect()
        head.send(b"POST / HTTP/1.1\r\nHost: a\r\n")
        body.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        self.clock.advance(10)
        self.only_answer(head, 408)
        self.assertEqual(body.answers(), [])
        self.clock.advance(20)
        self.only_answer(body, 408)

    def test_no_body_touches_the_disk(self) -> None:
        self.site = JsonSite(self.clock, self.resource)
        self.connect().send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000))
        (request,) = self.resource.waiting
        self.assertIsInstance(request.content, BytesIO)

    def test_closing(self) -> None:
        quiet, busy, stuck = self.connect(), self.connect(), self.connect()
        for transport in (busy, stuck):
            transport.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        closed = self.site.close_connections()
        self.assertTrue(quiet.disconnecting)
        quiet.lose()
        self.assertFalse(busy.disconnecting)
        request = self.resource.waiting[0]
        request.write(json_answer(request, {}))
        request.finish()
        self.only_answer(busy, 200)
        self.assertTrue(busy.disconnecting)
        busy.lose()
        self.assertNoResult(closed)
        self.clock.advance(2)
        self.assertTrue(stuck.aborted)
        self.assertIsNone(self.successResultOf(closed))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.successResultOf(self.site.close_connections()))
