"""Whatever ends a connection or keeps one from coming, the next try comes 3 to 5 s later, for ever."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dapi.messages import Via
from dapi.poc.websocket_client import WebSocketState, WebSocketStatus
from tests.batches import generated_batch
from tests.unit.websocket_world import STEP_SECONDS, Link, ScriptedServer, World, message


@implementer(IHostResolution)
class _Resolution:
    name = "node"

    def cancel(self) -> None:
        """Nothing to cancel."""


@implementer(IHostnameResolver)
class NoSuchHost:
    """Finds no address for any name."""

    def resolveHostName(self, receiver: Any, *_args: Any, **_kwargs: Any) -> IHostResolution:
        resolution = _Resolution()
        receiver.resolutionBegan(resolution)
        receiver.resolutionComplete()
        return resolution


class Interruptions:
    """Each method lets one try, or the connection that comes of it, end in its own way."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.handed_over = 0

    def refused_tcp(self) -> None:
        self.world.refuse(error.ConnectionRefusedError())

    def tcp_timeout(self) -> None:
        self.world.refuse(error.TimeoutError())

    def tls_failure(self) -> None:
        self._answer(None).drop(TLSError([("SSL routines", "", "certificate verify failed")]))

    def tls_wrong_name(self) -> None:
        self._answer(None).drop(VerificationError([]))

    def upgrade_404(self) -> None:
        self._answer(b"HTTP/1.1 404 Not Found\r\n\r\n")

    def upgrade_403(self) -> None:
        self._answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    def upgrade_500(self) -> None:
        self._answer(b"HTTP/1.1 500 Internal Server Error\r\n\r\noops")

    def upgrade_junk(self) -> None:
        self._answer(b"\x00\xff\x00\xffjunk\r\n\r\n")

    def upgrade_silence(self) -> None:
        self._answer(None)
        self._until_ended(10.2)

    def upgrade_hung_up(self) -> None:
        self._answer(None).drop(ConnectionLost())

    def closed_1008(self) -> None:
        link = self.world.accept()
        link.server.close(1008, "Another client is already connected")
        link.flush()

    def closed_1012(self) -> None:
        link = self.world.accept()
        link.server.close(1012, "")
        link.flush()

    def reset(self) -> None:
        link = self.world.accept()
        self.world.advance(1)
        link.drop(ConnectionLost())

    def half_open(self) -> None:
        link = self.world.accept()
        link.server_transport.bufferReceived = lambda _data: None  # type: ignore[method-assign]
        self._until_ended(36.5)

    def idle(self) -> None:
        self.world.accept()
        self._until_ended(61)

    def bypassed(self) -> None:
        self.world.accept()
        # Replacements of this kind are 15 s apart at least.
        self.world.advance(15.1)
        self.handed_over += 1
        self.world.handler.handle_generated_batch(generated_batch(block_hash=f"b{self.handed_over}"), Via.HTTP)
        self._until_ended(1)

    def too_large(self) -> None:
        link = self.world.accept()
        link.server.sendMessage(b"x" * 2001)
        link.flush()

    def invalid_utf8(self) -> None:
        link = self.world.accept()
        link.server.sendMessage(b"\xff")
        link.flush()

    def violation(self) -> None:
        link = self.world.accept()
        link.server_transport.write(b"\xff\xff")
        link.flush()
        self._until_ended(1.2)

    def unread(self) -> None:
        link = self.world.accept()
        link.client_transport.producer.pauseProducing()
        self._until_ended(15.2)

    def after_a_batch(self) -> None:
        link = self.world.accept()
        link.server.sendMessage(message("a"))
        link.flush()
        self.world.recorder.store(-1)
        link.drop(ConnectionLost())

    def _answer(self, answer: bytes | None) -> Link:
        return self.world.accept(ScriptedServer(answer))

    def _until_ended(self, limit_seconds: float) -> None:
        end = self.world.clock.seconds() + limit_seconds
        while self.world.client.status().until is None:
            assert self.world.clock.seconds() < end, "it did not end"
            self.world.advance(STEP_SECONDS)


KINDS: Sequence[str] = [name for name in vars(Interruptions) if not name.startswith("_")]


class RetryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(seed=5, max_message_bytes=2000)
        self.interruptions = Interruptions(self.world)
        self.gaps: list[float] = []

    def _interrupt(self, kind: str) -> WebSocketStatus:
        """Let one try end, see that it is told, and measure the time to the next."""
        interrupt: Callable[[], None] = getattr(self.interruptions, kind)
        interrupt()
        status = self.world.client.status()
        self.assertIn(status.state, (WebSocketState.WAITING, WebSocketState.REFUSED), kind)
        self.assertTrue(status.reason, kind)
        assert status.until is not None, kind
        # One planned try, and nothing else left of the connection that ended.
        self.assertEqual(len(self.world.clock.getDelayedCalls()), 1, kind)
        planned = status.until - self.world.clock.seconds()
        gap = self.world.until_next_attempt()
        self.assertTrue(0 <= gap - planned <= STEP_SECONDS, f"{kind}: planned {planned}, came after {gap}")
        self.gaps.append(planned)
        return status

    def test_over_200_interruptions_of_all_kinds_every_gap_is_3_to_5_seconds(self) -> None:
        self.assertGreater(len(KINDS), 16)
        random = Random(2)
        rounds = 12
        self.world.client.startService()
        for _ in range(rounds):
            for kind in random.sample(KINDS, len(KINDS)):
                self._interrupt(kind)
        self.assertEqual(len(self.gaps), rounds * len(KINDS))
        self.assertGreater(len(self.gaps), 200)
        self.assertGreaterEqual(min(self.gaps), 3)
        self.assertLessEqual(max(self.gaps), 5)
        self.assertLess(min(self.gaps), 3.1)
        self.assertGreater(max(self.gaps), 4.9)
        self.successResultOf(self.world.client.stopService())
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_each_kind_again_and_again(self) -> None:
        self.world.client.startService()
        for kind in KINDS:
            first = self._interrupt(kind)
            for _ in range(3):
                again = self._interrupt(kind)
                self.assertEqual((again.state, again.reason), (first.state, first.reason), kind)

    def test_which_ones_are_refusals(self) -> None:
        self.world.client.startService()
        refusals = {kind for kind in KINDS if self._interrupt(kind).state is WebSocketState.REFUSED}
        self.assertEqual(
            refusals,
            {
                "upgrade_404",
                "upgrade_403",
                "upgrade_500",
                "upgrade_junk",
                "upgrade_silence",
                "upgrade_hung_up",
                "closed_1008",
            },
        )

    def test_a_connection_that_comes_at_last_works(self) -> None:
        self.world.client.startService()
        for kind in KINDS:
            self._interrupt(kind)
        link = self.world.accept()
        link.server.sendMessage(message("at-last"))
        link.flush()
        self.world.recorder.store(-1)
        link.flush()
        self.assertEqual(link.server.acks, ["at-last"])

    def test_the_delay_is_drawn_from_the_injected_random_source(self) -> None:
        for seed in (1, 2):
            world = World(seed=seed)
            world.client.startService()
            world.advance(1)
            world.refuse()
            until = world.client.status().until
            assert until is not None
            self.assertApproximates(until, 1 + Random(seed).uniform(3, 5), 1e-9)

    def test_other_bounds(self) -> None:
        world = World(retry_min_seconds=0.5, retry_max_seconds=0.5)
        world.client.startService()
        world.refuse()
        self.assertLessEqual(world.until_next_attempt(), 0.5)


class NoAddressTests(SynchronousTestCase):
    def test_a_name_that_cannot_be_resolved(self) -> None:
        world = World(url="http://node:8080")
        world.clock.installNameResolver(NoSuchHost())
        world.client.startService()
        for _ in range(5):
            status = world.client.status()
            self.assertEqual(status.state, WebSocketState.WAITING)
            self.assertIn("DNS: ", status.reason or "")
            assert status.until is not None
            self.assertTrue(3 <= status.until - world.clock.seconds() <= 5)
            world.clock.advance(status.until - world.clock.seconds())
        self.assertEqual(world.attempts, 0)
        world.client.stopService()
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_each_try_asks_for_the_address_again(self) -> None:
        world = World(url="http://node:8080")
        resolver = world.clock.installNameResolver(NoSuchHost())
        world.client.startService()
        world.clock.installNameResolver(resolver)
        world.advance(5.1)
        self.assertEqual(world.attempts, 1)
