"""A node of the chain is subscribed to, its blocks are told, and whatever ends that is followed by another try."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.block_events import events_address
from dapi.chain.rpc_answers import BlockInfo
from dapi.errors import ConfigError
from dapi.websocket.client import WebSocketState
from tests.logs import log_of
from tests.unit.chain.events_in_memory import ChainPeer, EventsInMemory, new_block
from tests.unit.websocket.interruptions import MAX_MESSAGE_BYTES, Interruptions, RetryTestCase
from tests.unit.websocket.links import ScriptedServer

TWO = ("http://127.0.0.1:8080", "http://127.0.0.1:8081")


class AddressTests(SynchronousTestCase):
    def test_from_the_rpc_url(self) -> None:
        for url, expected in {
            "http://node:26657": "ws://node:26657/websocket",
            "http://node:26657/": "ws://node:26657/websocket",
            "tcp://10.0.0.1:26657": "ws://10.0.0.1:26657/websocket",
            "https://node": "wss://node:443/websocket",
            "http://[::1]:26657/rpc/": "ws://[::1]:26657/rpc/websocket",
        }.items():
            address = events_address(url)
            self.assertEqual(f"{address}{address.resource}", expected)
            self.assertEqual(address.is_secure, url.startswith("https"))

    def test_path_and_query_are_kept_and_not_shown(self) -> None:
        address = events_address("https://node/secret/rpc?key=secret")
        self.assertEqual(address.resource, "/secret/rpc/websocket?key=secret")
        self.assertNotIn("secret", str(address))

    def test_bad(self) -> None:
        for url in ("ws://node:26657", "ftp://node", "http://user:hunter2@node", "http://node:0", "http://no_de"):
            with self.assertRaises(ConfigError, msg=url) as caught:
                events_address(url)
            self.assertIn("chain URL", str(caught.exception))
            self.assertNotIn("hunter2", str(caught.exception))


class SubscriptionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.in_memory = EventsInMemory()
        self.link = self.in_memory.open()
        self.node: ChainPeer = self.link.server

    def _send(self, message: dict[str, Any]) -> None:
        self.node.sendMessage(json.dumps(message).encode())
        self.link.flush()

    def test_asks_for_new_blocks_in_a_text_frame(self) -> None:
        request = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"query": "tm.event='NewBlock'"}}
        self.assertEqual(self.node.requests, [request])
        self.assertEqual([is_binary for _payload, is_binary in self.node.received], [False])
        self.assertTrue(self.node.http_request_path.endswith("/websocket"))
        self.assertEqual(self.in_memory.blocks, [])

    def test_tells_each_block_once(self) -> None:
        for height in (7, 8):
            self.node.announce(height)
        self.link.flush()
        expected = [BlockInfo("chain", height, height * 10**9, f"B{height}") for height in (7, 8)]
        self.assertEqual(self.in_memory.blocks, expected)

    def test_a_large_block(self) -> None:
        txs = {"tx_results": [{"log": "x" * 2**20}] * 8}
        self.node.announce(7, result_finalize_block=txs)
        self.link.flush()
        self.assertEqual(self.in_memory.heights, [7])

    def test_an_error_ends_the_connection_and_the_next_one_subscribes_anew(self) -> None:
        self.node.announce(7)
        self.node.cancel()
        self.node.announce(8)
        self.link.flush()
        status = self.in_memory.events.connection_status()
        self.assertEqual(status.state, WebSocketState.WAITING)
        self.assertIn("ended the subscription: subscription was canceled", str(status.reason))
        self.assertEqual(self.in_memory.heights, [7])
        self.assertTrue(3 <= self.in_memory.until_next_attempt() <= 5 + 0.0625)
        second = self.in_memory.accept()
        self.assertEqual(len(second.server.requests), 1)
        second.server.announce(9)
        second.flush()
        self.assertEqual(self.in_memory.heights, [7, 9])

    def test_what_is_no_event_ends_the_connection(self) -> None:
        for message, reason in {
            b"no json": "the node sent an event that cannot be read: JSON is malformed",
            b'{"result":{"data":{"value":{}}}}': "the node sent an event that cannot be read: Object missing",
            b'{"result":{"data":{"value":1}}}': "the node sent an event that cannot be read: Expected `object",
            b'{"id":1}': "the node sent an event with neither result nor error",
        }.items():
            in_memory = EventsInMemory()
            link = in_memory.open()
            link.server.sendMessage(message)
            link.flush()
            self.assertIn(reason, str(in_memory.events.connection_status().reason))

    def test_other_events_are_left_alone(self) -> None:
        self._send({"jsonrpc": "2.0", "id": 1, "result": {"query": "q", "data": {"type": "other"}}})
        self.assertEqual(self.in_memory.events.connection_status().state, WebSocketState.OPEN)
        self.assertEqual(self.in_memory.blocks, [])

    def test_is_open_from_the_upgrade_to_the_close(self) -> None:
        self.assertEqual(self.in_memory.events.opened_at, 0)
        self.node.answers_closes = False
        stopped = self.in_memory.events.stopService()
        self.assertIsNone(self.in_memory.events.opened_at)
        self.in_memory.advance(1.05)
        self.successResultOf(stopped)
        self.assertEqual(self.in_memory.clock.getDelayedCalls(), [])

    def test_nothing_is_told_once_it_is_stopping(self) -> None:
        self.node.answers_closes = False
        self.in_memory.events.stopService()
        self._send({"jsonrpc": "2.0", "id": 1, "result": new_block(7)})
        self.assertEqual(self.in_memory.blocks, [])
        self.in_memory.advance(1.05)


class ChainInterruptions(Interruptions):
    """What only the chain's node does."""

    def refused_subscription(self) -> None:
        link = self._world.accept()
        link.server.confirms = False
        link.server.answer(
            error={"code": -32603, "message": "Internal error", "data": "max_subscriptions_per_client 5"}
        )
        link.flush()

    def canceled_subscription(self) -> None:
        link = self._world.accept()
        link.server.announce(7)
        link.server.cancel()
        link.flush()

    def unreadable(self) -> None:
        link = self._world.accept()
        link.server.sendMessage(b"{}")
        link.flush()

    def after_a_block(self) -> None:
        link = self._world.accept()
        link.server.announce(7)
        link.flush()
        link.drop(ConnectionLost())

    def replaced(self) -> None:
        self._world.accept()
        self._world.client.replace("replaced: silent")
        self._until_ended(1)


