"""A peer that floods us is closed with 1008, for a time that grows."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from dapi.websocket.client import WebSocketState
from tests.logs import log_of
from tests.unit.websocket.client_in_memory import ClientInMemory, Node, message
from tests.unit.websocket.links import Link

BAD = "closed by us: 1008 more than 5 bad messages in a row"


class FloodTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = log_of(self)
        self.world = ClientInMemory(max_bad_messages=5, max_pings=10)
        self.link: Link[Node] = self.world.open()

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.link.server.sendMessage(payload)
        self.link.flush()

    def assert_closed(self, reason: str) -> float:
        """Check why the connection is closed; return in how many seconds it is tried again."""
        while self.world.client.status().state is WebSocketState.OPEN:
            self.world.advance(0.1)
        status = self.world.client.status()
        self.assertEqual((status.state, status.reason), (WebSocketState.WAITING, reason))
        self.assertEqual([code for code, _ in self.link.server.closes], [1008])
        assert status.until is not None
        return status.until - self.world.clock.seconds()

    def again(self) -> None:
        self.world.until_next_attempt(limit_seconds=400)
        self.link = self.world.accept()

    def test_bad_messages_in_a_row(self) -> None:
        self.send(*[b"", b"{", b"[]", b'"x"', b"{}"], message("good"), *[b"bad"] * 5)
        self.assertEqual(self.world.client.status().state, WebSocketState.OPEN)
        self.send(b"bad")
        self.assertTrue(2.9 <= self.assert_closed(BAD) / 2 <= 5)
        self.assertEqual(self.world.client.status().bad_messages, 11)

    def test_a_large_bad_message_counts_as_many(self) -> None:
        self.send(b"{" + b" " * (2 * 2**20))
        self.assertEqual(self.world.client.status().state, WebSocketState.OPEN)
        self.send(b"{" + b" " * (2 * 2**20))
        self.assert_closed(BAD)
        self.assertEqual(self.world.client.status().bad_messages, 2)

    def test_large_bad_messages_count_also_when_they_are_decoded_later(self) -> None:
        self.world.threads.holds_threads = True
        self.send(*[b"{" + b" " * (2 * 2**20)] * 2, message("good"))
        self.world.threads.run_threads()
        self.assertEqual(self.world.client.status().state, WebSocketState.OPEN)
        self.world.threads.run_threads()
        self.assert_closed(BAD)

    def test_what_follows_is_not_looked_at(self) -> None:
        self.send(*[b"bad"] * 100)
        self.assert_closed(BAD)
        self.assertEqual(self.world.client.status().bad_messages, 6)

    def test_the_time_doubles_until_a_connection_ends_otherwise(self) -> None:
        for doublings in (1, 2, 3, 4, 5, 6, 6):
            self.send(*[b"bad"] * 6)
            self.assertTrue(2.9 <= self.assert_closed(BAD) / 2**doublings <= 5)
            self.again()
        self.assertEqual(len(self.log.warnings(BAD)), 1)
        self.link.drop(ConnectionLost())
        status = self.world.client.status()
        assert status.until is not None
        self.assertTrue(2.9 <= status.until - self.world.clock.seconds() <= 5)

    def test_an_init_begins_afresh(self) -> None:
        for _ in range(3):
            self.send(*[b"bad"] * 6)
            self.again()
        self.world.client.restart()
        self.link.flush()
        self.again()
        self.send(*[b"bad"] * 6)
        self.assertTrue(2.9 <= self.assert_closed(BAD) / 2 <= 5)

    def test_pings(self) -> None:
        for _ in range(3):
            for _ in range(10):
                self.link.server.sendPing(b"x")
            self.link.flush()
            self.world.advance(10.1)
        self.assertEqual(self.world.client.status().state, WebSocketState.OPEN)
        for _ in range(11):
            self.link.server.sendPing(b"x")
        self.link.flush()
        self.assert_closed("closed by us: 1008 more than 10 pings within 10 s")
