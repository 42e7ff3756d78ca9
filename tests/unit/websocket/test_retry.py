"""Whatever ends a connection or keeps one from coming, the next try comes 3 to 5 s later, for ever."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dapi.messages import Via
from dapi.websocket.client import WebSocketState
from tests.batches import generated_batch
from tests.unit.websocket.client_in_memory import ClientInMemory, message
from tests.unit.websocket.interruptions import MAX_MESSAGE_BYTES, Interruptions, RetryTestCase


@implementer(IHostResolution)
class _Resolution:
    name = "node"

    def cancel(self) -> None:
        """Nothing to cancel."""


@implementer(IHostnameResolver)
class NoSuchHost:
    """Finds no address for any name."""

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = _Resolution()
        resolutionReceiver.resolutionBegan(resolution)
        resolutionReceiver.resolutionComplete()
        return resolution


class NodeInterruptions(Interruptions):
    """What only an ML node's connection ends by."""

    _world: ClientInMemory

    def __init__(self, world: ClientInMemory) -> None:
        super().__init__(world)
        self._handed_over = 0

    def idle(self) -> None:
        self._world.accept()
        self._until_ended(61)

    def bypassed(self) -> None:
        self._world.accept()
        # Replacements of this kind are 15 s apart at least.
        self._world.advance(15.1)
        self._handed_over += 1
        self._world.handler.handle_generated_batch(generated_batch(block_hash=f"b{self._handed_over}"), Via.HTTP)
        self._until_ended(1)

    def after_a_batch(self) -> None:
        link = self._world.accept()
        link.server.sendMessage(message("a"))
        link.flush()
        self._world.recorder.store(-1)
        link.drop(ConnectionLost())


class RetryTests(RetryTestCase):
    world: ClientInMemory

    def setUp(self) -> None:
        self.world = ClientInMemory(seed=5, max_message_bytes=MAX_MESSAGE_BYTES)
        self.interruptions = NodeInterruptions(self.world)

    def test_over_200_interruptions_of_all_kinds_every_gap_is_3_to_5_seconds(self) -> None:
        self.assert_every_gap_is_3_to_5_seconds(rounds=12)

    def test_each_kind_again_and_again(self) -> None:
        self.assert_each_kind_ends_alike_again_and_again()

    def test_which_ones_are_refusals(self) -> None:
        self.assert_refusals()

    def test_a_connection_that_comes_at_last_works(self) -> None:
        self.world.client.startService()
        for kind in self.interruptions.kinds():
            self.interrupt(kind)
        link = self.world.accept()
        link.server.sendMessage(message("at-last"))
        link.flush()
        self.world.recorder.store(-1)
        link.flush()
        self.assertEqual(link.server.acks, ["at-last"])

    def test_the_delay_is_drawn_from_the_injected_random_source(self) -> None:
        for seed in (1, 2):
            world = ClientInMemory(seed=seed)
            world.client.startService()
            world.advance(1)
            world.refuse()
            until = world.client.status().until
            assert until is not None
            self.assertApproximates(until, 1 + Random(seed).uniform(3, 5), 1e-9)

    def test_other_bounds(self) -> None:
        world = ClientInMemory(retry_min_seconds=0.5, retry_max_seconds=0.5)
        world.client.startService()
        world.refuse()
        self.assertLessEqual(world.until_next_attempt(), 0.5)


class NoAddressTests(SynchronousTestCase):
    def test_a_name_that_cannot_be_resolved(self) -> None:
        world = ClientInMemory(url="http://node:8080")
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
        world = ClientInMemory(url="http://node:8080")
        resolver = world.clock.installNameResolver(NoSuchHost())
        world.client.startService()
        world.clock.installNameResolver(resolver)
        world.advance(5.1)
        self.assertEqual(world.attempts, 1)
