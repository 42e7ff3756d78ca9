"""What a host does so that it is paid follows from what the chain says, whatever was missed."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from dapi.messages import Kind, State, Via
from dapi.orchestration.hardware import pause_blocks
from dapi.orchestration.seed import seed_signature
from dapi.outbox.ledger import NodeLedger
from dapi.outbox.outbox import OutboxEntry
from dapi.phases.phases import EpochInfo, regular_stage
from dapi.simulator.chain.messages import HardwareNode, SubmitSeed
from dapi.simulator.chain.state import GroupMember, GroupNode, Model, SettleAmount
from tests.unit.orchestration.conductor_case import KEY, RETRY_SECONDS, head_at
from tests.unit.orchestration.host_case import MODEL, SECOND_POC, SETTLED, HostTestCase
from tests.unit.orchestration.test_claims import PARAMETERS
from tests.unit.phases.test_stage_queries import STAGE


class DeclaringTests(HostTestCase):
    def test_at_the_start_and_after_each_change(self) -> None:
        self.move(20)
        (row,) = self.rows(Kind.HARDWARE)
        self.assertEqual((row.state, row.height), (State.STORED, SECOND_POC))
        self.assertEqual([node.local_id for node in self.diff(row.batch_id).new_or_modified], ["a", "b"])
        self.include()
        self.move(21)
        self.broker.keep("a")
        self.settle()
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.CONFIRMED])
        self.assertEqual([node.local_id for node in self.diff(self.rows(Kind.HARDWARE)[0].batch_id).removed], ["b"])
        self.include()
        self.move(22)
        self.assertEqual(self.states(Kind.HARDWARE), [State.CONFIRMED, State.CONFIRMED])

    def test_one_at_a_time(self) -> None:
        self.move(20)
        for height in (21, 22):
            self.move(height)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED])
        # One that was not sent is superseded, which is no loss.
        self.broker.keep("a")
        self.settle()
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.EXPIRED])
        self.assertEqual(self.rows(Kind.HARDWARE)[1].reason, "superseded by a newer one")
        self.assertEqual(self.log.lines(containing="messages of stage"), [])
        # One that is in a transaction is waited for.
        self.send()
        self.broker.serve("a", MODEL, "another")
        self.rpc.state.models["another"] = Model("another")
        self.move(23)
        self.assertEqual(self.states(Kind.HARDWARE), [State.IN_FLIGHT, State.EXPIRED])

    def test_after_a_restart_it_is_not_stored_again(self) -> None:
        self.move(20)
        self.end()
        self.start()
        self.move(21)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED])

    def test_one_that_was_refused_is_made_again_with_the_next_poc(self) -> None:
        self.move(20)
        self.refuse("inference 1103: participant not found")
        for height in (21, 40):
            self.move(height)
        self.assertEqual(self.states(Kind.HARDWARE), [State.FAILED])
        self.move(SECOND_POC)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.FAILED])

    def test_or_once_it_says_something_else(self) -> None:
        self.move(20)
        self.refuse("inference 1134: invalid model")
        self.broker.keep("b")
        self.settle()
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.FAILED])

    def test_before_a_poc_it_is_looked_at_again(self) -> None:
        self.move(20)
        self.include()
        self.move(21)
        # Somebody else has changed it.
        del self.rpc.state.hardware_nodes[KEY.address, "a"]
        for height in range(22, SECOND_POC):
            self.move(height)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.CONFIRMED])
        (warning,) = self.told()
        self.assertEqual(warning, "what dapi declared on the chain was changed by somebody else, 1 times")
        self.include()
        self.broker.keep("a")
        self.settle()
        self.assertEqual(self.told(), [])

    def test_an_answer_of_the_time_before_it_tells_nothing(self) -> None:
        self.move(20)
        self.rpc.state.begin_block(22, 22)
        self.include()
        self.watcher.move(head_at(21))
        self.settle()
        self.assertEqual(self.states(Kind.HARDWARE), [State.CONFIRMED])
        self.move(22)
        self.assertEqual(self.states(Kind.HARDWARE), [State.CONFIRMED])

    def test_what_is_not_known_here_is_not_known_to_be_gone(self) -> None:
        self.rpc.state.hardware_nodes[KEY.address, "c"] = HardwareNode("c", 1, (MODEL,))
        self.broker.problem = "c: left out"
        self.move(20)
        (row,) = self.rows(Kind.HARDWARE)
        self.assertEqual(list(self.diff(row.batch_id).removed), [])
        self.include()
        self.broker.problem = None
        self.broker.keep()
        self.move(21)
        self.assertEqual(self.states(Kind.HARDWARE), [State.CONFIRMED])

    def test_a_query_that_fails_delays_it_and_keeps_nothing_else(self) -> None:
        self.rpc.failing = {"ModelsAll"}
        self.move(20)
        self.assertEqual(self.rows(Kind.HARDWARE), [])
        self.assertEqual(self.host.status()["problems"]["hardware_nodes"], "ModelsAll: no answer")
        self.assertEqual(self.version.value, "v3.0.8")
        self.rpc.failing = set()
        self.clock.advance(RETRY_SECONDS)
        self.settle()
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED])
        self.assertEqual(self.host.status()["problems"], {})

    def test_governance_without_any_model_takes_none_from_the_nodes(self) -> None:
        self.move(20)
        self.include()
        self.rpc.state.models.clear()
        for height in (30, 31, 45):
            self.move(height)
        self.assertEqual(self.states(Kind.HARDWARE), [State.CONFIRMED])
        self.assertEqual(self.told(), ["governance knows no model at all: no node is declared"])
        self.rpc.state.models[MODEL] = Model(MODEL)
        self.move(60)
        self.assertEqual(self.told(), [])

    def test_a_chain_that_cannot_be_asked_for_its_models(self) -> None:
        self.rpc.unknown = {"ModelsAll"}
        self.move(20)
        (row,) = self.rows(Kind.HARDWARE)
        self.assertEqual([list(node.models) for node in self.diff(row.batch_id).new_or_modified], [[MODEL], [MODEL]])
        self.assertEqual(self.host.status()["problems"], {})

    def test_one_that_another_chain_has_confirmed_is_made_again(self) -> None:
        self.move(20)
        self.finish(State.CONFIRMED, 20_000, None)
        self.move(21)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.CONFIRMED])

    def test_one_that_changes_nothing_is_not_made_at_each_block(self) -> None:
        self.move(20)
        # The chain has taken it, and shows what it showed before.
        self.finish(State.CONFIRMED, 20, None)
        # A quarter of this chain's epoch.
        for height in range(21, 30):
            self.move(height)
        self.assertEqual(self.states(Kind.HARDWARE), [State.CONFIRMED])
        self.assertIn("confirmed the declared nodes, and does not show them", self.told()[0])
        self.move(30)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.CONFIRMED])
        self.include()
        self.move(31)
        self.assertEqual(self.told(), [])

    def test_what_is_undone_just_before_a_poc_is_made_again_before_it_starts(self) -> None:
        self.move(SECOND_POC - 4)
        self.include()
        self.move(SECOND_POC - 3)
        del self.rpc.state.hardware_nodes[KEY.address, "a"]
        for height in (SECOND_POC - 2, SECOND_POC - 1):
            self.move(height)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED, State.CONFIRMED])

    def test_in_the_long_epochs_of_the_main_network_it_pauses_for_long(self) -> None:
        parameters = msgspec.structs.replace(PARAMETERS, epoch_length=17_280)
        info = EpochInfo(20, 1, STAGE, parameters, 200, None)
        self.assertEqual((pause_blocks(info, 40), pause_blocks(info, 10)), (40, 10))
        short = msgspec.structs.replace(PARAMETERS, epoch_length=18)
        self.assertEqual(pause_blocks(EpochInfo(20, 1, STAGE, short, 200, None), 40), 4)


class ClaimingTests(HostTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.owe(1)

    def owe(self, epoch: int, signature: str | None = None) -> None:
        signature = seed_signature(KEY, epoch) if signature is None else signature
        self.rpc.state.settle_amounts[KEY.address] = SettleAmount(KEY.address, 1000, epoch, signature)

    def test_from_the_settlement_on_and_once(self) -> None:
        self.move(SETTLED - 1)
        self.assertEqual(self.rows(Kind.CLAIM), [])
        self.move(SETTLED)
        (row,) = self.rows(Kind.CLAIM)
        self.assertEqual((row.batch_id, row.height, row.state), ("claim-1", SECOND_POC, State.STORED))
        self.move(SETTLED + 1)
        self.end()
        self.start()
        self.move(SETTLED + 2)
        self.assertEqual(self.states(Kind.CLAIM), [State.STORED])

    def test_a_missed_block_delays_it(self) -> None:
        self.move(SECOND_POC + 50)
        self.assertEqual(self.states(Kind.CLAIM), [State.STORED])

    def test_when_it_is_paid_nobody_asks_any_more(self) -> None:
        self.move(SETTLED)
        self.include("paid 1000: Rewards claimed successfully")
        self.rpc.state.settle_amounts.clear()
        self.move(SETTLED + 1)
        claim = self.successResultOf(Deferred.fromCoroutine(self.host.claims()))[1]
        self.assertEqual((claim.owed, claim.paid, claim.state), (0, 1000, State.CONFIRMED))
        self.assertTrue(self.log.lines(containing="epoch 1: 1000 were paid"))
        self.rpc.asked.clear()
        self.move(SETTLED + 2)
        self.assertNotIn("SettleAmount", self.rpc.asked)

    def test_an_epoch_that_is_settled_late(self) -> None:
        self.rpc.state.settle_amounts.clear()
        self.move(SETTLED)
        self.owe(1)
        self.move(SETTLED + 9)
        self.assertEqual(self.rows(Kind.CLAIM), [])
        self.move(SETTLED + 10)
        self.assertEqual(self.states(Kind.CLAIM), [State.STORED])

    def test_that_nothing_is_owed_is_said_once(self) -> None:
        self.rpc.state.settle_amounts.clear()
        for height in range(SETTLED, SETTLED + 30):
            self.move(height)
        self.assertEqual(len(self.log.lines(containing="epoch 1: nothing is owed")), 1)

    def test_confirmed_and_still_owed(self) -> None:
        self.move(SETTLED)
        self.include()
        self.move(SETTLED + 1)
        self.assertEqual(self.told(), ["epoch 1: 1000 are still owed, and the claim is confirmed"])

    def test_an_answer_of_the_time_before_it_tells_nothing(self) -> None:
        self.move(SETTLED)
        self.rpc.state.begin_block(SETTLED + 1, SETTLED + 1)
        self.include("paid 1000: Rewards claimed successfully")
        self.rpc.state.settle_amounts.clear()
        self.watcher.move(head_at(SETTLED))
        self.settle()
        self.assertEqual(self.told(), [])

    def test_nothing_owed_or_of_another_epoch(self) -> None:
        self.owe(2)
        self.move(SETTLED)
        self.assertEqual(self.told(), [])
        self.rpc.state.settle_amounts.clear()
        self.move(SECOND_POC + 40 + 19)
        self.assertEqual(self.rows(Kind.CLAIM), [])

    def test_a_seed_of_another_key(self) -> None:
        self.owe(1, "ab" * 64)
        self.move(SETTLED)
        self.assertEqual(self.rows(Kind.CLAIM), [])
        (warning,) = self.told()
        self.assertIn("another key signed its seed", warning)


class CountingTests(HostTestCase):
    """Epoch 1's validation ends with block 28."""

    def setUp(self) -> None:
        super().setUp()
        for node_id in ("a", "b"):
            entry = OutboxEntry(node_id, Kind.GENERATED, node_id, STAGE, 7, Via.HTTP, b"message")
            stored = self.outbox.put(entry)
            self.settle()
            self.successResultOf(stored)
        self.include()
        self.rpc.state.seeds[1, KEY.address] = SubmitSeed(KEY.address, 1, "ab")
        self.rpc.state.hardware_nodes.update(
            {
                (KEY.address, node_id): HardwareNode(node_id, 1, models)
                for node_id, models in (("a", (MODEL,)), ("b", ()))
            }
        )

    def weigh(self, effective: int) -> None:
        """Have the chain count node a alone."""
        groups = self.rpc.state.epoch_groups
        groups[1, ""] = (GroupMember(KEY.address, (), 7, effective),)
        groups[1, MODEL] = (GroupMember(KEY.address, (GroupNode("a", (True, False), 7),), 7, effective),)

    def earnings(self, node_id: str) -> dict[str, Any]:
        stage = regular_stage(PARAMETERS, 1, STAGE)
        return self.host.node_earnings(stage, node_id, NodeLedger(generated=1, confirmed=1))

    def test_confirmed_but_not_counted(self) -> None:
        self.move(28)
        self.assertIsNone(self.earnings("b")["not_counted"])
        self.weigh(7)
        self.move(29)
        self.assertEqual(self.earnings("a"), {"weight": 7, "not_counted": None})
        reason = "confirmed but not counted: governance knows none of its models"
        self.assertEqual(self.earnings("b"), {"weight": None, "not_counted": reason})
        told = "b: its batches of epoch 1 are confirmed but not counted: governance knows none of its models"
        for height in (30, 31, 45):
            self.assertEqual(self.told(), [told])
            self.move(height)

    def test_confirmations_change_the_weight(self) -> None:
        stage = regular_stage(PARAMETERS, 1, STAGE)
        self.weigh(7)
        self.move(29)
        self.weigh(3)
        self.move(39)
        earnings = self.host.earnings(stage, {})
        self.assertEqual(earnings, {"weight": 7, "effective_weight": 3, "claim": None})

    def test_the_weights_of_earlier_epochs_are_asked_for_after_a_restart(self) -> None:
        self.weigh(7)
        self.move(SECOND_POC + 25)
        self.assertEqual(self.earnings("a")["weight"], 7)
        self.assertEqual(self.earnings("b")["not_counted"], "confirmed but not counted: the chain does not count it")

    def test_an_epoch_that_the_chain_has_forgotten_says_nothing(self) -> None:
        self.move(SECOND_POC + 25)
        self.assertEqual(self.earnings("a"), {"weight": None, "not_counted": None})


