"""What a participant asks about itself, against the simulated chain's own encoding of the answers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.messages import host_pb2
from dapi.phases.host_queries import (
    MemberWeight,
    Owed,
    hardware_nodes,
    known_models,
    member_weight,
    mlnode_version,
    owed_rewards,
)
from dapi.simulator.chain.messages import Hardware, HardwareNode
from dapi.simulator.chain.state import GroupMember, GroupNode, Model, SettleAmount
from dapi.simulator.chain.wire import bytes_field, message_field, varint_field
from tests.chain_tools import Key
from tests.unit.phases.test_stage_queries import BUSY, FREE, LATEST, SimulatedRpc

ONE, TWO = Key(1), Key(2)


class HostQueryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rpc = SimulatedRpc()

    def ask(self, question: Any, *arguments: object) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(question(self.rpc, *arguments, LATEST)))

    def test_hardware_nodes(self) -> None:
        self.assertEqual(self.ask(hardware_nodes, ONE.address), {})
        declared = HardwareNode("n", 1, ("a", "b"), (Hardware("H100", 8),), "host", "8080")
        self.rpc.state.hardware_nodes[ONE.address, "n"] = declared
        self.rpc.state.hardware_nodes[TWO.address, "m"] = HardwareNode("m")
        (node,) = self.ask(hardware_nodes, ONE.address).values()
        self.assertEqual((node.local_id, list(node.models), node.hardware[0].count), ("n", ["a", "b"], 8))

    def test_known_models(self) -> None:
        self.rpc.state.models.update({name: Model(name) for name in ("a", "b")})
        self.assertEqual(self.ask(known_models), {"a", "b"})
        # The request has no field.
        self.assertEqual(self.rpc.requests, [b""])

    def test_what_is_owed(self) -> None:
        self.assertIsNone(self.ask(owed_rewards, ONE.address))
        self.rpc.state.settle_amounts[ONE.address] = SettleAmount(ONE.address, 7, 3, "ab")
        self.assertEqual(self.ask(owed_rewards, ONE.address), Owed(3, 7, "ab"))
        self.assertIsNone(self.ask(owed_rewards, TWO.address))

    def test_owed_is_for_work_too(self) -> None:
        answer = host_pb2.QuerySettleAmountResponse()
        amount = answer.settle_amount
        amount.reward_coins, amount.work_coins, amount.epoch_index, amount.seed_signature = 7, 4, 3, "ab"
        self.rpc.value = answer.SerializeToString()
        self.assertEqual(self.ask(owed_rewards, ONE.address), Owed(3, 11, "ab"))
        amount.reward_coins = amount.work_coins = 0
        self.rpc.value = answer.SerializeToString()
        self.assertIsNone(self.ask(owed_rewards, ONE.address))

    def test_weight(self) -> None:
        groups = self.rpc.state.epoch_groups
        groups[2, ""] = (GroupMember(TWO.address, (), 5, 5), GroupMember(ONE.address, (), 30, 8))
        mine = GroupMember(ONE.address, (GroupNode("n", FREE, 10), GroupNode("m", BUSY, 20)), 30, 30)
        groups[2, "a"] = (mine, GroupMember(TWO.address, (GroupNode("other", BUSY, 5),), 5, 5))
        # What confirmations left of the free node, and the one that stays in inference.
        self.assertEqual(self.ask(member_weight, 2, ONE.address), MemberWeight(30, 28, {"n": 10, "m": 20}))
        self.assertIsNone(self.ask(member_weight, 2, Key(3).address))
        # A node for which the chain has written down fewer slots.
        groups[2, "b"] = (GroupMember(ONE.address, (GroupNode("k", (True,), 3), GroupNode("l", (), 2)), 5, 5),)
        self.assertEqual(
            self.ask(member_weight, 2, ONE.address), MemberWeight(30, 28, {"n": 10, "m": 20, "k": 3, "l": 2})
        )
        self.assertIsNone(self.ask(member_weight, 9, ONE.address))

    def test_weight_of_a_node_whose_id_is_no_text(self) -> None:
        node = message_field(4, bytes_field(1, b"\xff") + varint_field(3, 7))
        member = message_field(8, bytes_field(1, ONE.address) + varint_field(2, 9) + node)
        # The answer for the main group, and for the one of the model that it names.
        self.rpc.value = message_field(1, member + bytes_field(15, "model"))
        self.assertEqual(self.ask(member_weight, 2, ONE.address), MemberWeight(9, 0, {"\ufffd": 7}))

    def test_version(self) -> None:
        self.assertEqual(self.ask(mlnode_version), "v3.0.8")
        for code in (6, 22):
            self.rpc.refusal = ChainRefusedError(code, "sdk", "unknown query path")
            self.assertEqual(self.ask(mlnode_version), "")

    def test_all_questions_of_a_decision_are_about_one_height(self) -> None:
        self.test_weight()
        for about_one in (hardware_nodes, owed_rewards):
            self.ask(about_one, ONE.address)
        for about_all in (known_models, mlnode_version):
            self.ask(about_all)
        self.assertEqual(set(self.rpc.heights), {LATEST})

    def test_a_chain_that_cannot_be_asked_for_models(self) -> None:
        self.rpc.refusal = ChainRefusedError(6, "sdk", "unknown query path")
        self.assertIsNone(self.ask(known_models))

    def test_codes_of_other_modules_mean_something_else(self) -> None:
        questions: tuple[tuple[Any, ...], ...] = (
            (6, known_models),
            (6, mlnode_version),
            (22, mlnode_version),
            (22, owed_rewards, ONE.address),
            (22, member_weight, 1, ONE.address),
        )
        for code, question, *arguments in questions:
            self.rpc.refusal = ChainRefusedError(code, "inference", "no")
            asked = Deferred.fromCoroutine(question(self.rpc, *arguments, LATEST))
            self.failureResultOf(asked, ChainRefusedError)

    def test_failures(self) -> None:
        questions = ((hardware_nodes, ONE.address), (known_models,), (owed_rewards, ONE.address), (mlnode_version,))
        for question, *arguments in (*questions, (member_weight, 1, ONE.address)):
            self.rpc.refusal = ChainRefusedError(18, "sdk", "not ready")
            coroutine: Any = question
            asked = Deferred.fromCoroutine(coroutine(self.rpc, *arguments, LATEST))
            self.failureResultOf(asked, ChainRefusedError)
            self.rpc.refusal, self.rpc.value = None, b"\xff"
            asked = Deferred.fromCoroutine(coroutine(self.rpc, *arguments, LATEST))
            failure = self.failureResultOf(asked, ChainUnavailableError)
            self.assertRegex(str(failure.value), r"^/inference\.inference\.Query/\w+: the answer is no Query\w+: ")
            self.rpc.value = None
