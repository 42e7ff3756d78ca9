"""What can end a WebSocket or keep it from coming, whoever it belongs to, and that 3 to 5 s lie behind each."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from dapi.websocket.client import ConnectionStatus, WebSocketState
from tests.unit.websocket.links import STEP_SECONDS, Link, ScriptedServer, Tries

# What the clients under test take at most.
MAX_MESSAGE_BYTES = 2000

REFUSALS = {
    "upgrade_301",
    "upgrade_401",
    "upgrade_429",
    "upgrade_404",
    "upgrade_403",
    "upgrade_500",
    "upgrade_junk",
    "upgrade_silence",
    "upgrade_hung_up",
    "closed_1008",
}


class Interruptions:
    """Each method lets one try, or the connection that comes of it, end in its own way."""

    def __init__(self, world: Tries[Any, Any]) -> None:
        self._world = world

    @classmethod
    def kinds(cls) -> Sequence[str]:
        return [name for name in dir(cls) if not name.startswith("_") and name != "kinds"]

    def refused_tcp(self) -> None:
        self._world.refuse(error.ConnectionRefusedError())

    def tcp_timeout(self) -> None:
        self._world.refuse(error.TimeoutError())

    def tls_failure(self) -> None:
        self._answer(None).drop(TLSError([("SSL routines", "", "certificate verify failed")]))

    def tls_wrong_name(self) -> None:
        self._answer(None).drop(VerificationError([]))

    def upgrade_404(self) -> None:
        self._answer(b"HTTP/1.1 404 Not Found\r\n\r\n")

    def upgrade_403(self) -> None:
        self._answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    def upgrade_301(self) -> None:
        self._answer(b"HTTP/1.1 301 Moved Permanently\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n")

    def upgrade_401(self) -> None:
        self._answer(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")

    def upgrade_429(self) -> None:
        self._answer(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n")

    def upgrade_500(self) -> None:
        self._answer(b"HTTP/1.1 500 Internal Server Error\r\n\r\noops")

    def upgrade_junk(self) -> None:
        self._answer(b"\x00\xff\x00\xffjunk\r\n\r\n")

    def upgrade_silence(self) -> None:
        self._answer(None)
        self._until_ended(10.2)

    def upgrade_hung_up(self) -> None:
        self._answer(None).drop(ConnectionLost())

    def closed_1001(self) -> None:
        self._close(1001, "")

    def closed_1008(self) -> None:
        self._close(1008, "Another client is already connected")

    def closed_1011(self) -> None:
        self._close(1011, "keepalive ping timeout")

    def closed_1012(self) -> None:
        self._close(1012, "")

    def reset_in_a_frame(self) -> None:
        link = self._world.accept()
        # The head of a text frame of 100 bytes, and some of them.
        link.server_transport.write(b"\x81\x64" + 40 * b"{")
        link.flush()
        link.drop(ConnectionLost())

    def reset(self) -> None:
        link = self._world.accept()
        self._world.advance(1)
        link.drop(ConnectionLost())

    def half_open(self) -> None:
        link = self._world.accept()
        link.server_transport.bufferReceived = lambda _data: None  # type: ignore[method-assign]
        self._until_ended(36.5)

    def too_large(self) -> None:
        link = self._world.accept()
        link.server.sendMessage(b"x" * (MAX_MESSAGE_BYTES + 1))
        link.flush()

    def invalid_utf8(self) -> None:
        link = self._world.accept()
        link.server.sendMessage(b"\xff")
        link.flush()

    def violation(self) -> None:
        link = self._world.accept()
        link.server_transport.write(b"\xff\xff")
        link.flush()
        self._until_ended(1.2)

    def unread(self) -> None:
        link = self._world.accept()
        link.producer.pauseProducing()
        self._until_ended(15.2)

    def _close(self, code: int, reason: str) -> None:
        link = self._world.accept()
        link.server.close(code, reason)
        link.flush()

    def _answer(self, answer: bytes | None) -> Link[ScriptedServer]:
        return self._world.accept(ScriptedServer(answer))

    def _until_ended(self, limit_seconds: float) -> None:
        end = self._world.clock.seconds() + limit_seconds
        while self._world.client.connection_status().until is None:
            assert self._world.clock.seconds() < end, "it did not end"
            self._world.advance(STEP_SECONDS)


class RetryTestCase(SynchronousTestCase):
    """What holds for every client: to be called with its world and its kinds of interruptions."""

    world: Tries[Any, Any]
    interruptions: Interruptions

    def interrupt(self, kind: str) -> tuple[ConnectionStatus, float]:
        """Let one try end, see that it is told, and measure the time to the next: the planned one is returned."""
        getattr(self.interruptions, kind)()
        status = self.world.client.connection_status()
        self.assertIn(status.state, (WebSocketState.WAITING, WebSocketState.REFUSED), kind)
        self.assertTrue(status.reason, kind)
        assert status.until is not None, kind
        # One planned try, and nothing else left of the connection that ended.
        self.assertEqual(len(self.world.clock.getDelayedCalls()), 1, kind)
        planned = status.until - self.world.clock.seconds()
        gap = self.world.until_next_attempt()
        self.assertTrue(0 <= gap - planned <= STEP_SECONDS, f"{kind}: planned {planned}, came after {gap}")
        return status, planned

    def assert_every_gap_is_3_to_5_seconds(self, rounds: int) -> None:
        """Interrupt in every way, in any order."""
        kinds = self.interruptions.kinds()
        random = Random(2)
        self.world.client.startService()
        gaps = [self.interrupt(kind)[1] for _ in range(rounds) for kind in random.sample(kinds, len(kinds))]
        self.assertGreater(len(gaps), 200)
        self.assertGreaterEqual(min(gaps), 3)
        self.assertLessEqual(max(gaps), 5)
        self.assertLess(min(gaps), 3.1)
        self.assertGreater(max(gaps), 4.9)
        self.successResultOf(self.world.client.stopService())
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def assert_each_kind_ends_alike_again_and_again(self) -> None:
        """See that a cause has the same words each time."""
        self.world.client.startService()
        for kind in self.interruptions.kinds():
            first, _ = self.interrupt(kind)
            for _ in range(3):
                again, _ = self.interrupt(kind)
                self.assertEqual((again.state, again.reason), (first.state, first.reason), kind)

    def assert_refusals(self) -> None:
        """See which kinds are told as refusals."""
        self.world.client.startService()
        kinds = self.interruptions.kinds()
        refused = {kind for kind in kinds if self.interrupt(kind)[0].state is WebSocketState.REFUSED}
        self.assertEqual(refused, REFUSALS)