class VersionTests(HostTestCase):
    def test_at_the_start_and_every_10_blocks(self) -> None:
        self.move(20)
        self.assertEqual(self.version.value, "v3.0.8")
        self.rpc.state.mlnode_version = "v3.0.9"
        self.move(29)
        self.assertEqual(self.version.value, "v3.0.8")
        self.move(30)
        self.assertEqual(self.version.value, "v3.0.9")

    def test_what_is_no_part_of_a_path(self) -> None:
        for epoch, version in enumerate(("v3/../x?y", "..")):
            self.rpc.state.mlnode_version = version
            self.move(20 + 40 * epoch)
            self.assertEqual(self.version.value, "")
            self.assertIn("is no part of a path", self.told()[0])


class PocV2Tests(HostTestCase):
    def test_in_a_network_with_poc_v2_nothing_is_declared_and_nothing_is_claimed(self) -> None:
        self.rpc.state.rules.poc_v2 = True
        self.move(SETTLED)
        self.assertEqual(set(self.rpc.asked), {"EpochInfo"})
        for kind in (Kind.HARDWARE, Kind.CLAIM):
            self.assertEqual(self.successResultOf(self.outbox.batches(kind=kind)).batches, [])
        self.rpc.state.rules.poc_v2 = False
        self.move(SETTLED + 1)
        self.assertEqual(self.states(Kind.HARDWARE), [State.STORED])
