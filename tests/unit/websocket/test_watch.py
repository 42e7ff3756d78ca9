"""One connection is watched: pings, pausing, a node that does not read, and the end."""

from __future__ import annotations

import struct

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from dapi.websocket.client import WebSocketState
from tests.unit.websocket.client_in_memory import ClientInMemory, Node, message, open_client


class PingTests(SynchronousTestCase):
    def test_every_20_seconds(self) -> None:
        world, link = open_client(idle_seconds=1000)
        world.advance(19.9)
        self.assertEqual(link.server.pings, 0)
        world.advance(0.2)
        self.assertEqual(link.server.pings, 1)
        world.advance(61)
        self.assertEqual(link.server.pings, 4)
        self.assertEqual(world.client.status().connections, 1)

    def test_a_peer_that_pings_is_not_pinged(self) -> None:
        world, link = open_client(idle_seconds=1000)
        for _ in range(6):
            world.advance(19.9)
            link.server.sendPing(b"x")
            link.flush()
        self.assertEqual((link.server.pings, world.client.status().connections), (0, 1))
        world.advance(20.9)
        self.assertEqual(link.server.pings, 0)
        world.advance(0.2)
        self.assertEqual(link.server.pings, 1)

    def test_no_answer_for_15_seconds_ends_it(self) -> None:
        world, link = open_client(idle_seconds=1000)
        link.server.answers_pings = False
        world.advance(34.9)
        self.assertEqual(world.client.status().state, WebSocketState.OPEN)
        world.advance(0.2)
        status = world.client.status()
        self.assertEqual((status.state, status.reason), (WebSocketState.WAITING, "no answer to a ping within 15 s"))

    def test_a_half_open_peer_is_aborted_within_a_second_more(self) -> None:
        world, link = open_client(idle_seconds=1000)
        link.server_transport.bufferReceived = lambda _data: None  # type: ignore[method-assign]
        world.advance(35.5)
        self.assertFalse(link.client_transport.is_aborted)
        world.advance(0.6)
        self.assertTrue(link.client_transport.is_aborted)
        self.assertEqual(world.client.status().reason, "no answer to a ping within 15 s")

    def test_a_node_that_is_deaf_for_six_seconds_keeps_its_connection(self) -> None:
        world, link = open_client(idle_seconds=1000)
        for _ in range(4):
            link.server.answers_pings = False
            world.advance(20.05)
            link.server.answers_pings = True
            world.advance(6)
            link.server.sendPong(b"")
            link.flush()
        self.assertEqual(world.client.status().connections, 1)

    def test_any_data_is_a_sign_of_life(self) -> None:
        """A pong may stand behind a message that takes long to come."""
        world, link = open_client(idle_seconds=1000)
        link.server.answers_pings = False
        link.server_transport.write(b"\x81\x7f" + struct.pack("!Q", 10_000_000))
        for _ in range(10):
            world.advance(10)
            link.server_transport.write(b"x" * 100)
            link.flush()
        self.assertEqual(world.client.status().state, WebSocketState.OPEN)


class PauseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world, self.link = open_client(max_pending_messages=2, idle_seconds=30)
        self.node = self.link.server

    def _send(self, *names: str) -> None:
        for name in names:
            self.node.sendMessage(message(name))
        self.link.flush()

    def test_reading_pauses_when_too_many_wait_for_the_disk(self) -> None:
        self._send("a")
        self.assertFalse(self.link.client_transport.is_paused)
        self._send("b")
        self.assertTrue(self.link.client_transport.is_paused)
        self.assertTrue(self.world.client.status().paused)
        self._send("c")
        self.assertEqual(self.world.recorder.taken, ["a", "b"])
        self.world.recorder.store()
        self.link.flush()
        self.assertEqual((self.world.recorder.taken, self.node.acks), (["a", "b", "c"], ["a"]))

    def test_what_was_read_in_one_chunk_waits_its_turn(self) -> None:
        self._send(*"abcde")
        self.assertEqual(self.world.recorder.taken, ["a", "b"])
        self.assertTrue(self.link.client_transport.is_paused)
        for expected in ("c", "d", "e"):
            self.world.recorder.store()
            self.assertEqual(self.world.recorder.taken[-1], expected)
        # The bound is still reached until one of the last two is stored.
        self.assertTrue(self.link.client_transport.is_paused)
        self.world.recorder.store()
        self.assertFalse(self.link.client_transport.is_paused)
        self.world.recorder.store()
        self.link.flush()
        self.assertEqual(self.node.acks, list("abcde"))

    def test_no_ping_while_paused_and_a_fresh_one_after(self) -> None:
        self._send("a", "b")
        self.world.advance(100)
        self.assertEqual((self.node.pings, self.world.client.status().state), (0, WebSocketState.OPEN))
        self.world.recorder.store()
        self.world.advance(19.9)
        self.assertEqual(self.node.pings, 0)
        self.world.advance(0.2)
        self.assertEqual(self.node.pings, 1)

    def test_a_pong_that_was_not_read_kills_nothing(self) -> None:
        self.node.answers_pings = False
        self.world.advance(20.05)
        self.assertEqual(self.node.pings, 1)
        self._send("a", "b")
        self.world.advance(100)
        self.assertEqual(self.world.client.status().state, WebSocketState.OPEN)

    def test_being_paused_is_not_being_idle(self) -> None:
        self._send("a", "b")
        self.world.advance(100)
        while self.world.recorder.pending:
            self.world.recorder.store()
        self.world.advance(29)
        self.assertEqual(self.world.client.status().state, WebSocketState.OPEN)
        self.world.advance(2)
        self.assertEqual(self.world.client.status().reason, "replaced: no batch for 30 s")

    def test_pending_messages_are_not_being_idle(self) -> None:
        self._send("a")
        self.world.advance(100)
        self.assertEqual(self.world.client.status().state, WebSocketState.OPEN)

    def test_a_close_of_the_node_is_read_when_reading_goes_on(self) -> None:
        self._send("a", "b")
        self.node.close(1012, "service restart")
        self.link.flush()
        self.assertEqual(self.world.client.status().state, WebSocketState.OPEN)
        self.world.recorder.store()
        self.link.flush()
        self.assertEqual(self.world.client.status().reason, "closed by the node: 1012 service restart")

    def test_stopping_while_paused_reads_the_answer_and_drops_what_came_before_it(self) -> None:
        self._send("a", "b", "c")
        stopped = self.world.client.stopService()
        self.assertFalse(self.link.client_transport.is_paused)
        self.link.flush()
        self.successResultOf(stopped)
        self.assertEqual(self.world.recorder.taken, ["a", "b"])
        self.assertFalse(self.link.client_transport.is_aborted)

    def test_what_waits_is_forgotten_with_its_connection(self) -> None:
        self._send(*"abcd")
        self.link.drop(ConnectionLost())
        while self.world.recorder.pending:
            self.world.recorder.store()
        self.assertEqual(self.world.recorder.taken, ["a", "b"])


