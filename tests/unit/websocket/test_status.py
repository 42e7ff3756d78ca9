"""What a WebSocketClient says of itself, in its status and in the log."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from dapi.websocket.client import WebSocketState
from tests.logs import log_of
from tests.unit.websocket.client_in_memory import ClientInMemory, message
from tests.unit.websocket.links import ScriptedServer


class StatusTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = ClientInMemory()
        self.client = self.world.client

    def test_waiting_tells_why_since_when_and_until_when(self) -> None:
        self.client.startService()
        self.world.advance(2)
        self.world.refuse()
        status = self.client.status()
        self.assertEqual((status.state, status.since), (WebSocketState.WAITING, 2.0))
        self.assertIn("TCP: Connection was refused", status.reason or "")
        assert status.until is not None
        self.assertTrue(5 <= status.until <= 7)
        self.world.until_next_attempt()
        self.assertApproximates(self.world.clock.seconds(), status.until, 0.0625)

    def test_a_try_in_between_does_not_make_the_cause_a_new_one(self) -> None:
        self.client.startService()
        self.world.refuse()
        first = self.client.status()
        for _ in range(3):
            self.world.until_next_attempt()
            trying = self.client.status()
            self.assertEqual((trying.state, trying.reason), (WebSocketState.CONNECTING, first.reason))
            self.world.refuse()
            again = self.client.status()
            self.assertEqual((again.reason, again.since), (first.reason, first.since))

    def test_open(self) -> None:
        self.client.startService()
        self.world.advance(1)
        self.world.accept()
        status = self.client.status()
        self.assertEqual((status.state, status.reason, status.since), (WebSocketState.OPEN, None, 1.0))
        self.assertEqual((status.until, status.connections), (None, 1))

    def test_refused_tells_what_the_node_said(self) -> None:
        for answer, word in (
            (b"HTTP/1.1 404 Not Found\r\n\r\n", "404: no WebSocket in this node, or the proxy before it strips"),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403: "),
            (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "500: "),
            (b"220 mail.example ESMTP\r\n\r\n", "no WebSocket answer"),
        ):
            world = ClientInMemory()
            world.client.startService()
            world.accept(ScriptedServer(answer))
            status = world.client.status()
            self.assertEqual(status.state, WebSocketState.REFUSED)
            self.assertIn(word, status.reason or "")
            self.assertEqual(status.last_problem, status.reason)
            self.assertIsNotNone(status.until)

    def test_refused_by_silence(self) -> None:
        self.client.startService()
        self.world.accept(ScriptedServer(None))
        self.world.advance(9.9)
        self.assertEqual(self.client.status().state, WebSocketState.CONNECTING)
        self.world.advance(0.2)
        status = self.client.status()
        self.assertEqual(
            (status.state, status.reason), (WebSocketState.REFUSED, "no answer to the upgrade within 10 s")
        )

    def test_refused_by_hanging_up(self) -> None:
        self.client.startService()
        link = self.world.accept(ScriptedServer(None))
        link.drop(ConnectionLost())
        self.assertEqual(self.client.status().state, WebSocketState.REFUSED)

    def test_refused_by_1008_after_the_upgrade(self) -> None:
        link = self.world.open()
        link.server.close(1008, "Another client is already connected")
        link.flush()
        status = self.client.status()
        self.assertEqual(
            (status.state, status.reason),
            (WebSocketState.REFUSED, "closed by the node: 1008 Another client is already connected"),
        )


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = log_of(self)
        self.world = ClientInMemory(url="ws://127.0.0.1:8080/ws?token=hunter2")
        self.client = self.world.client

    def _next(self) -> None:
        self.world.until_next_attempt()

    def test_one_line_for_each_change_of_cause(self) -> None:
        self.client.startService()
        for _ in range(5):
            self.world.refuse()
            self._next()
        for _ in range(5):
            self.world.accept(ScriptedServer(b"HTTP/1.1 404 Not Found\r\n\r\n"))
            self._next()
        self.world.accept()
        self.assertEqual(len(self.log.lines()), 2)
        self.world.advance(2)
        lines = self.log.lines()
        self.assertEqual(len(lines), 3, lines)
        for line, word in zip(lines, ("TCP: ", "404: ", "is open"), strict=True):
            self.assertTrue(line.startswith("node-a: "), line)
            self.assertIn(word, line)

    def test_a_node_that_accepts_and_closes_does_not_fill_the_log(self) -> None:
        link = self.world.open()
        for _ in range(10):
            link.server.close(1008, "PoW is not running")
            link.flush()
            self._next()
            link = self.world.accept()
        # That it was open for a moment is no news.
        self.assertEqual(len(self.log.lines()), 1, self.log.lines())
        link.server.sendMessage(message("a"))
        link.flush()
        self.assertIn("is open", self.log.lines()[-1])
        self.world.advance(10)
        self.assertEqual(len(self.log.lines()), 2)

    def test_an_idle_connection_is_replaced_without_a_word(self) -> None:
        self.world.open()
        self.world.advance(2)
        for _ in range(3):
            self.world.advance(60)
            self._next()
            self.world.accept()
        self.world.advance(10)
        levels = [event["log_level"] for event in self.log.events]
        self.assertEqual(levels, [LogLevel.info, *[LogLevel.debug] * 3])
        self.assertIn("replaced: no batch for 60 s", self.log.lines()[-1])

    def test_a_node_that_is_killed_is_not_said_to_close_cleanly(self) -> None:
        self.world.open().drop(ConnectionDone())
        (line,) = self.log.warnings()
        self.assertNotIn("cleanly", line)
        self.assertIn("the node's process ended, or closed it without a close frame", line)

    def test_a_node_that_is_down_for_an_hour(self) -> None:
        self.client.startService()
        for _ in range(900):
            self.world.refuse()
            self._next()
        self.assertGreater(self.world.clock.seconds(), 3600)
        self.assertEqual(len(self.log.lines()), 1)

    def test_a_node_that_keeps_crashing(self) -> None:
        """Refused, accepted, closed by turns: each is told once, and then that it works."""
        self.client.startService()
        for _ in range(20):
            self.world.refuse()
            self._next()
            link = self.world.accept()
            link.server.close(1008, "PoW is not running")
            link.flush()
            self._next()
        self.assertEqual(len(self.log.lines()), 2, self.log.lines())
        link = self.world.accept()
        link.server.sendMessage(message("a"))
        link.flush()
        self.assertEqual(len(self.log.lines()), 3)
        self.assertIn("is open", self.log.lines()[-1])
        link.drop(ConnectionLost())
        self.assertIn("connection lost", self.log.lines()[-1])

    def test_causes_that_differ_each_time(self) -> None:
        link = self.world.open()
        for number in range(50):
            link.server.close(4000, f"at {number}")
            link.flush()
            self._next()
            link = self.world.accept()
        self.assertEqual(len(self.log.lines()), 8)
        self.assertEqual(self.client.status().last_problem, "closed by the node: 4000 at 49")

    def test_a_restart_begins_anew(self) -> None:
        self.client.startService()
        self.world.refuse()
        self.client.restart()
        self.world.refuse()
        self.assertEqual(len(self.log.lines()), 2)

    def test_no_token_in_any_line(self) -> None:
        self.test_one_line_for_each_change_of_cause()
        self.assertNotIn("hunter2", "".join(self.log.lines()))
        self.assertNotIn("hunter2", str(self.log.events))
