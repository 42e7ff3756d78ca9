"""Queries about a host: docs/protocol/chain.md, 'Authz', 'Hardware nodes', 'Claims' and 'Queries'."""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.chain.queries import query
from dapi.simulator.chain.requests import QueryRefused
from dapi.simulator.chain.state import GroupMember, GroupNode, Model, SettleAmount
from dapi.simulator.chain.wire import any_field, bytes_field, message_field, packed_int64_field, varint_field
from tests.chain_tools import BATCH_URL, SECOND_NS, VALIDATION_URL, Key, batch, hardware_diff, hardware_node
from tests.unit.simulator.chain.chain_in_memory import ChainInMemory

INFERENCE, AUTHZ = "/inference.inference.Query/", "/cosmos.authz.v1beta1.Query/"


class QueryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = ChainInMemory()
        self.address = self.network.key.address
        self.warm = Key(2)
        self.network.add_account(self.warm, 2)

    def ask(self, path: str, *fields: bytes, height: int = 0) -> bytes:
        latest = self.network.chain.latest.height
        return query(self.network.state, path, b"".join(fields), height, latest)

    def refusal(self, path: str, *fields: bytes) -> tuple[str, int]:
        refused = self.assertRaises(QueryRefused, self.ask, path, *fields)
        return refused.codespace, refused.code

    def grant(self, type_url: str, expires_ns: int | None = None) -> None:
        self.network.state.grants[self.address, self.warm.address, type_url] = expires_ns


class GrantTests(QueryTestCase):
    def grantees(self, type_url: str) -> bytes:
        return self.ask(INFERENCE + "GranteesByMessageType", bytes_field(1, self.address), bytes_field(2, type_url))

    def test_grantees_of_a_message_type(self) -> None:
        self.assertEqual(self.grantees(BATCH_URL), b"")
        self.grant(BATCH_URL)
        grantee = bytes_field(1, self.warm.address)
        self.assertEqual(self.grantees(BATCH_URL), message_field(1, grantee))
        self.assertEqual(self.grantees(VALIDATION_URL), b"")
        raw = self.network.tx(batch(self.warm.address, node_id=""), key=self.warm, account_number=2)
        self.network.deliver(raw)
        key = bytes_field(2, base64.b64encode(self.warm.public))
        self.assertEqual(self.grantees(BATCH_URL), message_field(1, grantee + key))

    def test_an_expired_grant_is_left_out(self) -> None:
        self.grant(BATCH_URL, self.network.now_ns + 2 * SECOND_NS)
        self.assertNotEqual(self.grantees(BATCH_URL), b"")
        self.network.advance(14)
        self.assertEqual(self.grantees(BATCH_URL), b"")

    def test_nothing_asked_for(self) -> None:
        self.assertEqual(self.refusal(INFERENCE + "GranteesByMessageType", bytes_field(1, self.address)), ("sdk", 18))

    def test_grants_with_their_expiry(self) -> None:
        self.grant(BATCH_URL, 1_700_000_100 * SECOND_NS + 7)
        self.grant(VALIDATION_URL)
        who = (bytes_field(1, self.address), bytes_field(2, self.warm.address))
        generic = "/cosmos.authz.v1beta1.GenericAuthorization"
        expiry = varint_field(1, 1_700_000_100) + varint_field(2, 7)
        first = message_field(1, any_field(1, generic, bytes_field(1, BATCH_URL)) + message_field(2, expiry))
        second = message_field(1, any_field(1, generic, bytes_field(1, VALIDATION_URL)))
        self.assertEqual(self.ask(AUTHZ + "Grants", *who), first + second)
        self.assertEqual(self.ask(AUTHZ + "Grants", *who, bytes_field(3, VALIDATION_URL)), second)
        self.assertEqual(self.refusal(AUTHZ + "Grants", *who, bytes_field(3, "/other")), ("authz", 2))
        paged = message_field(2, varint_field(3, 100))
        answer = self.ask(AUTHZ + "GranterGrants", bytes_field(1, self.address), paged)
        names = bytes_field(1, self.address) + bytes_field(2, self.warm.address)
        authorization = any_field(3, generic, bytes_field(1, BATCH_URL))
        self.assertTrue(answer.startswith(message_field(1, names + authorization + message_field(4, expiry))))


class HostTests(QueryTestCase):
    def test_declared_nodes(self) -> None:
        asked = bytes_field(1, self.address)
        self.assertEqual(self.ask(INFERENCE + "HardwareNodes", asked), b"")
        nodes = [hardware_node("a"), hardware_node("b", status=2)]
        self.network.deliver(self.network.tx(hardware_diff(self.address, nodes[1], nodes[0])))
        expected = message_field(1, asked + b"".join(message_field(2, node) for node in nodes))
        self.assertEqual(self.ask(INFERENCE + "HardwareNodes", asked), expected)
        self.assertEqual(self.ask(INFERENCE + "HardwareNodes", asked, height=10), b"", "before that block")

    def test_models(self) -> None:
        self.network.state.models["a/model"] = Model("a/model", "a/repo", ("--quantization", "fp8"))
        arguments = bytes_field(10, "--quantization") + bytes_field(10, "fp8")
        model = bytes_field(2, "a/model") + bytes_field(8, "a/repo") + arguments
        simulated = message_field(1, bytes_field(2, "simulated"))
        self.assertEqual(self.ask(INFERENCE + "ModelsAll"), message_field(1, model) + simulated)

    def test_what_is_owed(self) -> None:
        asked = bytes_field(1, self.address)
        self.assertEqual(self.refusal(INFERENCE + "SettleAmount", asked), ("sdk", 22))
        self.network.state.settle_amounts[self.address] = SettleAmount(self.address, 500, 3, "ab")
        expected = asked + varint_field(2, 500) + varint_field(4, 3) + bytes_field(5, "ab")
        self.assertEqual(self.ask(INFERENCE + "SettleAmount", asked), message_field(1, expected))

    def test_the_version_of_ml_nodes(self) -> None:
        self.assertEqual(self.ask(INFERENCE + "MLNodeVersion"), message_field(1, bytes_field(1, "v3.0.8")))
        self.network.state.mlnode_version = "v3.0.9"
        self.assertEqual(self.ask(INFERENCE + "MLNodeVersion"), message_field(1, bytes_field(1, "v3.0.9")))

    def test_a_group_with_weights_and_the_snapshot_of_its_model(self) -> None:
        node = GroupNode("node1", (True, False), 7)
        self.network.state.epoch_groups[1, ""] = (GroupMember(self.address, (), 7, 7),)
        self.network.state.epoch_groups[1, "simulated"] = (GroupMember(self.address, (node,), 7, 7),)
        self.network.state.models["simulated"] = Model("simulated", "", ("--dtype", "half"))
        answer = self.ask(INFERENCE + "EpochGroupData", varint_field(1, 1), bytes_field(2, "simulated"))
        encoded_node = bytes_field(1, "node1") + varint_field(3, 7) + packed_int64_field(4, (1, 0))
        member = bytes_field(1, self.address) + varint_field(2, 7) + message_field(4, encoded_node) + varint_field(5, 7)
        snapshot = bytes_field(2, "simulated") + bytes_field(10, "--dtype") + bytes_field(10, "half")
        group = (
            message_field(8, member) + bytes_field(14, "simulated") + varint_field(16, 1) + message_field(17, snapshot)
        )
        self.assertEqual(answer, message_field(1, group))
        main = self.ask(INFERENCE + "EpochGroupData", varint_field(1, 1))
        self.assertIn(bytes_field(15, "simulated"), main)
