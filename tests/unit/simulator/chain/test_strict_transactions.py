"""Transactions as the real chain takes them: docs/protocol/measured.md, 'Transactions on a real chain'."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.chain.rules import Rules
from tests.chain_tools import BATCH_URL, SECOND_NS, Key, Packed, granted
from tests.unit.simulator.chain.chain_in_memory import OK, ChainInMemory

LIMIT_LOG = "call limit exceeded: tx parse error"


class GrantedTestCase(SynchronousTestCase):
    """A participant, and a key that it granted the sending of batches."""

    def setUp(self) -> None:
        self.network = ChainInMemory()
        self.warm = Key(2)
        self.network.add_account(self.warm, 2)
        self.network.state.grants[self.network.key.address, self.warm.address, BATCH_URL] = None

    def wrapped(self, *messages: Packed) -> Packed:
        return granted(self.warm.address, *messages)

    def batches(self, number: int) -> list[Packed]:
        return [self.network.batch(batch_id=f"b-{number}", nonces=(number, number + 1000)) for number in range(number)]

    def tx(self, *messages: Packed) -> bytes:
        return self.network.tx(*messages, key=self.warm, account_number=2)


class LimitTests(GrantedTestCase):
    """At most 99 messages in one MsgExec."""

    def test_99_pass_and_100_do_not(self) -> None:
        self.assertEqual(self.network.deliver(self.tx(self.wrapped(*self.batches(99)))), OK)
        self.assertEqual(len(self.network.state.batches), 99)
        result = self.network.node.broadcast(self.tx(self.wrapped(*self.batches(100))))
        self.assertEqual((result.codespace, result.code, result.log), ("sdk", 2, LIMIT_LOG))

    def test_the_limit_is_that_of_each_exec(self) -> None:
        many = self.batches(180)
        self.assertEqual(self.network.deliver(self.tx(self.wrapped(*many[:90]), self.wrapped(*many[90:]))), OK)
        self.assertEqual(len(self.network.state.batches), 180)

    def test_one_exec_with_too_many_refuses_its_transaction(self) -> None:
        many = self.batches(101)
        raw = self.tx(self.wrapped(many[0]), self.wrapped(*many[1:]))
        self.assertEqual(self.network.check(raw), ("sdk", 2))

    def test_an_exec_each_has_no_limit_and_nor_have_plain_messages(self) -> None:
        many = self.batches(200)
        self.assertEqual(self.network.deliver(self.tx(*(self.wrapped(message) for message in many))), OK)
        self.assertEqual(self.network.deliver(self.network.tx(*many)), OK)

    def test_it_can_be_switched_off(self) -> None:
        self.network.state.rules = Rules(max_exec_messages=None)
        self.assertEqual(self.network.deliver(self.tx(self.wrapped(*self.batches(200)))), OK)


class FailureTests(GrantedTestCase):
    """One message that fails undoes its whole transaction, and the log says which one, or not."""

    def refused(self, number: int, bad: int) -> list[Packed]:
        messages = self.batches(number)
        messages[bad] = self.network.batch(batch_id="bad", node_id="")
        return messages

    def test_one_exec_each_names_the_culprit(self) -> None:
        record = self.network.record(self.tx(*(self.wrapped(message) for message in self.refused(60, 57))))
        self.assertEqual((record.codespace, record.code), ("inference", 1145))
        self.assertIn("failed to execute message; message index: 57: ", record.log)
        self.assertEqual(self.network.state.batches, {})
        self.assertEqual(record.data, b"")

    def test_inside_one_exec_the_index_is_always_0(self) -> None:
        record = self.network.record(self.tx(self.wrapped(*self.refused(60, 57))))
        self.assertIn("failed to execute message; message index: 0: ", record.log)
        self.assertNotIn("message index: 57", record.log)
        self.assertIn("bad", record.log)
        self.assertEqual(self.network.state.batches, {})

    def test_plain_messages_name_the_culprit(self) -> None:
        record = self.network.record(self.network.tx(*self.refused(6, 5)))
        self.assertIn("message index: 5: ", record.log)

    def test_a_stateless_check_inside_an_exec_is_made_at_delivery_only(self) -> None:
        messages = self.batches(3)
        messages[1] = self.network.batch(batch_id="bad", nonces=(-1, 2))
        record = self.network.record(self.tx(self.wrapped(*messages)))
        self.assertEqual((record.codespace, record.code), ("sdk", 18))
        self.assertEqual(self.network.state.batches, {})
        self.assertEqual(self.network.check(self.network.tx(*messages)), ("sdk", 18), "outside it is made at once")

    def test_a_missing_grant_is_seen_in_the_block_only(self) -> None:
        self.network.state.grants.clear()
        record = self.network.record(self.tx(self.wrapped(self.network.batch())))
        self.assertEqual((record.codespace, record.code), ("authz", 2))


class LateTests(SynchronousTestCase):
    """What is late by its own time, or by that of its window."""

    def setUp(self) -> None:
        self.network = ChainInMemory()

    def test_expired_while_the_chain_stood_it_comes_into_a_block_with_42(self) -> None:
        raw = self.network.tx(self.network.batch())
        self.assertEqual(self.network.check(raw), OK)
        # No block for 70 s.
        self.network.chain.produce_block(self.network.now_ns + 70 * SECOND_NS)
        (record,) = self.network.chain.latest.records
        self.assertEqual((record.codespace, record.code), ("sdk", 42))
        self.assertEqual(self.network.state.batches, {})
        self.assertEqual(self.network.deliver(self.network.tx(self.network.batch())), OK, "signed anew")

    def test_expired_with_blocks_coming_it_comes_into_none(self) -> None:
        raw = self.network.tx(self.network.batch())
        self.network.node.switches.is_catching_up = True
        self.assertEqual(self.network.check(raw), OK)
        for _ in range(14):
            self.network.chain.produce_block(self.network.now_ns + 5 * SECOND_NS)
            self.network.node.follow()
        self.assertEqual(len(self.network.node.mempool), 0)
        self.assertEqual(self.network.chain.ledger, [])

    def test_a_late_batch_has_three_codes(self) -> None:
        message = self.network.batch()
        self.assertEqual(self.network.deliver_at(23, message), ("inference", 1108), "its epoch is still upcoming")
        self.assertEqual(self.network.deliver_at(30, message), ("inference", 1128), "after set_new_validators")
        self.assertEqual(self.network.deliver_at(51, message), ("inference", 1107), "once another PoC has begun")

    def test_no_gas_limit_above_what_governance_allows_a_block(self) -> None:
        """See docs/protocol/chain.md, 'Transactions'."""
        self.network.state.rules.max_gas = 50_000_000
        self.assertEqual(self.network.check(self.network.tx(self.network.batch())), ("sdk", 41))
        raw = self.network.tx(self.network.batch(), gas_limit=50_000_000)
        self.assertEqual(self.network.check(raw), OK)

    def test_a_block_has_as_many_transactions_as_their_gas_limits_allow(self) -> None:
        """See docs/protocol/chain.md, 'Transactions'."""
        self.network.state.rules.max_gas = 50_000_000
        for number in range(3):
            raw = self.network.tx(self.network.batch(batch_id=f"b-{number}"), gas_limit=20_000_000)
            self.assertEqual(self.network.check(raw), OK)
        self.network.advance(self.network.chain.latest.height + 1)
        self.assertEqual(len(self.network.chain.ledger), 2)

    def test_a_transaction_that_uses_more_gas_than_its_limit_does_nothing(self) -> None:
        """See docs/protocol/chain.md, 'Transactions'."""
        batches = [self.network.batch(batch_id=f"b-{number}") for number in range(2)]
        self.assertEqual(self.network.deliver(self.network.tx(*batches, gas_limit=30_000)), ("sdk", 11))
        self.assertEqual(self.network.state.batches, {})
        self.assertEqual(self.network.deliver(self.network.tx(batches[0], gas_limit=30_000)), OK)
