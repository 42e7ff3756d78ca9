"""The simulated chain's rules for transactions and messages, each as the documents state it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.chain.epochs import ConfirmationEvent, ConfirmationPhase, EpochParams, Epochs
from dapi.simulator.chain.rules import Rules
from dapi.simulator.chain.transactions import hash_of
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
from tests.unit.simulator.chain.chain_in_memory import OK, ChainInMemory


class ValidateBasicTests(SynchronousTestCase):
    """What needs no state: codespace sdk, in CheckTx for a bare message, at delivery for a granted one."""

    def refused(self, message: Packed, rules: Rules | None = None) -> tuple[str, int]:
        return ChainInMemory(rules).check(ChainInMemory(rules).tx(message))

    def test_a_right_batch_and_a_right_validation(self) -> None:
        self.assertEqual(self.refused(ChainInMemory().batch()), OK)
        self.assertEqual(self.refused(validation(ChainInMemory().key.address, Key(2).address)), OK)

    def test_batches(self) -> None:
        network = ChainInMemory()
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
            self.assertEqual(self.refused(network.batch(**changes)), ("sdk", 18), changes)

    def test_addresses(self) -> None:
        self.assertEqual(self.refused(batch("gonka1nobody")), ("sdk", 7))
        self.assertEqual(self.refused(validation(ChainInMemory().key.address, "gonka1nobody")), ("sdk", 7))
        self.assertEqual(self.refused(granted("gonka1nobody", ChainInMemory().batch())), ("sdk", 7))

    def test_validation_height(self) -> None:
        self.assertEqual(self.refused(validation(ChainInMemory().key.address, Key(2).address, height=0)), ("sdk", 18))

    def test_an_empty_wrapping_and_no_message(self) -> None:
        network = ChainInMemory()
        self.assertEqual(self.refused(granted(network.key.address)), ("sdk", 18))
        self.assertEqual(network.check(network.tx()), ("sdk", 18))

    def test_newer_limits_can_be_switched_off(self) -> None:
        many = ChainInMemory().batch(nonces=range(1, 10_002), dist=[0.5] * 10_001)
        long_id = ChainInMemory().batch(batch_id="b" * 129)
        long_name = ChainInMemory().batch(node_id="n" * 129)
        for message in (many, long_id, long_name):
            self.assertEqual(self.refused(message), ("sdk", 18))
            self.assertEqual(self.refused(message, Rules(max_nonces=None, max_id_characters=None)), OK)
        self.assertEqual(self.refused(ChainInMemory().batch(nonces=range(1, 10_001), dist=[0.5] * 10_000)), OK)

    def test_inside_a_wrapping_only_at_delivery(self) -> None:
        network = ChainInMemory()
        warm = Key(2)
        network.add_account(warm, 2)
        wrapped = granted(warm.address, network.batch(nonces=(-1, 2)))
        self.assertEqual(network.deliver(network.tx(wrapped, key=warm, account_number=2)), ("sdk", 18))


class SignerTests(SynchronousTestCase):
    """Who signed, and when."""

    def setUp(self) -> None:
        self.network = ChainInMemory()

    def check(self, **changes: Any) -> tuple[str, int]:
        return self.network.check(self.network.tx(self.network.batch(), **changes))

    def test_no_gas(self) -> None:
        self.assertEqual(self.check(gas_limit=0), ("sdk", 41))

    def test_unknown_account(self) -> None:
        stranger = Key(9)
        raw = self.network.tx(batch(stranger.address), key=stranger)
        self.assertEqual(self.network.check(raw), ("sdk", 9))

    def test_wrong_account_number_chain_or_signature(self) -> None:
        self.assertEqual(self.check(account_number=2), ("sdk", 4))
        self.assertEqual(self.check(chain_id="gonka-mainnet"), ("sdk", 4))
        self.assertEqual(self.check(is_high_s=True), ("sdk", 4))
        self.assertEqual(self.check(key=Key(2), shown_key=self.network.key.public), ("sdk", 4))

    def test_another_signer_than_the_creator(self) -> None:
        self.assertEqual(self.check(key=Key(2)), ("sdk", 8))

    def test_messages_of_two_signers(self) -> None:
        other = Key(2)
        self.network.add_account(other, 2)
        raw = self.network.tx(self.network.batch(), batch(other.address))
        self.assertEqual(self.network.check(raw), ("sdk", 4))

    def test_the_key_is_known_after_the_first_transaction(self) -> None:
        self.assertEqual(self.check(shows_key=False), ("sdk", 8))
        self.network.deliver(self.network.tx(self.network.batch()))
        self.assertEqual(self.network.state.accounts[self.network.key.address].public_key, self.network.key.public)
        self.assertEqual(self.check(shows_key=False), OK)

    def test_ordered_and_sequence(self) -> None:
        self.assertEqual(self.check(unordered=False), ("sdk", 18))
        self.assertEqual(self.check(sequence=3), ("sdk", 18))

    def test_timeouts(self) -> None:
        now = self.network.now_ns
        self.assertEqual(self.check(timeout_ns=None), ("sdk", 18))
        self.assertEqual(self.check(timeout_ns=now - 1), ("sdk", 42))
        self.assertEqual(self.check(timeout_ns=now), OK)
        self.assertEqual(self.check(timeout_ns=now + 600 * SECOND_NS), OK)
        self.assertEqual(self.check(timeout_ns=now + 600 * SECOND_NS + 1), ("sdk", 18))
        self.assertEqual(self.check(timeout_height=self.network.chain.latest.height - 1), ("sdk", 30))
        log = self.network.node.broadcast(
            self.network.tx(self.network.batch(), timeout_ns=now + 601 * SECOND_NS),
        ).log
        self.assertIn("unordered tx ttl exceeds 10m0s", log)

    def test_a_timestamp_is_good_once_per_signer(self) -> None:
        other = Key(2)
        self.network.add_account(other, 2)
        at = self.network.now_ns + 30 * SECOND_NS
        self.assertEqual(self.check(timeout_ns=at), OK)
        second = self.network.tx(self.network.batch(batch_id="b-2"), timeout_ns=at)
        self.assertEqual(self.network.check(second), ("sdk", 18), "while the first is in the mempool")
        self.network.advance(11)
        self.assertEqual(self.network.check(second), ("sdk", 18), "once it is in a block")
        self.assertIn("already used timeout", self.network.node.broadcast(second).log)
        theirs = self.network.tx(batch(other.address), key=other, account_number=2, timeout_ns=at)
        self.assertEqual(self.network.check(theirs), OK)
        self.assertEqual(self.check(timeout_ns=at + 1), OK)

    def test_failed_messages_use_the_timestamp_up_all_the_same(self) -> None:
        at = self.network.now_ns + 30 * SECOND_NS
        wrong = self.network.tx(self.network.batch(node_id=""), timeout_ns=at)
        self.assertEqual(self.network.deliver(wrong), ("inference", 1145))
        self.assertEqual(self.check(timeout_ns=at), ("sdk", 18))

    def test_a_transaction_whose_time_passes_before_its_block_fails_in_it(self) -> None:
        raw = self.network.tx(self.network.batch(), timeout_ns=self.network.now_ns + SECOND_NS - 1)
        self.assertEqual(self.network.deliver(raw), ("sdk", 42))
        self.assertEqual(self.network.state.batches, {})
        # A block that failed it has not seen its timestamp, and the mempool has forgotten its bytes.
        self.assertEqual(self.network.check(raw), ("sdk", 42))


class DeliveryTests(SynchronousTestCase):
    """What the messages do, and what they are refused with, in codespace inference."""

    def setUp(self) -> None:
        self.network = ChainInMemory()
        self.creator = self.network.key.address

    def deliver_at(self, height: int, *messages: Packed, network: ChainInMemory | None = None) -> tuple[str, int]:
        return (network or ChainInMemory()).deliver_at(height, *messages)

    def test_the_batch_window(self) -> None:
        message = self.network.batch()
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
        message = self.network.batch()
        self.assertEqual(
            self.deliver_at(10, message, network=ChainInMemory(height=8)), ("inference", 1128), "at P itself"
        )
        self.assertEqual(self.deliver_at(29, message), ("inference", 1108), "the last block of the upcoming epoch")
        self.assertEqual(self.deliver_at(30, message), ("inference", 1128))
        self.assertEqual(self.deliver_at(51, self.network.batch(height=50)), OK, "the next epoch")

    def test_a_wrong_start(self) -> None:
        self.assertEqual(self.deliver_at(11, self.network.batch(height=11)), ("inference", 1107))
        wrong = validation(self.creator, Key(2).address, height=11)
        self.assertEqual(self.deliver_at(25, wrong), ("inference", 1107))

    def test_an_empty_node_id_comes_before_all_else(self) -> None:
        self.assertEqual(self.deliver_at(40, self.network.batch(node_id="", height=7)), ("inference", 1145))

    def test_a_batch_is_stored_under_stage_creator_and_id(self) -> None:
        self.assertEqual(self.network.deliver(self.network.tx(self.network.batch())), OK)
        self.assertEqual(self.network.deliver(self.network.tx(self.network.batch(nonces=(8, 9)))), OK)
        self.assertEqual(self.network.deliver(self.network.tx(self.network.batch(batch_id="b-2"))), OK)
        stored = self.network.state.batches
        self.assertEqual(set(stored), {(10, self.creator, "b-1"), (10, self.creator, "b-2")})
        self.assertEqual(stored[10, self.creator, "b-1"].message.nonces, (8, 9))
        self.assertEqual(stored[10, self.creator, "b-1"].received_at_height, 12)

    def test_a_second_validation(self) -> None:
        self.network.advance(24)
        other = Key(2).address
        first, second = validation(self.creator, other), validation(self.creator, other, n_invalid=5)
        self.assertEqual(self.network.deliver(self.network.tx(first)), OK)
        self.assertEqual(self.network.deliver(self.network.tx(second)), ("inference", 1160))
        self.assertEqual(self.network.state.validations[10, other, self.creator].n_invalid, 0)
        self.network.state.rules.second_validation_is_refused = False
        self.assertEqual(self.network.deliver(self.network.tx(second)), OK)
        self.assertEqual(self.network.state.validations[10, other, self.creator].n_invalid, 5)

    def test_poc_v2_refuses_v1(self) -> None:
        """docs/protocol/chain.md, 'Newer chains'."""
        self.network.state.rules.poc_v2 = True
        verdict = validation(self.creator, Key(2).address)
        for height in (self.network.state.height, self.network.state.height + 100):
            self.network.advance(height)
            for message, refusal in ((self.network.batch(), ("inference", 1161)), (verdict, ("sdk", 2))):
                self.assertEqual(self.network.check(self.network.tx(message)), refusal)
                self.network.state.rules.poc_v2 = False
                raw = self.network.tx(message)
                self.assertEqual(self.network.check(raw), OK)
                # It was in the mempool when the network moved.
                self.network.state.rules.poc_v2 = True
                self.network.advance(self.network.state.height + 1)
                record = self.network.chain.find(hash_of(raw))
                assert record is not None
                self.assertEqual((record.codespace, record.code), refusal)

    def test_windows_in_check_tx(self) -> None:
        network = ChainInMemory(Rules(windows_in_check_tx=True), height=8)
        self.assertEqual(network.check(network.tx(network.batch())), OK, "1128 may heal")
        network.advance(11)
        self.assertEqual(network.check(network.tx(network.batch(height=9))), ("inference", 1107))
        network.advance(23)
        self.assertEqual(network.check(network.tx(network.batch())), ("inference", 1108))
        network.state.rules.poc_v2 = True
        self.assertEqual(network.check(network.tx(network.batch())), ("inference", 1161))

    def test_all_messages_of_a_transaction_or_none(self) -> None:
        raw = self.network.tx(
            self.network.batch(), self.network.batch(batch_id="b-2", node_id=""), self.network.batch()
        )
        self.assertEqual(self.network.deliver(raw), ("inference", 1145))
        self.assertEqual(self.network.state.batches, {})
        self.assertIn("message index: 1", self.network.chain.ledger[-1].log)

    def test_undoing_restores_what_was_there_before(self) -> None:
        self.network.deliver(self.network.tx(self.network.batch()))
        raw = self.network.tx(self.network.batch(nonces=(8, 9)), self.network.batch(node_id=""))
        self.assertEqual(self.network.deliver(raw), ("inference", 1145))
        self.assertEqual(self.network.state.batches[10, self.creator, "b-1"].message.nonces, (7, 300))


class ConfirmationTests(SynchronousTestCase):
    """A confirmation PoC triggered at 40 that generates from 42 on."""

    def setUp(self) -> None:
        self.event = ConfirmationEvent(1, 0, 40, 42, "abcdef")
        self.creator = Key(1).address

    def deliver_at(self, height: int, message: Packed) -> tuple[str, int]:
        network = ChainInMemory(height=35)
        network.state.epochs = Epochs(10, EpochParams(epoch_length=100))
        network.state.confirmation = self.event
        return network.deliver_at(height, message)

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
        self.network = ChainInMemory()
        self.warm = Key(2)
        self.network.add_account(self.warm, 2)

    def deliver(self, *messages: Packed) -> tuple[str, int]:
        raw = self.network.tx(granted(self.warm.address, *messages), key=self.warm, account_number=2)
        return self.network.deliver(raw)

    def grant(self, type_url: str, expires_ns: int | None = None) -> None:
        self.network.state.grants[self.network.key.address, self.warm.address, type_url] = expires_ns

    def test_without_a_grant_only_the_block_says_no(self) -> None:
        self.assertEqual(self.deliver(self.network.batch()), ("authz", 2))
        self.grant(VALIDATION_URL)
        self.assertEqual(self.deliver(self.network.batch()), ("authz", 2), "granted for another message")

    def test_with_a_grant(self) -> None:
        self.grant(BATCH_URL)
        self.assertEqual(self.deliver(self.network.batch(), self.network.batch(batch_id="b-2")), OK)
        self.assertEqual(
            {key[1:] for key in self.network.state.batches},
            {(self.network.key.address, "b-1"), (self.network.key.address, "b-2")},
        )

    def test_an_expired_grant(self) -> None:
        self.grant(BATCH_URL, self.network.now_ns)
        self.assertEqual(self.deliver(self.network.batch()), ("authz", 6))

    def test_ones_own_message_needs_no_grant(self) -> None:
        self.assertEqual(self.deliver(batch(self.warm.address)), OK)

    def test_one_refused_message_undoes_the_others(self) -> None:
        self.grant(BATCH_URL)
        self.assertEqual(self.deliver(self.network.batch(), self.network.batch(node_id="")), ("inference", 1145))
        self.assertEqual(self.network.state.batches, {})
        self.assertIn("message index: 0", self.network.chain.ledger[-1].log)
