"""The simulated chain's rules for transactions and messages, each as the documents state it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.chain.epochs import ConfirmationEvent, ConfirmationPhase, EpochParams, Epochs
from dapi.simulator.chain.messages import Rules
from tests.chain_tools import (
    BATCH_URL,
    SECOND_NS,
    VALIDATION_URL,
    Key,
    Packed,
    batch,
    granted,
    validation,
)
from tests.unit.simulator.chain.chain_world import OK, World


class ValidateBasicTests(SynchronousTestCase):
    """What needs no state: codespace sdk, in CheckTx for a bare message, at delivery for a granted one."""

    def refused(self, message: Packed, rules: Rules | None = None) -> tuple[str, int]:
        return World(rules).check(World(rules).tx(message))

    def test_a_right_batch_and_a_right_validation(self) -> None:
        self.assertEqual(self.refused(World().batch()), OK)
        self.assertEqual(self.refused(validation(World().key.address, Key(2).address)), OK)

    def test_batches(self) -> None:
        world = World()
        for changes in (
            {"height": 0},
            {"height": -1},
            {"batch_id": " \t"},
            {"nonces": ()},
            {"nonces": (1, -1)},
            {"dist": ()},
            {"dist": (0.5, float("inf"))},
            {"dist": (0.5, float("nan"))},
            {"dist": (0.5, -0.5)},
            {"nonces": (1,)},
        ):
            self.assertEqual(self.refused(world.batch(**changes)), ("sdk", 18), changes)

    def test_addresses(self) -> None:
        self.assertEqual(self.refused(batch("gonka1nobody")), ("sdk", 7))
        self.assertEqual(self.refused(validation(World().key.address, "gonka1nobody")), ("sdk", 7))
        self.assertEqual(self.refused(granted("gonka1nobody", World().batch())), ("sdk", 7))

    def test_validation_height(self) -> None:
        self.assertEqual(self.refused(validation(World().key.address, Key(2).address, height=0)), ("sdk", 18))

    def test_an_empty_wrapping_and_no_message(self) -> None:
        world = World()
        self.assertEqual(self.refused(granted(world.key.address)), ("sdk", 18))
        self.assertEqual(world.check(world.tx()), ("sdk", 18))

    def test_newer_limits_can_be_switched_off(self) -> None:
        many = World().batch(nonces=range(1, 10_002), dist=[0.5] * 10_001)
        long_id = World().batch(batch_id="b" * 129)
        long_name = World().batch(node_id="n" * 129)
        for message in (many, long_id, long_name):
            self.assertEqual(self.refused(message), ("sdk", 18))
            self.assertEqual(self.refused(message, Rules(max_nonces=None, max_id_characters=None)), OK)
        self.assertEqual(self.refused(World().batch(nonces=range(1, 10_001), dist=[0.5] * 10_000)), OK)

    def test_inside_a_wrapping_only_at_delivery(self) -> None:
        world = World()
        warm = Key(2)
        world.add_account(warm, 2)
        wrapped = granted(warm.address, world.batch(nonces=(-1, 2)))
        self.assertEqual(world.deliver(world.tx(wrapped, key=warm, account_number=2)), ("sdk", 18))


class SignerTests(SynchronousTestCase):
    """Who signed, and when."""

    def setUp(self) -> None:
        self.world = World()

    def check(self, **changes: Any) -> tuple[str, int]:
        return self.world.check(self.world.tx(self.world.batch(), **changes))

    def test_no_gas(self) -> None:
        self.assertEqual(self.check(gas_limit=0), ("sdk", 41))

    def test_unknown_account(self) -> None:
        stranger = Key(9)
        raw = self.world.tx(batch(stranger.address), key=stranger)
        self.assertEqual(self.world.check(raw), ("sdk", 9))

    def test_wrong_account_number_chain_or_signature(self) -> None:
        self.assertEqual(self.check(account_number=2), ("sdk", 4))
        self.assertEqual(self.check(chain_id="gonka-mainnet"), ("sdk", 4))
        self.assertEqual(self.check(is_high_s=True), ("sdk", 4))
        self.assertEqual(self.check(key=Key(2), shown_key=self.world.key.public), ("sdk", 4))

    def test_another_signer_than_the_creator(self) -> None:
        self.assertEqual(self.check(key=Key(2)), ("sdk", 8))

    def test_messages_of_two_signers(self) -> None:
        other = Key(2)
        self.world.add_account(other, 2)
        raw = self.world.tx(self.world.batch(), batch(other.address))
        self.assertEqual(self.world.check(raw), ("sdk", 4))

    def test_the_key_is_known_after_the_first_transaction(self) -> None:
        self.assertEqual(self.check(shows_key=False), ("sdk", 8))
        self.world.deliver(self.world.tx(self.world.batch()))
        self.assertEqual(self.world.state.accounts[self.world.key.address].public_key, self.world.key.public)
        self.assertEqual(self.check(shows_key=False), OK)

    def test_ordered_and_sequence(self) -> None:
        self.assertEqual(self.check(unordered=False), ("sdk", 18))
        self.assertEqual(self.check(sequence=3), ("sdk", 18))

    def test_timeouts(self) -> None:
        now = self.world.now_ns
        self.assertEqual(self.check(timeout_ns=None), ("sdk", 18))
        self.assertEqual(self.check(timeout_ns=now - 1), ("sdk", 42))
        self.assertEqual(self.check(timeout_ns=now), OK)
        self.assertEqual(self.check(timeout_ns=now + 600 * SECOND_NS), OK)
        self.assertEqual(self.check(timeout_ns=now + 600 * SECOND_NS + 1), ("sdk", 18))
        self.assertEqual(self.check(timeout_height=self.world.chain.latest.height - 1), ("sdk", 30))
        log = self.world.chain.broadcast(
            self.world.tx(self.world.batch(), timeout_ns=now + 601 * SECOND_NS),
        ).log
        self.assertIn("unordered tx ttl exceeds 10m0s", log)

    def test_a_timestamp_is_good_once_per_signer(self) -> None:
        other = Key(2)
        self.world.add_account(other, 2)
        at = self.world.now_ns + 30 * SECOND_NS
        self.assertEqual(self.check(timeout_ns=at), OK)
        second = self.world.tx(self.world.batch(batch_id="b-2"), timeout_ns=at)
        self.assertEqual(self.world.check(second), ("sdk", 18), "while the first is in the mempool")
        self.world.advance(11)
        self.assertEqual(self.world.check(second), ("sdk", 18), "once it is in a block")
        self.assertIn("already used timeout", self.world.chain.broadcast(second).log)
        theirs = self.world.tx(batch(other.address), key=other, account_number=2, timeout_ns=at)
        self.assertEqual(self.world.check(theirs), OK)
        self.assertEqual(self.check(timeout_ns=at + 1), OK)

    def test_failed_messages_use_the_timestamp_up_all_the_same(self) -> None:
        at = self.world.now_ns + 30 * SECOND_NS
        wrong = self.world.tx(self.world.batch(node_id=""), timeout_ns=at)
        self.assertEqual(self.world.deliver(wrong), ("inference", 1145))
        self.assertEqual(self.check(timeout_ns=at), ("sdk", 18))

    def test_a_transaction_whose_time_passes_before_its_block_fails_in_it(self) -> None:
        raw = self.world.tx(self.world.batch(), timeout_ns=self.world.now_ns + SECOND_NS - 1)
        self.assertEqual(self.world.deliver(raw), ("sdk", 42))
        self.assertEqual(self.world.state.batches, {})
        # A block that failed it has not seen its timestamp, and the mempool has forgotten its bytes.
        self.assertEqual(self.world.check(raw), ("sdk", 42))


class DeliveryTests(SynchronousTestCase):
    """What the messages do, and what they are refused with, in codespace inference."""

    def setUp(self) -> None:
        self.world = World()
        self.creator = self.world.key.address

    def deliver_at(self, height: int, *messages: Packed, world: World | None = None) -> tuple[str, int]:
        return (world or World()).deliver_at(height, *messages)

    def test_the_batch_window(self) -> None:
        message = self.world.batch()
        self.assertEqual(self.deliver_at(11, message), OK)
        self.assertEqual(self.deliver_at(22, message), OK)
        self.assertEqual(self.deliver_at(23, message), ("inference", 1108))

    def test_the_validation_window(self) -> None:
        message = validation(self.creator, Key(2).address)
        self.assertEqual(self.deliver_at(22, message), ("inference", 1108))
        self.assertEqual(self.deliver_at(23, message), OK)
        self.assertEqual(self.deliver_at(28, message), OK)
        self.assertEqual(self.deliver_at(29, message), ("inference", 1108))

    def test_no_upcoming_epoch(self) -> None:
        message = self.world.batch()
        self.assertEqual(self.deliver_at(10, message, world=World(height=8)), ("inference", 1128), "at P itself")
        self.assertEqual(self.deliver_at(29, message), ("inference", 1108), "the last block of the upcoming epoch")
        self.assertEqual(self.deliver_at(30, message), ("inference", 1128))
        self.assertEqual(self.deliver_at(51, self.world.batch(height=50)), OK, "the next epoch")

    def test_a_wrong_start(self) -> None:
        self.assertEqual(self.deliver_at(11, self.world.batch(height=11)), ("inference", 1107))
        wrong = validation(self.creator, Key(2).address, height=11)
        self.assertEqual(self.deliver_at(25, wrong), ("inference", 1107))

    def test_an_empty_node_id_comes_before_all_else(self) -> None:
        self.assertEqual(self.deliver_at(40, self.world.batch(node_id="", height=7)), ("inference", 1145))

    def test_a_batch_is_stored_under_stage_creator_and_id(self) -> None:
        self.assertEqual(self.world.deliver(self.world.tx(self.world.batch())), OK)
        self.assertEqual(self.world.deliver(self.world.tx(self.world.batch(nonces=(8, 9)))), OK)
        self.assertEqual(self.world.deliver(self.world.tx(self.world.batch(batch_id="b-2"))), OK)
        stored = self.world.state.batches
        self.assertEqual(set(stored), {(10, self.creator, "b-1"), (10, self.creator, "b-2")})
        self.assertEqual(stored[10, self.creator, "b-1"].message.nonces, (8, 9))
        self.assertEqual(stored[10, self.creator, "b-1"].received_at_height, 12)

    def test_a_second_validation(self) -> None:
        self.world.advance(24)
        other = Key(2).address
        first, second = validation(self.creator, other), validation(self.creator, other, n_invalid=5)
        self.assertEqual(self.world.deliver(self.world.tx(first)), OK)
        self.assertEqual(self.world.deliver(self.world.tx(second)), ("inference", 1160))
        self.assertEqual(self.world.state.validations[10, other, self.creator].n_invalid, 0)
        self.world.state.rules.second_validation_is_refused = False
        self.assertEqual(self.world.deliver(self.world.tx(second)), OK)
        self.assertEqual(self.world.state.validations[10, other, self.creator].n_invalid, 5)

    def test_poc_v2(self) -> None:
        self.world.state.rules.poc_v2 = True
        self.assertEqual(self.world.deliver(self.world.tx(self.world.batch())), ("inference", 1161))

    def test_windows_in_check_tx(self) -> None:
        world = World(Rules(windows_in_check_tx=True), height=8)
        self.assertEqual(world.check(world.tx(world.batch())), OK, "1128 may heal")
        world.advance(11)
        self.assertEqual(world.check(world.tx(world.batch(height=9))), ("inference", 1107))
        world.advance(23)
        self.assertEqual(world.check(world.tx(world.batch())), ("inference", 1108))
        world.state.rules.poc_v2 = True
        self.assertEqual(world.check(world.tx(world.batch())), ("inference", 1161))

    def test_all_messages_of_a_transaction_or_none(self) -> None:
        raw = self.world.tx(self.world.batch(), self.world.batch(batch_id="b-2", node_id=""), self.world.batch())
        self.assertEqual(self.world.deliver(raw), ("inference", 1145))
        self.assertEqual(self.world.state.batches, {})
        self.assertIn("message index: 1", self.world.chain.ledger[-1].log)

    def test_undoing_restores_what_was_there_before(self) -> None:
        self.world.deliver(self.world.tx(self.world.batch()))
        raw = self.world.tx(self.world.batch(nonces=(8, 9)), self.world.batch(node_id=""))
        self.assertEqual(self.world.deliver(raw), ("inference", 1145))
        self.assertEqual(self.world.state.batches[10, self.creator, "b-1"].message.nonces, (7, 300))


class ConfirmationTests(SynchronousTestCase):
    """A confirmation PoC triggered at 40 that generates from 42 on."""

    def setUp(self) -> None:
        self.event = ConfirmationEvent(1, 0, 40, 42, "abcdef")
        self.creator = Key(1).address

    def deliver_at(self, height: int, message: Packed) -> tuple[str, int]:
        world = World(height=35)
        world.state.epochs = Epochs(10, EpochParams(epoch_length=100))
        world.state.confirmation = self.event
        return world.deliver_at(height, message)

    def test_batches(self) -> None:
        message = batch(self.creator, height=40)
        self.assertEqual(self.deliver_at(42, message), ("inference", 1128))
        self.assertEqual(self.deliver_at(43, message), OK)
        self.assertEqual(self.deliver_at(53, message), OK)
        self.assertEqual(self.deliver_at(54, message), ("inference", 1108))
        self.assertEqual(self.deliver_at(43, batch(self.creator, height=42)), ("inference", 1107))

    def test_validations(self) -> None:
        message = validation(self.creator, Key(2).address, height=40)
        self.assertEqual(self.deliver_at(55, message), ("inference", 1128))
        self.assertEqual(self.deliver_at(56, message), OK)
        self.assertEqual(self.deliver_at(60, message), OK)
        self.assertEqual(self.deliver_at(61, message), ("inference", 1128))

    def test_phases(self) -> None:
        phases = {height: self.event.phase_at(EpochParams(), height) for height in (42, 43, 55, 56, 60, 61)}
        self.assertEqual(
            phases,
            {
                42: ConfirmationPhase.GRACE_PERIOD,
                43: ConfirmationPhase.GENERATION,
                55: ConfirmationPhase.GENERATION,
                56: ConfirmationPhase.VALIDATION,
                60: ConfirmationPhase.VALIDATION,
                61: ConfirmationPhase.COMPLETED,
            },
        )


class EpochTests(SynchronousTestCase):
    """The table of the three networks' windows."""

    def test_windows(self) -> None:
        for durations, batches, validations in (
            (EpochParams(17280, 60, 5, 5, 20, 120), (1, 65), (66, 85)),
            (EpochParams(40, 10, 2, 2, 6, 1), (1, 12), (13, 18)),
            (EpochParams(50, 4, 1, 1, 4, 1), (1, 5), (6, 9)),
        ):
            epochs = Epochs(1000, durations)
            window = epochs.batch_window(1000)
            self.assertEqual((window.first - 1000, window.last - 1000), batches)
            window = epochs.validation_window(1000)
            self.assertEqual((window.first - 1000, window.last - 1000), validations)

    def test_no_epoch_before_the_first(self) -> None:
        self.assertEqual(Epochs(10).after(9).index, 0)
        self.assertEqual(Epochs(10).after(10).index, 1)
        self.assertEqual(Epochs(10).after(50).start, 50)
        self.assertIsNone(Epochs(None).upcoming_at(1000))


