"""Autobahn is set as this package needs it, and no connection has more in memory than it needs."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory
from autobahn.websocket.compress import PerMessageDeflateOffer
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.poc.websocket_settings import WebSocketSettings
from dapi.websocket.factory import WatchedConnectionFactory
from dapi.websocket.options import ConnectionOptions
from dapi.websocket.protocol import WatchedConnection
from tests.unit.websocket.client_in_memory import open_client

OPTIONS = (*WatchedConnection.CONFIG_ATTRS_COMMON, *WatchedConnection.CONFIG_ATTRS_CLIENT)


class Connection(ConnectionOptions):
    """Has options alone."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._settings = WebSocketSettings(**settings)


class OptionTests(SynchronousTestCase):
    def test_no_timer_of_autobahns_own(self) -> None:
        """They floor to whole seconds, and run on the process's reactor instead of the one that was given."""
        for name in (
            "openHandshakeTimeout",
            "closeHandshakeTimeout",
            "serverConnectionDropTimeout",
            "autoPingInterval",
            "autoPingTimeout",
        ):
            self.assertEqual(getattr(Connection(), name), 0, name)

    def test_a_failed_message_is_answered_with_its_code(self) -> None:
        self.assertFalse(Connection().failByDrop)

    def test_limits(self) -> None:
        connection = Connection(max_message_bytes=1234)
        self.assertEqual((connection.maxFramePayloadSize, connection.maxMessagePayloadSize), (1234, 1234))

    def test_no_compression_by_default(self) -> None:
        connection = Connection()
        self.assertEqual(connection.perMessageCompressionOffers, [])
        self.assertIsNone(connection.perMessageCompressionAccept(object()))

    def test_compression(self) -> None:
        connection = Connection(compression=True)
        [offer] = connection.perMessageCompressionOffers
        self.assertIsInstance(offer, PerMessageDeflateOffer)
        self.assertIsNone(connection.perMessageCompressionAccept(object()))

    def test_the_other_options_are_as_autobahn_has_them(self) -> None:
        ours = {
            "utf8validateIncoming",
            "failByDrop",
            "maxFramePayloadSize",
            "maxMessagePayloadSize",
            "openHandshakeTimeout",
            "closeHandshakeTimeout",
            "serverConnectionDropTimeout",
            "perMessageCompressionAccept",
        }
        connection, factory = Connection(), WebSocketClientFactory()
        for name in OPTIONS:
            if name not in ours:
                self.assertEqual(getattr(connection, name), getattr(factory, name), name)


class MemoryTests(SynchronousTestCase):
    def test_an_open_connection_has_no_copies_of_options_and_nothing_of_its_handshake(self) -> None:
        client, _link = open_client()
        connection = client.client._connection
        assert connection is not None
        own = vars(connection)
        self.assertEqual([name for name in OPTIONS if name in own], [])
        # A dictionary of more takes twice the memory.
        self.assertLess(len(own), 85)
        large = {name: value for name, value in own.items() if isinstance(value, bytes | str) and len(value) > 60}
        self.assertEqual(large, {})
        self.assertFalse(own["http_headers"] or own["send_queue"])

    def test_clients_share_a_factory(self) -> None:
        factory = WatchedConnectionFactory(Clock())
        made: list[Any] = []

        def make() -> Any:
            made.append(Connection())
            return made[-1]

        clients = [factory.of_client(make) for _ in range(2)]
        connections: list[Any] = [client.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)) for client in clients]
        self.assertEqual(connections, made)
        self.assertIs(connections[0].factory, connections[1].factory)
