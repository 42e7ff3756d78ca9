"""Autobahn is set as this package needs it."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.poc.websocket_settings import WebSocketSettings
from dapi.websocket.factory import WatchedConnectionFactory
from dapi.websocket.protocol import WatchedConnection


class FactoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        settings = WebSocketSettings(max_message_bytes=1234)
        self.factory = WatchedConnectionFactory(Clock(), settings, self._no_connection)

    def _no_connection(self) -> WatchedConnection:
        raise AssertionError("nobody connects here")

    def test_no_timer_of_autobahns_own(self) -> None:
        """They floor to whole seconds, and run on the process's reactor instead of the one that was given."""
        for name in (
            "openHandshakeTimeout",
            "closeHandshakeTimeout",
            "serverConnectionDropTimeout",
            "autoPingInterval",
            "autoPingTimeout",
        ):
            self.assertEqual(getattr(self.factory, name), 0, name)

    def test_a_failed_message_is_answered_with_its_code(self) -> None:
        self.assertFalse(self.factory.failByDrop)

    def test_limits(self) -> None:
        self.assertEqual((self.factory.maxFramePayloadSize, self.factory.maxMessagePayloadSize), (1234, 1234))

    def test_starting_and_stopping_a_factory_is_not_worth_a_line(self) -> None:
        self.assertFalse(self.factory.noisy)

    def test_no_compression_by_default(self) -> None:
        self.assertEqual(self.factory.perMessageCompressionOffers, [])
        self.assertIsNone(self.factory.perMessageCompressionAccept(object()))