class UnreadTests(SynchronousTestCase):
    """The node does not read what we send."""

    def setUp(self) -> None:
        self.world, self.link = open_client(idle_seconds=1000)
        self.transport = self.link.client_transport
        self.assertTrue(self.transport.streamingProducer)

    def test_nothing_more_is_read_from_it(self) -> None:
        self.link.producer.pauseProducing()
        self.assertTrue(self.transport.is_paused)
        self.link.producer.resumeProducing()
        self.assertFalse(self.transport.is_paused)

    def test_it_is_aborted_when_that_lasts(self) -> None:
        self.link.producer.pauseProducing()
        self.world.advance(14.9)
        self.assertFalse(self.transport.is_aborted)
        self.world.advance(0.2)
        self.assertTrue(self.transport.is_aborted)
        self.assertEqual(self.world.client.status().reason, "the node read nothing for 15 s")

    def test_not_when_it_reads_again_in_time(self) -> None:
        for _ in range(5):
            self.link.producer.pauseProducing()
            self.world.advance(14)
            self.link.producer.resumeProducing()
        self.world.advance(20)
        self.assertEqual(self.world.client.status().state, WebSocketState.OPEN)

    def test_stopping_does_not_wait_for_it(self) -> None:
        self.link.producer.pauseProducing()
        self.link.server_transport.bufferReceived = lambda _data: None  # type: ignore[method-assign]
        stopped = self.world.client.stopService()
        self.world.advance(0.95)
        self.assertNoResult(stopped)
        self.world.advance(0.1)
        self.successResultOf(stopped)
        self.assertTrue(self.transport.is_aborted)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


class CloseTests(SynchronousTestCase):
    def test_a_node_that_closes_but_does_not_hang_up_is_aborted_after_a_second(self) -> None:
        class Lingering(Node):
            def dropConnection(self, abort: bool = False) -> None:
                pass

        world = ClientInMemory()
        world.client.startService()
        server = Lingering()
        server.factory = world.factory
        link = world.accept(server)
        server.close(1008, "PoW is not running")
        link.flush()
        world.advance(0.95)
        self.assertFalse(link.client_transport.is_aborted)
        world.advance(0.1)
        self.assertTrue(link.client_transport.is_aborted)
        status = world.client.status()
        self.assertEqual(status.state, WebSocketState.REFUSED)
        self.assertEqual(status.reason, "closed by the node: 1008 PoW is not running")

    def test_a_close_that_the_node_leaves_unanswered_is_aborted_after_a_second(self) -> None:
        world, link = open_client()
        link.server.answers_closes = False
        stopped = world.client.stopService()
        world.advance(0.95)
        self.assertNoResult(stopped)
        world.advance(0.1)
        self.successResultOf(stopped)
        self.assertTrue(link.client_transport.is_aborted)

    def test_what_comes_while_it_closes_finds_no_place_to_wait(self) -> None:
        world, link = open_client(max_pending_messages=1)
        link.server.sendMessage(message("a"))
        link.flush()
        link.server.answers_closes = False
        world.client.stopService()
        link.server.sendMessage(message("late"))
        link.flush()
        world.recorder.store()
        self.assertEqual((world.recorder.taken, world.client.status().messages), (["a"], 1))

    def test_what_comes_while_it_closes_is_stored_without_an_ack(self) -> None:
        world, link = open_client()
        link.server.answers_closes = False
        world.client.stopService()
        link.flush()
        link.server.sendMessage(message("late"))
        link.flush()
        self.assertEqual(world.recorder.taken, ["late"])
        world.recorder.store()
        link.flush()
        self.assertEqual(link.server.received, [])