class GrantTests(SynchronousTestCase):
    """Messages of others, wrapped."""

    def setUp(self) -> None:
        self.world = World()
        self.warm = Key(2)
        self.world.add_account(self.warm, 2)

    def deliver(self, *messages: Packed) -> tuple[str, int]:
        raw = self.world.tx(granted(self.warm.address, *messages), key=self.warm, account_number=2)
        return self.world.deliver(raw)

    def grant(self, type_url: str, expires_ns: int | None = None) -> None:
        self.world.state.grants[self.world.key.address, self.warm.address, type_url] = expires_ns

    def test_without_a_grant_only_the_block_says_no(self) -> None:
        self.assertEqual(self.deliver(self.world.batch()), ("authz", 2))
        self.grant(VALIDATION_URL)
        self.assertEqual(self.deliver(self.world.batch()), ("authz", 2), "granted for another message")

    def test_with_a_grant(self) -> None:
        self.grant(BATCH_URL)
        self.assertEqual(self.deliver(self.world.batch(), self.world.batch(batch_id="b-2")), OK)
        self.assertEqual(
            {key[1:] for key in self.world.state.batches},
            {(self.world.key.address, "b-1"), (self.world.key.address, "b-2")},
        )

    def test_an_expired_grant(self) -> None:
        self.grant(BATCH_URL, self.world.now_ns)
        self.assertEqual(self.deliver(self.world.batch()), ("authz", 6))

    def test_ones_own_message_needs_no_grant(self) -> None:
        self.assertEqual(self.deliver(batch(self.warm.address)), OK)

    def test_one_refused_message_undoes_the_others(self) -> None:
        self.grant(BATCH_URL)
        self.assertEqual(self.deliver(self.world.batch(), self.world.batch(node_id="")), ("inference", 1145))
        self.assertEqual(self.world.state.batches, {})
        self.assertIn("message index: 0", self.world.chain.ledger[-1].log)
