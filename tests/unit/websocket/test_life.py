"""A client lives through whatever comes, in any order: start, stop, a node in all its moods, time."""

from __future__ import annotations

from random import Random

from autobahn.exception import Disconnected
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import StoreBusyError
from dapi.messages import Via
from dapi.websocket.client import WebSocketState
from tests.batches import generated_batch
from tests.unit.websocket.client_in_memory import ClientInMemory, Node, message
from tests.unit.websocket.links import Link, ScriptedServer

LIVES = 150
RETRYING = (WebSocketState.WAITING, WebSocketState.REFUSED)


class Life:
    """Does one thing after the other to a client, each drawn by lot."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = ClientInMemory(
            seed=seed, max_pending_messages=self.random.choice([1, 2, 32]), max_message_bytes=3000, idle_seconds=60
        )
        self.client = self.world.client
        self.done: list[str] = []
        self._count = 0

    def live_links(self) -> list[Link[Node]]:
        """The connections that the node still has."""
        links = [link for link in self.world.links if isinstance(link.server, Node)]
        return [link for link in links if link.server.lost is None]

    def step(self) -> None:
        """Do one thing that is possible now."""
        self._forget_tries_given_up()
        things = ["start", "stop", "restart", "wait", "wait", "wait_long", "by_http"]
        if self.world.recorder.pending:
            things += ["store", "store", "fail"]
        if self.world.is_trying:
            things += ["accept", "accept", "accept", "refuse", "answer_404", "be_silent"]
        if self.live_links():
            things += ["send", "send", "send", "send_junk", "send_much", "close", "drop", "block", "unblock", "be_deaf"]
        thing = self.random.choice(things)
        self.done.append(thing)
        getattr(self, f"_{thing}")()
        for link in self.world.links[-2:]:
            link.flush()

    def accept(self) -> Link[Node]:
        """Let the try that is under way reach a node."""
        self._forget_tries_given_up()
        return self.world.accept()

    def _forget_tries_given_up(self) -> None:
        while self.world.is_trying and self.world.clock.connectors[self.world.answered].stoppedConnecting:
            self.world.answered += 1

    def _start(self) -> None:
        self.client.startService()

    def _stop(self) -> None:
        self.client.stopService()

    def _restart(self) -> None:
        self.client.restart()

    def _wait(self) -> None:
        self.world.advance(self.random.choice([0.0625, 0.5, 1, 2]))

    def _wait_long(self) -> None:
        self.world.advance(self.random.choice([5, 16, 40, 62]))

    def _by_http(self) -> None:
        self._count += 1
        batch = generated_batch(block_hash=f"http {self._count}")
        self.world.handler.handle_generated_batch(batch, Via.HTTP).addErrback(lambda f: f.trap(StoreBusyError))

    def _store(self) -> None:
        self.world.recorder.store(self.random.randrange(len(self.world.recorder.pending)))

    def _fail(self) -> None:
        self.world.recorder.fail(StoreBusyError("full"), self.random.randrange(len(self.world.recorder.pending)))

    def _accept(self) -> None:
        self.world.accept()

    def _refuse(self) -> None:
        self.world.refuse()

    def _answer_404(self) -> None:
        self.world.accept(ScriptedServer(b"HTTP/1.1 404 Not Found\r\n\r\n"))

    def _be_silent(self) -> None:
        self.world.accept(ScriptedServer(None))

    def _send(self) -> None:
        self._count += 1
        self._send_payload(message(f"m{self._count}"))

    def _send_junk(self) -> None:
        self._send_payload(self.random.choice([b"\xff", b"{}", b"[1"]))

    def _send_much(self) -> None:
        self._send_payload(b"x" * 4000)

    def _send_payload(self, payload: bytes) -> None:
        try:
            self.live_links()[-1].server.sendMessage(payload, self.random.random() < 0.5)
        except Disconnected:
            self.done[-1] += " (it closes)"

    def _close(self) -> None:
        self.live_links()[-1].server.close(self.random.choice([1000, 1008, 1012]), "why")

    def _drop(self) -> None:
        self.live_links()[-1].drop(ConnectionLost())

    def _block(self) -> None:
        if self.live_links()[-1].producer is not None:
            self.live_links()[-1].producer.pauseProducing()

    def _unblock(self) -> None:
        if self.live_links()[-1].producer is not None:
            self.live_links()[-1].producer.resumeProducing()

    def _be_deaf(self) -> None:
        self.live_links()[-1].server.answers_pings = self.live_links()[-1].server.answers_closes = False


class LifeTests(SynchronousTestCase):
    def test_whatever_comes(self) -> None:
        for seed in range(LIVES):
            life = Life(seed)
            for _ in range(50):
                life.step()
                self._is_sane(life)
            self._is_clean_once_stopped(life)
            self._works_once_started(life)

    def _is_sane(self, life: Life) -> None:
        status = life.client.status()
        told = f"{life.done}: {status}"
        self.assertLessEqual(len(life.live_links()), 1, told)
        self.assertEqual(bool(life.client.running), status.state is not WebSocketState.STOPPED, told)
        if status.state not in RETRYING:
            self.assertIsNone(status.until, told)
        elif status.until is not None:
            self.assertGreater(status.until, life.world.clock.seconds() - 0.1, told)
        if status.state in RETRYING:
            self.assertIsNotNone(status.reason, told)
        elif status.state is not WebSocketState.CONNECTING:
            self.assertIsNone(status.reason, told)

    def _is_clean_once_stopped(self, life: Life) -> None:
        stopped = life.client.stopService()
        life.world.advance(1.1)
        self.successResultOf(stopped)
        while life.world.recorder.pending:
            life.world.recorder.store()
        self.assertEqual(life.world.clock.getDelayedCalls(), [], life.done)

    def _works_once_started(self, life: Life) -> None:
        life.client.startService()
        life.world.advance(2)
        link = life.accept()
        link.server.sendMessage(message("last"))
        link.flush()
        life.world.recorder.store()
        link.flush()
        self.assertEqual(link.server.acks, ["last"], life.done)
