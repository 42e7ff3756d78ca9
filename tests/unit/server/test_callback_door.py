"""Who may call the callbacks, and what is said of those who may not."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from dapi.broker.nodes import Node
from dapi.errors import ForbiddenError, NotReadyError, UnknownNodeError
from dapi.http.answers import HttpError
from dapi.http.site import JsonSite
from tests.doors import Nodes, make_door, started_tokens
from tests.logs import log_of
from tests.nodes import node_config

PLAIN = b"/v1/poc-batches/generated"


class DoorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = log_of(self)
        self.tokens = started_tokens(self.mktemp())
        self.nodes = Nodes(Node(node_config("a"), 1), Node(node_config("b"), 2, token_num=5, old_token_num=3))
        self.door = make_door(self.clock, self.nodes, self.tokens, takes_plain=False)

    def path(self, node_num: int, token_num: int, kind: str = "generated") -> bytes:
        return f"/v1/poc-batches/{self.tokens.token(node_num, token_num)}/{kind}".encode()

    def refuse(self, path: bytes, address: str = "10.0.0.9") -> None:
        with self.assertRaises(ForbiddenError):
            self.door.admit(path, address)

    def test_a_right_token_names_its_node(self) -> None:
        for node_num, token_num in ((1, 1), (2, 5), (2, 3)):
            self.assertEqual(self.door.caller(self.tokens.token(node_num, token_num)), node_num)
            for kind in ("generated", "validated", "generated/", "generated?x=y"):
                self.door.admit(self.path(node_num, token_num, kind), "10.0.0.1")
                self.door.admit(b"/mlnode" + self.path(node_num, token_num, kind), "10.0.0.1")

    def test_a_token_that_the_node_has_no_more(self) -> None:
        for node_num, token_num in ((1, 2), (2, 1), (2, 4), (2, 6)):
            self.refuse(self.path(node_num, token_num))

    def test_a_token_of_another_secret(self) -> None:
        self.tokens = started_tokens(self.mktemp())
        self.refuse(self.path(1, 1))

    def test_a_removed_node_is_told_that_it_is_unknown_once_it_proves_itself(self) -> None:
        with self.assertRaises(UnknownNodeError):
            self.door.admit(self.path(3, 1), "10.0.0.1")
        self.refuse(b"/v1/poc-batches/cb-3-1-" + b"A" * 43 + b"/generated")

    def test_while_the_nodes_are_not_loaded(self) -> None:
        self.nodes.by_num = None
        for path in (self.path(1, 1), PLAIN):
            with self.assertRaises(NotReadyError):
                self.door.admit(path, "10.0.0.1")
        self.refuse(b"/v1/poc-batches/x/generated")
        self.assertEqual(self.door.status()["unproven"], "refused")

    def test_paths_without_a_token(self) -> None:
        self.refuse(PLAIN)
        self.assertEqual(self.door.status()["unproven"], "refused")
        # As nodes are found in a database of an earlier version.
        self.nodes.by_num = {1: Node(node_config("a"), 1, old_token_num=0), 2: Node(node_config("b"), 2)}
        self.door.admit(PLAIN, "10.0.0.1")
        self.door.admit(self.path(1, 1), "10.0.0.1")
        self.assertIsNone(self.door.caller(None))
        self.door.check_unproven(1)
        with self.assertRaises(ForbiddenError):
            self.door.check_unproven(2)
        self.assertEqual(self.door.status()["unproven"], "until the next stage")

    def test_whoever_comes_where_tokens_are_optional(self) -> None:
        self.door = make_door(self.clock, self.nodes, self.tokens, takes_plain=True)
        self.door.admit(PLAIN, "10.0.0.1")
        self.door.check_unproven(1)
        self.assertEqual(self.door.caller(self.tokens.token(1, 1)), 1)
        self.refuse(b"/v1/poc-batches/x/generated")
        self.assertEqual(self.door.status()["unproven"], "taken")

    def test_other_paths(self) -> None:
        for path in (b"/", b"*", b"/v1/poc-batches", b"/v1/poc-batches/x", b"/v1/poc-batches/a/b/generated", b"\xff"):
            with self.assertRaises(HttpError) as raised:
                self.door.admit(path, "10.0.0.1")
            self.assertEqual(raised.exception.code, 404)
        with self.assertRaises(HttpError) as raised:
            self.door.admit(self.path(1, 1) + b"x", "10.0.0.1")
        self.assertEqual(str(raised.exception), "there is nothing at /v1/poc-batches/(hidden)/generatedx")

    def test_refusals_are_counted_by_address_up_to_a_bound(self) -> None:
        for number in range(200):
            for _ in range(2):
                self.refuse(PLAIN, f"10.0.0.{number}")
        refused = self.door.status()["refused_by_address"]
        self.assertEqual(len(refused), 65)
        self.assertEqual((refused["10.0.0.0"], refused["10.0.0.63"], refused["others"]), (2, 2, 272))
        self.assertTrue(self.door.status()["refused_lately"])
        self.clock.advance(60)
        self.assertFalse(self.door.status()["refused_lately"])

    def test_a_refusal_is_logged_once_a_minute_without_the_token(self) -> None:
        for _ in range(3):
            self.refuse(self.path(1, 7))
        self.assertEqual(
            self.log.warnings("was refused"),
            [
                "a callback from 10.0.0.9 was refused (1 so far): the path has no right callback token: a node is told "
                "its own with its init"
            ],
        )
        self.clock.advance(60)
        self.refuse(self.path(1, 7))
        self.assertIn("(4 so far)", self.log.warnings("was refused")[1])
        self.assertFalse(self.log.lines(containing="cb-"))

    def test_the_body_of_a_refused_request_is_not_read(self) -> None:
        site = JsonSite(self.clock, Resource(), admit=self.door.admit)
        peer = IPv4Address("TCP", "10.0.0.9", 40000)
        transport = StringTransport(peerAddress=peer)
        channel: Any = site.buildProtocol(peer)
        channel.makeConnection(transport)
        channel.dataReceived(b"POST %s HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" % PLAIN + b"x" * 1000)
        head, _, body = transport.value().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 403 "))
        self.assertIn("no right callback token", json.loads(body)["error"])
        self.assertEqual((site.buffered_bytes, site.counts.answers), (0, {403: 1}))
        self.assertEqual(self.door.status()["refused_by_address"], {"10.0.0.9": 1})
        channel.connectionLost(None)
