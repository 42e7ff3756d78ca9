"""One connection: the upgrade, messages and acks, and limits."""

from __future__ import annotations

import struct

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import StoreBusyError
from dapi.websocket.client import WebSocketState
from tests.unit.websocket.client_in_memory import ClientInMemory, Node, message, open_client
from tests.unit.websocket.links import Link, ScriptedServer


class MessageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world, self.link = open_client()
        self.node = self.link.server

    def _send(self, payload: bytes, is_binary: bool = False) -> None:
        self.node.sendMessage(payload, is_binary)
        self.link.flush()

    def test_the_ack_comes_after_the_storing_as_a_text_frame(self) -> None:
        self._send(message("a"))
        self.world.advance(2.9)
        self.assertEqual(self.node.received, [])
        self.world.recorder.store()
        self.link.flush()
        self.assertEqual(self.node.received, [(b'{"type":"ack","id":"a"}', False)])
        status = self.world.client.status()
        self.assertEqual((status.messages, status.acks, status.pending), (1, 1, 0))

    def test_an_ack_does_not_wait_for_another(self) -> None:
        """With Nagle's algorithm the second of two waits until the node's TCP confirms the first: up to 40 ms."""
        self.assertTrue(self.link.client_transport.is_without_delay)

    def test_acks_come_in_the_order_of_storing(self) -> None:
        for name in "abc":
            self._send(message(name))
        for index in (2, 0, 0):
            self.world.recorder.store(index)
        self.link.flush()
        self.assertEqual(self.node.acks, ["c", "a", "b"])

    def test_one_id_twice_with_other_content(self) -> None:
        """Each is stored under its own content id, and each has its ack."""
        self._send(message("a"))
        self._send(message("a", block_hash="b"))
        self.assertEqual(self.world.recorder.taken, ["a", "b"])
        for _ in range(2):
            self.world.recorder.store()
        self.link.flush()
        self.assertEqual(self.node.acks, ["a", "a"])

    def test_a_binary_frame_is_read_and_acknowledged_in_text(self) -> None:
        self._send(message("a"), is_binary=True)
        self.world.recorder.store()
        self.link.flush()
        self.assertEqual(self.node.received, [(b'{"type":"ack","id":"a"}', False)])

    def test_no_ack_when_it_was_not_stored(self) -> None:
        self._send(message("a"))
        self.world.recorder.fail(StoreBusyError("the disk is full"))
        self.link.flush()
        self.assertEqual(self.node.received, [])
        status = self.world.client.status()
        self.assertEqual((status.state, status.not_stored), (WebSocketState.OPEN, 1))
        self.assertEqual(status.last_problem, "the disk is full")

    def test_no_ack_on_another_connection(self) -> None:
        self._send(message("a"))
        self.link.drop(ConnectionLost())
        self.world.until_next_attempt()
        second = self.world.accept()
        self.world.recorder.store()
        second.flush()
        self.assertEqual((self.node.received, second.server.received), ([], []))
        self.assertEqual(self.world.client.status().acks, 0)

    def test_no_ack_after_the_close_began(self) -> None:
        self._send(message("a"))
        self.node.answers_closes = False
        self.world.client.stopService()
        self.world.recorder.store()
        self.link.flush()
        self.assertEqual(self.node.received, [])

    def test_a_bad_message_is_counted_and_the_connection_lives_on(self) -> None:
        self._send(b'{"type":"generated"}')
        self._send(b"\xff", is_binary=True)
        self._send(message("a"))
        self.world.recorder.store()
        self.link.flush()
        self.assertEqual(self.node.acks, ["a"])
        status = self.world.client.status()
        self.assertEqual((status.state, status.bad_messages), (WebSocketState.OPEN, 2))

    def test_non_ascii_text_is_fine(self) -> None:
        self._send(
            '{"type":"generated","note":"ä€😀",'.encode() + message("a")[1:].replace(b'"type": "generated",', b"")
        )
        self.assertEqual(self.world.recorder.taken, ["a"])

    def test_a_fragmented_message(self) -> None:
        self.node.sendMessage(message("a"), fragmentSize=10)
        self.link.flush()
        self.assertEqual(self.world.recorder.taken, ["a"])

    def test_a_message_in_the_same_chunk_as_the_upgrade(self) -> None:
        world = ClientInMemory()
        world.client.startService()

        class Eager(Node):
            def onOpen(self) -> None:
                self.sendMessage(message("early"))

        server = Eager()
        server.factory = world.factory
        world.accept(server)
        self.assertEqual(world.recorder.taken, ["early"])

    def test_the_nodes_pings_are_answered(self) -> None:
        self.node.sendPing(b"there?")
        self.link.flush()
        self.assertEqual(self.node.pongs, [b"there?"])


