"""A node that took more than its share of the thread is not read for a while, and loses nothing by it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import ProofBatch
from dapi.timing.fair_share import PAUSE_SECONDS
from dapi.websocket.client import WebSocketState
from tests.unit.websocket.client_in_memory import message, open_client


class PauseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world, self.link = open_client()
        self.account = self.world.share.of_node(1)

    def others_work(self, seconds: float = 0.0) -> None:
        until = self.world.clock.seconds() + seconds
        while True:
            for other in (2, 3):
                self.world.share.of_node(other).charge(1e-4)
            if self.world.clock.seconds() >= until:
                return
            self.world.advance(0.125)

    def pause(self) -> None:
        self.others_work(0.5)
        self.account.charge(1.0)

    def send(self, *names: str) -> None:
        for name in names:
            self.link.server.sendMessage(message(name))
        self.link.flush()

    def test_nothing_is_read_in_a_pause_and_all_of_it_afterwards(self) -> None:
        self.pause()
        self.assertTrue(self.link.client_transport.is_paused)
        self.assertTrue(self.world.client.status().paused)
        self.send("a", "b")
        self.assertEqual(self.world.recorder.taken, [])
        self.others_work(PAUSE_SECONDS + 3)
        self.assertEqual(self.world.recorder.taken, ["a", "b"])
        self.assertFalse(self.link.client_transport.is_paused)

    def test_a_long_pause_ends_no_connection(self) -> None:
        for _ in range(4):
            self.pause()
            self.others_work(PAUSE_SECONDS + 3)
        self.assertIs(self.world.client.status().state, WebSocketState.OPEN)
        self.send("a")
        self.assertEqual(self.world.recorder.taken, ["a"])

    def test_acks_are_sent_in_a_pause(self) -> None:
        self.send("a")
        self.pause()
        self.world.recorder.store()
        self.link.flush()
        self.assertEqual(self.link.server.acks, ["a"])

    def work(self, batch: ProofBatch) -> None:
        self.world.cpu_seconds += 1.0 if batch.block_hash == "a" else 0.0

    def test_what_came_with_a_message_that_took_too_long_waits(self) -> None:
        self.others_work(0.5)
        self.world.handler.observe_generated(self.work)
        # In one read.
        for name in "abc":
            self.link.server.sendMessage(message(name))
        self.link.flush()
        self.assertEqual(self.world.recorder.taken, ["a"])
        self.others_work(PAUSE_SECONDS + 3)
        self.assertEqual(self.world.recorder.taken, ["a", "b", "c"])

    def test_and_so_do_fragments_behind_it(self) -> None:
        self.others_work(0.5)
        self.world.handler.observe_generated(self.work)
        for name in "abc":
            self.link.server.sendMessage(message(name), fragmentSize=64)
        self.link.flush()
        self.assertEqual(self.world.recorder.taken, ["a"])
        self.others_work(PAUSE_SECONDS + 3)
        self.assertEqual(self.world.recorder.taken, ["a", "b", "c"])

    def test_a_close_is_heard_in_a_pause(self) -> None:
        self.pause()
        closed = self.world.client.stopService()
        self.link.flush()
        self.successResultOf(closed)
        self.assertEqual(self.world.client.status().state, WebSocketState.STOPPED)

    def test_a_connection_that_comes_in_a_pause_is_opened_and_not_read(self) -> None:
        self.pause()
        self.world.client.restart()
        self.link.flush()
        self.world.until_next_attempt()
        self.account.charge(1.0)
        self.link = self.world.accept()
        self.assertIs(self.world.client.status().state, WebSocketState.OPEN)

    def test_who_is_alone_is_read_whatever_it_takes(self) -> None:
        self.account.charge(30.0)
        self.send("a")
        self.assertEqual(self.world.recorder.taken, ["a"])
