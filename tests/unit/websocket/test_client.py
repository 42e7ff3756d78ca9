"""A WebSocketClient's life: start, stop and restart."""

from __future__ import annotations

from random import Random

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from dapi.errors import ConfigError
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.websocket_client import WebSocketClient
from dapi.websocket.client import WebSocketState
from tests.unit.websocket.client_in_memory import ClientInMemory, PendingRecorder, message
from tests.unit.websocket.links import ScriptedServer


class MakingTests(SynchronousTestCase):
    def test_it_is_a_service_and_making_it_starts_nothing(self) -> None:
        world = ClientInMemory()
        verifyObject(IService, world.client)
        self.assertEqual((world.attempts, world.clock.getDelayedCalls()), (0, []))
        self.assertEqual(world.client.status().state, WebSocketState.STOPPED)

    def test_bad_settings_are_told_at_once(self) -> None:
        with self.assertRaises(ConfigError):
            ClientInMemory(url="http://no de")
        with self.assertRaises(ConfigError):
            ClientInMemory(url="wss://node", ca_file="/does/not/exist")

    def test_the_pocs_url_and_the_websockets_are_both_taken(self) -> None:
        for url in ("http://127.0.0.1:8080/v3", "ws://127.0.0.1:8080/v3/api/v1/pow/ws"):
            world = ClientInMemory(url=url)
            world.client.startService()
            link = world.accept(ScriptedServer(None))
            self.assertIn(b"GET /v3/api/v1/pow/ws HTTP", link.server.request)

    def test_two_clients_share_nothing(self) -> None:
        first, second = ClientInMemory(), ClientInMemory()
        first.open()
        self.assertEqual((second.attempts, second.client.status().state), (0, WebSocketState.STOPPED))

    def test_defaults(self) -> None:
        reactor = MemoryReactorClock()
        client = WebSocketClient(
            reactor, "node", BatchHandler("a", 1, PendingRecorder()), node_id="a", random=Random(1)
        )
        client.startService()
        self.assertEqual(reactor.tcpClients[0][1], 80)


class StartAndStopTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = ClientInMemory()
        self.client = self.world.client

    def _stopped_clean(self) -> None:
        stopped = self.client.stopService()
        self.world.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
        status = self.client.status()
        self.assertEqual((status.state, status.reason, status.until), (WebSocketState.STOPPED, None, None))
        attempts = self.world.attempts
        self.world.advance(20)
        self.assertEqual(self.world.attempts, attempts)

    def test_starting_connects_at_once_and_only_once(self) -> None:
        self.client.startService()
        self.client.startService()
        self.assertEqual(self.world.attempts, 1)
        self.assertEqual(self.client.status().state, WebSocketState.CONNECTING)

    def test_stop_when_stopped(self) -> None:
        self.successResultOf(self.client.stopService())
        self.successResultOf(self.client.stopService())

    def test_stop_while_tcp_connects(self) -> None:
        self.client.startService()
        self._stopped_clean()
        self.assertTrue(self.world.clock.connectors[0].stoppedConnecting)

    def test_stop_during_the_handshake(self) -> None:
        self.client.startService()
        link = self.world.accept(ScriptedServer(None))
        self._stopped_clean()
        self.assertTrue(link.server.is_lost)

    def test_stop_while_open_closes_with_1000(self) -> None:
        link = self.world.open()
        self._stopped_clean()
        self.assertEqual([code for code, _reason in link.server.closes], [1000])
        self.assertFalse(link.client_transport.is_aborted)

    def test_stop_while_it_waits_for_the_next_try(self) -> None:
        self.client.startService()
        self.world.refuse()
        self._stopped_clean()

    def test_stop_while_refused(self) -> None:
        self.client.startService()
        self.world.accept(ScriptedServer(b"HTTP/1.1 404 Not Found\r\n\r\n"))
        self.assertEqual(self.client.status().state, WebSocketState.REFUSED)
        self._stopped_clean()

    def test_stop_with_messages_pending(self) -> None:
        link = self.world.open()
        link.server.sendMessage(message("a"))
        link.flush()
        self._stopped_clean()
        self.world.recorder.store()
        self.assertEqual((link.server.received, self.client.status().acks), ([], 0))

    def test_stop_while_a_replacement_closes(self) -> None:
        link = self.world.open()
        link.server.answers_closes = False
        self.world.advance(60.2)
        stopped = self.client.stopService()
        self.world.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_stop_twice_at_once(self) -> None:
        link = self.world.open()
        first, second = self.client.stopService(), self.client.stopService()
        link.flush()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(len(link.server.closes), 1)

    def test_starting_again_settles_first(self) -> None:
        self.world.open()
        self.client.stopService()
        self.world.advance(0.1)
        self.client.startService()
        self.assertEqual(self.client.status().state, WebSocketState.WAITING)
        self.assertApproximates(self.world.until_next_attempt(), 0.9, 0.15)
        self.world.accept()
        self.assertEqual(self.client.status().state, WebSocketState.OPEN)

    def test_starting_while_it_still_closes(self) -> None:
        link = self.world.open()
        link.server.answers_closes = False
        stopped = self.client.stopService()
        self.client.startService()
        status = self.client.status()
        self.assertEqual((status.state, status.reason), (WebSocketState.WAITING, "started afresh"))
        self.world.advance(0.9)
        self.assertEqual(self.world.attempts, 1)
        self.world.advance(0.2)
        self.successResultOf(stopped)
        self.assertApproximates(self.world.until_next_attempt(), 0.9, 0.15)

    def test_in_a_multi_service(self) -> None:
        parent = MultiService()
        parent.startService()
        self.client.setServiceParent(parent)
        self.assertEqual(self.world.attempts, 1)
        self.successResultOf(parent.stopService())
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


class RestartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = ClientInMemory()
        self.client = self.world.client

    def _is_connected_once(self) -> None:
        open_links = [link for link in self.world.links if link.server.lost is None]
        self.assertLessEqual(len(open_links), 1)

    def test_starts_a_stopped_client_at_once(self) -> None:
        self.client.restart()
        self.assertEqual(self.world.attempts, 1)
        self.assertTrue(self.client.running)
        self.world.accept()
        self.successResultOf(self._stop())

    def _stop(self) -> Deferred[None]:
        stopped = self.client.stopService()
        self.world.advance(0.1)
        return stopped

    def test_closes_waits_until_closed_settles_then_connects(self) -> None:
        link = self.world.open()
        link.server.answers_closes = False
        self.client.restart()
        self.world.advance(0.9)
        self.assertEqual([code for code, _reason in link.server.closes], [1000])
        self.assertEqual((self.world.attempts, link.server.lost), (1, None))
        self.assertEqual(self.client.status().reason, "started afresh")
        # Not answered for a second, so aborted; then a second for the node to notice.
        self.world.advance(0.15)
        self.assertIsNotNone(link.server.lost)
        self.assertEqual(self.world.attempts, 1)
        self.assertApproximates(self.world.until_next_attempt(), 1.0, 0.15)
        self.world.accept()
        self.assertEqual(self.client.status().state, WebSocketState.OPEN)
        self._is_connected_once()

    def test_does_not_wait_for_the_next_try(self) -> None:
        self.client.startService()
        self.world.refuse()
        self.world.advance(2)
        self.client.restart()
        self.assertEqual(self.world.attempts, 2)
        self.world.advance(10)
        self.assertEqual(self.world.attempts, 2)

    def test_connect_now_is_for_one_that_waits(self) -> None:
        self.assertFalse(self.client.connect_now())
        self.client.startService()
        self.assertFalse(self.client.connect_now())
        self.world.refuse()
        self.world.advance(1)
        self.assertTrue(self.client.connect_now())
        self.assertEqual(self.world.attempts, 2)
        self.world.accept()
        self.assertFalse(self.client.connect_now())
        self.world.advance(10)
        self.assertEqual(self.world.attempts, 2)
        self.successResultOf(self._stop())
        self.assertFalse(self.client.connect_now())

    def test_gives_up_a_try_under_way(self) -> None:
        self.client.startService()
        self.client.restart()
        self.assertTrue(self.world.clock.connectors[0].stoppedConnecting)
        self.assertEqual(self.world.attempts, 2)

    def test_gives_up_a_handshake_under_way(self) -> None:
        self.client.startService()
        link = self.world.accept(ScriptedServer(None))
        self.client.restart()
        self.world.advance(0.1)
        self.assertTrue(link.server.is_lost)
        self.assertApproximates(self.world.until_next_attempt(), 0.9, 0.15)

    def test_several_at_once_are_one(self) -> None:
        link = self.world.open()
        for _ in range(5):
            self.client.restart()
        self.world.advance(0.5)
        self.client.restart()
        self.world.advance(10)
        self.assertEqual((self.world.attempts, len(link.server.closes)), (2, 1))

    def test_stop_while_it_settles(self) -> None:
        self.world.open()
        self.client.restart()
        self.world.advance(0.5)
        self.successResultOf(self.client.stopService())
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
        self.world.advance(10)
        self.assertEqual(self.world.attempts, 1)

    def test_the_last_wish_wins(self) -> None:
        for calls, attempts in (("rs", 1), ("sr", 2), ("rsr", 2), ("srs", 1), ("ssrr", 2)):
            world = ClientInMemory()
            link = world.open()
            link.server.answers_closes = False
            for call in calls:
                if call == "r":
                    world.client.restart()
                else:
                    world.client.stopService()
            world.advance(5)
            self.assertEqual((calls, world.attempts), (calls, attempts))
            expected = WebSocketState.STOPPED if calls.endswith("s") else WebSocketState.CONNECTING
            self.assertEqual((calls, world.client.status().state), (calls, expected))
            world.client.stopService()
            world.advance(2)
            self.assertEqual((calls, world.clock.getDelayedCalls()), (calls, []))

    def test_many_restarts_never_two_connections(self) -> None:
        random = Random(7)
        self.client.startService()
        for _ in range(200):
            if self.world.is_trying:
                self.world.accept()
            if random.random() < 0.5:
                self.client.restart()
            self.world.advance(random.uniform(0, 3))
            self._is_connected_once()
        self.assertGreater(self.world.attempts, 50)
        self.client.stopService()
        self.world.advance(2)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