class LimitTests(SynchronousTestCase):
    def _ends_with(self, link: Link[Node], world: ClientInMemory, code: int, reason: str) -> None:
        self.assertEqual([code for code, _reason in link.server.closes], [code])
        self.assertIsNotNone(link.server.lost)
        status = world.client.status()
        self.assertEqual(status.state, WebSocketState.WAITING)
        self.assertEqual((status.reason, status.last_problem), (reason, reason))

    def test_too_large_is_closed_with_1009_and_our_reason_is_kept(self) -> None:
        world, link = open_client(max_message_bytes=1000)
        link.server.sendMessage(b"x" * 1001)
        link.flush()
        self._ends_with(link, world, 1009, "closed by us: 1009 a message above the limit of 1000 bytes")
        self.assertEqual(world.client.status().messages, 0)

    def test_refused_by_its_header_before_it_is_read(self) -> None:
        world, link = open_client(max_message_bytes=1000)
        link.server_transport.write(b"\x81\x7f" + struct.pack("!Q", 2**40))
        link.flush()
        self.assertEqual(link.server.closes[0][0], 1009)
        # The rest of it can never come, nor can an answer be found in it.
        world.advance(1.05)
        self.assertIsNotNone(link.server.lost)

    def test_too_large_in_fragments(self) -> None:
        world, link = open_client(max_message_bytes=1000)
        link.server.sendMessage(b"x" * 1100, fragmentSize=100)
        link.flush()
        self._ends_with(link, world, 1009, "closed by us: 1009 a message above the limit of 1000 bytes")

    def test_frames_without_end_are_closed_with_1008(self) -> None:
        for fragment in (b"\x01\x02{ ", b"\x01\x00"):
            world, link = open_client(max_frames=10)
            link.server_transport.write(fragment + b"".join(bytes([0, *fragment[1:]]) for _ in range(10)))
            link.flush()
            world.advance(1.05)
            self._ends_with(link, world, 1008, "closed by us: 1008 a message of more than 10 frames")

    def test_many_messages_of_many_frames(self) -> None:
        world, link = open_client(max_frames=10)
        for name in "abc":
            payload = message(name)
            link.server.sendMessage(payload, fragmentSize=-(-len(payload) // 10))
        link.flush()
        self.assertEqual(world.recorder.taken, list("abc"))

    def test_exactly_at_the_limit(self) -> None:
        payload = message("a")
        world, link = open_client(max_message_bytes=len(payload))
        link.server.sendMessage(payload)
        link.flush()
        self.assertEqual(world.recorder.taken, ["a"])

    def test_invalid_utf8_in_text_is_closed_with_1007(self) -> None:
        world, link = open_client()
        link.server.sendMessage(b'{"type":"\xff"}')
        link.flush()
        self._ends_with(link, world, 1007, "closed by us: 1007 a text message is no valid UTF-8")

    def test_nothing_is_taken_after_a_failed_message(self) -> None:
        world, link = open_client()
        link.server.sendMessage(b"\xff")
        link.server.sendMessage(message("a"))
        link.flush()
        self.assertEqual(world.recorder.taken, [])

    def test_a_violation_of_the_protocol_is_closed_with_1002(self) -> None:
        world, link = open_client()
        link.server_transport.write(b"\x83\x00")
        link.flush()
        self._ends_with(link, world, 1002, "closed by us: 1002 data frame using reserved opcode 3")


class JunkTests(SynchronousTestCase):
    """A server that is no node must not cost more than its connection."""

    def _answered(self, answer: bytes | None) -> tuple[ClientInMemory, Link[ScriptedServer]]:
        world = ClientInMemory()
        world.client.startService()
        return world, world.accept(ScriptedServer(answer))

    def test_an_answer_without_an_end_is_cut_off(self) -> None:
        world, link = self._answered(b"HTTP/1.1 101 x\r\n" + b"X-Header: y\r\n" * 8192)
        self.assertTrue(link.client_transport.is_aborted)
        self.assertEqual(world.client.status().state, WebSocketState.REFUSED)
        self.assertEqual(world.client.status().reason, "the node sends what is no WebSocket")

    def test_bytes_that_are_no_text(self) -> None:
        world, link = self._answered(b"\xff\xfe\x00\r\n\r\n")
        self.assertTrue(link.client_transport.is_aborted)
        self.assertEqual(world.client.status().reason, "no WebSocket answer to the upgrade: not even text")

    def test_a_wrong_accept_key(self) -> None:
        answer = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n"
        world, _link = self._answered(answer)
        self.assertEqual(
            world.client.status().reason,
            "no WebSocket answer to the upgrade: HTTP Sec-WebSocket-Accept bogus value",
        )

    def test_the_request_names_an_ipv6_host_as_http_wants_it(self) -> None:
        world = ClientInMemory(url="http://[::1]:8080/v3")
        world.client.startService()
        link = world.accept(ScriptedServer(None))
        self.assertIn(b"GET /v3/api/v1/pow/ws HTTP/1.1\r\n", link.server.request)
        self.assertIn(b"Host: [::1]:8080\r\n", link.server.request)
        self.assertNotIn(b"Sec-WebSocket-Extensions", link.server.request)

    def test_compression_is_offered_when_told_to(self) -> None:
        world = ClientInMemory(compression=True)
        world.client.startService()
        link = world.accept(ScriptedServer(None))
        self.assertIn(b"Sec-WebSocket-Extensions: permessage-deflate", link.server.request)

    def test_compression_that_was_not_offered_is_refused(self) -> None:
        world = ClientInMemory()
        world.client.startService()

        class Pushy(Node):
            def onConnect(self, request: object) -> tuple[None, dict[str, str]]:
                return None, {"Sec-WebSocket-Extensions": "permessage-deflate"}

        server = Pushy()
        server.factory = world.factory
        world.accept(server)
        self.assertEqual(world.client.status().state, WebSocketState.REFUSED)
