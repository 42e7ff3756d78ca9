"""A connection that the node has forgotten is replaced by a fresh one."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import Via
from dapi.websocket.client import WebSocketState
from tests.batches import generated_batch, validated_fields
from tests.unit.websocket.client_in_memory import ClientInMemory, message


class ReplacementTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = ClientInMemory()
        self.client = self.world.client
        self.link = self.world.open()

    def _by_http(self, name: str = "http", begun_at: float | None = None) -> None:
        """Let a batch come by HTTP that was never offered over the WebSocket."""
        self.world.handler.handle_generated_batch(generated_batch(block_hash=name), Via.HTTP, begun_at)
        self.world.advance(0.1)

    def test_a_minute_without_a_batch(self) -> None:
        self.world.advance(59.9)
        self.assertEqual(self.client.status().state, WebSocketState.OPEN)
        self.world.advance(0.2)
        status = self.client.status()
        self.assertEqual((status.state, status.reason), (WebSocketState.WAITING, "replaced: no batch for 60 s"))
        self.assertEqual(self.link.server.closes[0][0], 1000)
        delay = self.world.until_next_attempt()
        self.assertTrue(2.9 <= delay <= 5.1, delay)

    def test_each_batch_counts_from_then(self) -> None:
        for name in "abc":
            self.world.advance(50)
            self.link.server.sendMessage(message(name))
            self.link.flush()
            self.world.recorder.store()
        self.world.advance(59.8)
        self.assertEqual(self.client.status().connections, 1)
        self.assertEqual(self.client.status().state, WebSocketState.OPEN)
        self.world.advance(0.4)
        self.assertEqual(self.client.status().state, WebSocketState.WAITING)

    def test_a_batch_that_the_disk_took_long_for_counts_from_its_storing(self) -> None:
        self.link.server.sendMessage(message("a"))
        self.world.advance(119)
        self.world.recorder.store()
        self.world.advance(59)
        self.assertEqual(self.client.status().state, WebSocketState.OPEN)

    def test_verdicts_count_too(self) -> None:
        for name in "abc":
            self.world.advance(50)
            self.link.server.sendMessage(message(name, "validated", **validated_fields(block_hash=name)))
            self.link.flush()
            self.world.recorder.store()
        self.assertEqual((self.client.status().connections, self.client.status().acks), (1, 3))

    def test_what_is_no_batch_does_not_count(self) -> None:
        self.world.advance(50)
        self.link.server.sendMessage(b"{}")
        self.world.advance(10.1)
        self.assertEqual(self.client.status().state, WebSocketState.WAITING)

    def test_a_node_that_goes_round_it_by_http(self) -> None:
        self.world.advance(5.1)
        self._by_http()
        self.assertEqual(self.client.status().reason, "replaced: the node delivers by HTTP what it did not offer here")
        self.assertEqual(self.link.server.closes[0][0], 1000)
        self.assertLess(self.world.until_next_attempt(), 5.1)
        self.world.accept()
        self.assertEqual(self.client.status().state, WebSocketState.OPEN)

    def test_not_before_it_was_open_for_one_walk_of_the_node(self) -> None:
        self.world.advance(4.8)
        self._by_http()
        self.assertEqual(self.client.status().state, WebSocketState.OPEN)

    def test_not_for_an_upload_that_began_before_that(self) -> None:
        """Else a node whose uploads take long would lose each fresh connection before it could use it."""
        self.world.advance(5.1)
        self._by_http("1")
        begun_at = self.world.clock.seconds()
        self.world.until_next_attempt()
        self.world.accept()
        self.world.advance(20)
        self._by_http("2", begun_at)
        self.assertEqual(self.client.status().state, WebSocketState.OPEN)
        self._by_http("3", self.world.clock.seconds())
        self.assertEqual(self.client.status().state, WebSocketState.WAITING)

    def test_not_when_the_batch_was_offered_here(self) -> None:
        self.world.advance(5.1)
        self.link.server.sendMessage(message("slow", dist=[0.5, 1.25]))
        self.link.flush()
        self.world.handler.handle_generated_batch(generated_batch(block_hash="slow"), Via.HTTP)
        self.world.advance(0.1)
        self.assertEqual(self.client.status().state, WebSocketState.OPEN)

    def test_at_most_every_15_seconds(self) -> None:
        self.world.advance(5.1)
        self._by_http("1")
        first = self.world.clock.seconds()
        replaced = 1
        while self.world.clock.seconds() < first + 44:
            if self.world.is_trying:
                self.world.accept()
            was_open = self.client.status().state is WebSocketState.OPEN
            self._by_http(str(self.world.clock.seconds()))
            replaced += was_open and self.client.status().state is not WebSocketState.OPEN
        self.assertEqual(replaced, 3)

    def test_not_while_a_message_is_half_received(self) -> None:
        self.world.advance(5.1)
        self.link.server.beginMessage()
        self.link.server.sendMessageFrame(message("slow")[:20])
        self.link.flush()
        self._by_http()
        self.assertEqual(self.client.status().state, WebSocketState.OPEN)

    def test_not_while_paused_nor_right_after(self) -> None:
        world = ClientInMemory(max_pending_messages=1)
        link = world.open()
        world.advance(6)
        link.server.sendMessage(message("a"))
        link.flush()
        self.assertTrue(world.client.status().paused)
        for _ in range(2):
            world.handler.handle_generated_batch(generated_batch(block_hash="b"), Via.HTTP)
            world.advance(0.1)
            self.assertEqual(world.client.status().state, WebSocketState.OPEN)
            world.recorder.store()
        self.assertFalse(world.client.status().paused)

    def test_not_when_there_is_no_connection(self) -> None:
        self.link.drop(ConnectionLost())
        self._by_http("1")
        self.client.stopService()
        self._by_http("2")
        self.assertEqual(self.client.status().state, WebSocketState.STOPPED)