class EventsRetryTests(RetryTestCase):
    """As with the ML nodes: whatever happens, the next try comes 3 to 5 s later, for ever."""

    def setUp(self) -> None:
        self.world = EventsInMemory(seed=5, max_message_bytes=MAX_MESSAGE_BYTES)
        self.interruptions = ChainInterruptions(self.world)

    def test_over_200_interruptions_of_all_kinds_every_gap_is_3_to_5_seconds(self) -> None:
        self.assert_every_gap_is_3_to_5_seconds(rounds=10)

    def test_each_kind_again_and_again(self) -> None:
        self.assert_each_kind_ends_alike_again_and_again()

    def test_which_ones_are_refusals(self) -> None:
        self.assert_refusals()


class SeveralNodesTests(SynchronousTestCase):
    """The first that brings blocks is followed."""

    def setUp(self) -> None:
        self.in_memory = EventsInMemory(*TWO)
        self.in_memory.client.startService()

    def _port(self) -> int:
        return self.in_memory.clock.tcpClients[-1][1]

    def _next_port(self) -> int:
        self.in_memory.until_next_attempt()
        return self._port()

    def test_one_that_cannot_be_reached(self) -> None:
        ports = [self._port()]
        for _ in range(3):
            self.in_memory.refuse()
            ports.append(self._next_port())
        self.assertEqual(ports, [8080, 8081, 8080, 8081])

    def test_one_that_refuses_the_upgrade(self) -> None:
        self.in_memory.accept(ScriptedServer(b"HTTP/1.1 404 Not Found\r\n\r\n"))
        self.assertEqual(self._next_port(), 8081)
        link = self.in_memory.accept()
        self.assertEqual(link.server.http_headers["host"], "127.0.0.1:8081")

    def test_one_that_confirms_and_is_lost_before_a_block(self) -> None:
        self.in_memory.accept().drop(ConnectionLost())
        self.assertEqual(self._next_port(), 8081)

    def test_back_to_the_first_after_one_that_worked(self) -> None:
        self.in_memory.refuse()
        self.assertEqual(self._next_port(), 8081)
        link = self.in_memory.accept()
        link.server.announce(7)
        link.flush()
        link.drop(ConnectionLost())
        self.assertEqual(self._next_port(), 8080)

    def test_the_same_again_when_the_first_worked(self) -> None:
        link = self.in_memory.accept()
        link.server.announce(7)
        link.flush()
        link.drop(ConnectionLost())
        self.assertEqual(self._next_port(), 8080)
        self.in_memory.refuse()
        self.assertEqual(self._next_port(), 8081)

    def test_a_silent_one_is_left_for_the_next(self) -> None:
        link = self.in_memory.accept()
        link.server.announce(7)
        link.flush()
        self.in_memory.events.replace("replaced: silent")
        self.assertEqual(self._next_port(), 8081)

    def test_nothing_to_replace(self) -> None:
        self.in_memory.events.replace("replaced: silent")
        self.assertEqual(self.in_memory.events.connection_status().state, WebSocketState.CONNECTING)


class LogTests(SynchronousTestCase):
    def test_a_cause_is_told_once_for_each_node(self) -> None:
        log = log_of(self)
        in_memory = EventsInMemory(*TWO)
        in_memory.client.startService()
        for _ in range(3):
            in_memory.refuse()
            in_memory.until_next_attempt()
            in_memory.accept(ScriptedServer(b"HTTP/1.1 404 Not Found\r\n\r\n"))
            in_memory.until_next_attempt()
        link = in_memory.accept()
        link.server.announce(7)
        link.flush()
        told = log.lines()
        self.assertEqual(len(told), 3, told)
        self.assertIn("chain: no WebSocket to ws://127.0.0.1:8080: TCP: ", told[0])
        self.assertIn("chain: no WebSocket to ws://127.0.0.1:8081: 404", told[1])
        self.assertEqual(told[2], "chain: WebSocket to ws://127.0.0.1:8080 is open")
