"""From declared nodes, seeds, batches and verdicts to weight, settlement and claim."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.chain.state import GroupMember, GroupNode, Model
from dapi.simulator.chain.weights import effective_weight
from dapi.simulator.chain.wire import any_field, bytes_field, message_field, varint_field
from tests.chain_tools import (
    CLAIM_URL,
    SEED_URL,
    Key,
    Packed,
    batch,
    claim,
    granted,
    hardware_diff,
    hardware_node,
    seed,
    validation,
)
from tests.unit.simulator.chain.chain_in_memory import OK, ChainInMemory

# Of epoch 1, whose PoC starts at 10: the last block of validation, and the one that makes it the current epoch.
VALIDATION_END, SET_NEW_VALIDATORS = 28, 29
EPOCH_LENGTH = 40
REWARD = 1_000_000


class EpochTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = ChainInMemory()
        self.key = self.network.key
        self.address = self.key.address

    def declare(self, *nodes: bytes) -> None:
        self.assertEqual(self.network.deliver(self.network.tx(hardware_diff(self.address, *nodes))), OK)

    def stage(
        self,
        *batches: Packed,
        epoch_index: int = 1,
        has_seed: bool = True,
        verdicts: Sequence[Packed] | None = None,
    ) -> None:
        """Have a stage with these batches from its start to the block that makes it the current epoch."""
        start = 10 + EPOCH_LENGTH * (epoch_index - 1)
        if has_seed:
            self.assertEqual(self.network.deliver_at(start + 1, self.seed(epoch_index)), OK)
        if batches:
            self.assertEqual(self.network.deliver_at(start + 2, *batches), OK)
        if verdicts is None:
            verdicts = [validation(self.address, self.address, height=start)]
        if verdicts:
            self.assertEqual(self.network.deliver_at(start + 15, *verdicts), OK)
        self.network.advance(start + SET_NEW_VALIDATORS - 10)

    def seed(self, epoch_index: int = 1) -> Packed:
        return seed(self.address, self.key, epoch_index=epoch_index)

    def nonces(self, node_id: str, *nonces: int, epoch_index: int = 1) -> Packed:
        start = 10 + EPOCH_LENGTH * (epoch_index - 1)
        return self.network.batch(
            height=start, batch_id=f"{node_id}-{nonces}", nonces=nonces, dist=[0.5] * len(nonces), node_id=node_id
        )

    def members(self, epoch_index: int = 1, model: str = "") -> dict[str, GroupMember]:
        return {member.address: member for member in self.network.state.epoch_groups.get((epoch_index, model), ())}

    def effective_weight(self, epoch_index: int = 1) -> int:
        state = self.network.state
        return effective_weight(state.at(state.height), epoch_index, self.address)


class WeightTests(EpochTestCase):
    """docs/protocol/chain.md, 'Weight' and 'Hardware nodes'; docs/protocol/measured.md, 'What is paid'."""

    def test_unique_nonces_of_declared_nodes_count(self) -> None:
        self.declare(hardware_node("node1"), hardware_node("node2"))
        self.stage(self.nonces("node1", 1, 2, 3), self.nonces("node2", 3, 4))
        # Of the two that have nonce 3, the first in the order of batch_id gets it.
        nodes = (GroupNode("node1", (True, False), 3), GroupNode("node2", (True, False), 1))
        self.assertEqual(self.members(), {self.address: GroupMember(self.address, (), 4, 4)})
        self.assertEqual(self.members(model="simulated")[self.address].nodes, nodes)
        self.assertEqual(self.effective_weight(), 4)

    def test_without_any_declared_node_the_weight_is_worth_nothing(self) -> None:
        self.stage(self.nonces("node1", 1, 2, 3))
        self.assertEqual(self.members(), {self.address: GroupMember(self.address, (), 3, 0)})
        self.assertEqual(self.effective_weight(), 0)
        self.assertEqual(self.network.state.settle_amounts, {})

    def test_a_node_that_is_not_declared_counts_nothing(self) -> None:
        self.declare(hardware_node("node1"))
        self.stage(self.nonces("node1", 1, 2, 3), self.nonces("renamed", 4, 5))
        self.assertEqual(self.members()[self.address].weight, 3)
        self.assertEqual(self.effective_weight(), 3)

    def test_declared_by_the_end_of_validation_is_early_enough_and_later_is_not(self) -> None:
        for height, weight in ((VALIDATION_END, 2), (VALIDATION_END + 1, 0)):
            self.setUp()
            self.network.deliver_at(11, self.seed())
            self.network.deliver_at(12, self.nonces("node1", 1, 2))
            self.network.deliver_at(25, validation(self.address, self.address))
            self.network.deliver_at(height, hardware_diff(self.address, hardware_node("node1")))
            self.assertEqual(self.effective_weight(), weight, height)

    def test_without_the_seed_the_stage_is_dropped_whole(self) -> None:
        self.declare(hardware_node("node1"))
        preserved = GroupNode("node2", (True, True), 50)
        self.network.state.epoch_groups[0, ""] = (GroupMember(self.address, (), 50, 0),)
        self.network.state.epoch_groups[0, "simulated"] = (GroupMember(self.address, (preserved,), 50, 0),)
        self.stage(self.nonces("node1", 1, 2, 3), has_seed=False)
        self.assertEqual(self.members(), {})

    def test_a_node_with_a_slot_keeps_its_weight_and_its_batches_are_dropped(self) -> None:
        self.declare(hardware_node("node1"), hardware_node("node2"))
        preserved = GroupNode("node2", (True, True), 50)
        self.network.state.epoch_groups[0, ""] = (GroupMember(self.address, (), 50, 0),)
        self.network.state.epoch_groups[0, "simulated"] = (GroupMember(self.address, (preserved,), 50, 0),)
        self.stage(self.nonces("node1", 1, 2), self.nonces("node2", 3, 4, 5))
        self.assertEqual(self.members()[self.address].weight, 52)

    def test_anothers_node_with_a_slot_and_the_same_id_drops_ours(self) -> None:
        self.declare(hardware_node("node1"))
        other = GroupNode("node1", (True, True), 50)
        self.network.state.epoch_groups[0, ""] = (GroupMember(self.address, (), 1, 0),)
        self.network.state.epoch_groups[0, "simulated"] = (GroupMember(Key(2).address, (other,), 50, 0),)
        self.stage(self.nonces("node1", 1, 2))
        self.assertEqual(self.members(), {})

    def test_members_with_more_than_half_of_the_weight_must_have_found_it_valid(self) -> None:
        other = Key(2)
        for ours, counts in ((10, False), (11, True)):
            self.setUp()
            self.network.state.participants.update({self.address: ours, other.address: 10})
            self.declare(hardware_node("node1"))
            self.stage(self.nonces("node1", 1, 2))
            self.assertEqual(self.address in self.members(), counts, ours)

    def test_a_verdict_of_fraud_or_of_nobody_counts_for_nothing(self) -> None:
        for verdicts in (
            [],
            [validation(self.address, self.address, is_fraud=True)],
        ):
            self.setUp()
            self.declare(hardware_node("node1"))
            self.stage(self.nonces("node1", 1, 2), verdicts=verdicts)
            self.assertEqual(self.members(), {})

    def test_a_network_whose_weight_fell_to_0_does_not_come_back(self) -> None:
        self.declare(hardware_node("node1"))
        self.stage(self.nonces("node1", 1, 2), has_seed=False)
        self.stage(self.nonces("node1", 1, 2, epoch_index=2), epoch_index=2)
        self.assertEqual(self.members(2), {})

    def test_who_was_no_member_judges_nobody(self) -> None:
        other = Key(2)
        self.network.add_account(other, 2)
        self.network.state.participants[other.address] = 0
        self.declare(hardware_node("node1"))
        self.network.deliver_at(11, self.seed())
        self.network.deliver_at(12, self.nonces("node1", 1, 2))
        raw = self.network.tx(validation(other.address, self.address), key=other, account_number=2)
        self.network.advance(24)
        self.assertEqual(self.network.deliver(raw), OK)
        self.network.advance(SET_NEW_VALIDATORS)
        self.assertEqual(self.members(), {})


class HardwareTests(EpochTestCase):
    """docs/protocol/chain.md, 'Hardware nodes'."""

    def diff(self, *nodes: bytes, removed: Sequence[bytes] = ()) -> tuple[str, int]:
        return self.network.deliver(self.network.tx(hardware_diff(self.address, *nodes, removed=removed)))

    def test_an_entry_replaces_the_one_of_its_id_and_a_removed_one_goes(self) -> None:
        self.assertEqual(self.diff(hardware_node("node1"), hardware_node("node2")), OK)
        self.assertEqual(self.diff(hardware_node("node1", status=2), removed=[hardware_node("node2")]), OK)
        ((key, node),) = self.network.state.hardware_nodes.items()
        self.assertEqual((key, node.status, node.port), ((self.address, "node1"), 2, "8080"))
        self.assertEqual([(hardware.type, hardware.count) for hardware in node.hardware], [("H100", 8)])

    def test_one_unknown_model_refuses_the_whole_diff(self) -> None:
        nodes = (hardware_node("node1"), hardware_node("node2", models=("simulated", "unheard/of")))
        self.assertEqual(self.diff(*nodes), ("inference", 1134))
        self.assertEqual(self.network.state.hardware_nodes, {})
        self.network.state.models["unheard/of"] = Model("unheard/of")
        self.assertEqual(self.diff(*nodes), OK)

    def test_an_id_that_comes_twice(self) -> None:
        self.assertEqual(self.diff(hardware_node("node1"), hardware_node("node1")), ("inference", 1140))
        self.assertEqual(self.diff(hardware_node("node1"), removed=[hardware_node("node1")]), ("inference", 1140))

    def test_an_unknown_participant(self) -> None:
        del self.network.state.participants[self.address]
        self.assertEqual(self.diff(hardware_node("node1")), ("inference", 1103))


def response(amount: int, result: str) -> bytes:
    """A MsgClaimRewardsResponse."""
    return varint_field(1, amount) + bytes_field(2, result)


PAID = response(REWARD, "Rewards claimed successfully")


class ClaimTests(EpochTestCase):
    """docs/protocol/chain.md, 'Claims' and 'Seeds'."""

    def setUp(self) -> None:
        super().setUp()
        self.declare(hardware_node("node1"))
        self.stage(self.nonces("node1", 1, 2, 3))

    def second_epoch(self) -> None:
        self.stage(self.nonces("node1", 1, 2, epoch_index=2), epoch_index=2)

    def claim(self, *, epoch_index: int = 1, value: int | None = None) -> bytes:
        """Claim, and return the response; its code is 0 whatever it says."""
        record = self.network.record(
            self.network.tx(claim(self.address, self.key, epoch_index=epoch_index, seed=value))
        )
        self.assertEqual(record.code, 0)
        prefix = any_field(2, f"{CLAIM_URL}Response", b"")[2:]
        self.assertTrue(record.data[2:].startswith(prefix))
        _, _, found = record.data.partition(f"{CLAIM_URL}Response".encode())
        return found[2:]

    def assert_refused(self, result: str, **changes: int) -> None:
        self.assertEqual(self.claim(**changes), response(0, result))
        self.assertEqual(self.network.state.balances, {})

    def test_paid_once_from_the_block_after_set_new_validators(self) -> None:
        self.second_epoch()
        self.assertEqual(self.network.state.height, SET_NEW_VALIDATORS + EPOCH_LENGTH)
        owed = self.network.state.settle_amounts[self.address]
        self.assertEqual((owed.reward_coins, owed.epoch_index), (REWARD, 1))
        self.assertEqual(self.claim(), PAID)
        self.assertEqual(self.network.state.balances, {self.address: REWARD})
        self.assertEqual(self.claim(), response(0, "No rewards for this address"))
        self.assertEqual(self.network.state.balances, {self.address: REWARD})

    def test_a_block_early_nothing_is_paid(self) -> None:
        self.network.advance(SET_NEW_VALIDATORS + EPOCH_LENGTH - 1)
        self.assert_refused(NOT_PREVIOUS)
        self.assertEqual(self.network.state.height, SET_NEW_VALIDATORS + EPOCH_LENGTH)
        self.assertEqual(self.claim(), PAID)

    def test_only_the_epoch_before_the_current_one(self) -> None:
        self.assert_refused(NOT_PREVIOUS)
        self.second_epoch()
        self.assert_refused(NOT_PREVIOUS, epoch_index=2)

    def test_with_another_seed_it_is_not_paid(self) -> None:
        self.second_epoch()
        self.assert_refused("Seed signature validation failed", value=12345)
        self.assertEqual(self.claim(), PAID)

    def test_validations_of_inferences_that_were_missed(self) -> None:
        self.second_epoch()
        self.network.state.missed_inference_validations.add(self.address)
        self.assert_refused("Inference validation missed significantly")

    def test_what_is_not_claimed_when_the_next_epoch_is_settled_is_gone(self) -> None:
        self.second_epoch()
        self.stage(self.nonces("node1", 1, epoch_index=3), epoch_index=3)
        self.assertEqual(self.network.state.settle_amounts[self.address].epoch_index, 2)
        self.assert_refused(NOT_PREVIOUS)
        self.assertEqual(self.claim(epoch_index=2), PAID)

    def test_in_the_name_of_another_the_answer_is_one_level_deeper(self) -> None:
        warm = Key(2)
        self.network.add_account(warm, 2)
        for type_url in (CLAIM_URL, SEED_URL):
            self.network.state.grants[self.address, warm.address, type_url] = None
        self.second_epoch()
        message = granted(warm.address, claim(self.address, self.key))
        record = self.network.record(self.network.tx(message, key=warm, account_number=2))
        exec_response = any_field(2, "/cosmos.authz.v1beta1.MsgExecResponse", message_field(1, PAID))
        self.assertEqual((record.code, record.data), (0, exec_response))

    def test_a_seed_that_a_granted_key_has_signed(self) -> None:
        self.setUp()
        warm = Key(2)
        self.network.add_account(warm, 2)
        self.network.state.grants[self.address, warm.address, SEED_URL] = None
        # The granted key is known to the chain from its own transactions.
        raw = self.network.tx(batch(warm.address, node_id=""), key=warm, account_number=2)
        self.network.deliver(raw)
        self.network.deliver_at(51, seed(self.address, warm, epoch_index=2))
        self.network.deliver_at(52, self.nonces("node1", 1, 2, epoch_index=2))
        self.network.deliver_at(65, validation(self.address, self.address, height=50))
        self.stage(self.nonces("node1", 1, epoch_index=3), epoch_index=3)
        record = self.network.record(self.network.tx(claim(self.address, warm, epoch_index=2)))
        self.assertIn(PAID, record.data)

    def test_members_share_the_reward_by_effective_weight(self) -> None:
        other = Key(2)
        self.network.state.epoch_groups[1, ""] = (
            *self.network.state.epoch_groups[1, ""],
            GroupMember(other.address, (), 9, 9),
        )
        self.network.state.seeds[1, other.address] = self.network.state.seeds[1, self.address]
        self.second_epoch()
        coins = {address: owed.reward_coins for address, owed in self.network.state.settle_amounts.items()}
        self.assertEqual(coins, {self.address: 250_000, other.address: 750_000})


NOT_PREVIOUS = "Can't validate claim, current epoch group does not match previous epoch"
