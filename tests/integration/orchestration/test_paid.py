"""A whole dapi on the simulated chain is paid: its nodes are declared, and what it is owed is claimed, once.

Facts: docs/protocol/chain.md, 'Hardware nodes' and 'Claims'.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest_twisted
from twisted.logger import LogLevel

from dapi.broker.nodes import ModelConfig, NodeConfig
from dapi.messages import Kind, State
from dapi.messages.addresses import address_of
from dapi.outbox.pages import BatchRow
from dapi.simulator.chain.messages import ClaimRewards, HardwareNode
from dapi.simulator.chain.state import Model
from dapi.simulator.ml_node.node import SimulatedMLNode
from tests.chain_tools import BATCH_URL, CLAIM_URL, HARDWARE_URL, SEED_URL, VALIDATION_URL, Key
from tests.diagnosis import told
from tests.integration.waiting import soon, until
from tests.integration.whole_dapi import (
    FIRST_POC,
    SECOND_POC,
    VALIDATION_START,
    WholeDapi,
    until_answered,
    when_all_is_delivered,
    when_in,
)
from tests.logs import Log, captured_log

REWARD = 1_000_000


class PaidDapi(WholeDapi):
    """A whole dapi, with what tests of money look at."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, block_seconds=0.2)
        # Of nodes that are registered otherwise than they are.
        self.configs: dict[str, NodeConfig] = {}

    def config_of(self, node: SimulatedMLNode) -> NodeConfig:
        return self.configs.get(node.node_name, super().config_of(node))

    def with_models(self, name: str, *models: str) -> None:
        """Have a node registered with these models."""
        config = super().config_of(self.nodes[name])
        self.configs[name] = msgspec.structs.replace(config, models={model: ModelConfig() for model in models})

    @property
    def address(self) -> str:
        return address_of(self.key.public_key.hex())

    def declared(self) -> dict[str, tuple[str, ...]]:
        """The models of the nodes that the chain has."""
        nodes = self.chain.state.hardware_nodes
        return {local_id: node.models for (address, local_id), node in nodes.items() if address == self.address}

    async def rows(self, kind: Kind) -> list[BatchRow]:
        assert self.service is not None
        return (await self.service.outbox.batches(kind=kind)).batches

    async def epoch(self, index: int) -> dict[str, Any]:
        """The ledger of an epoch's regular PoC, as GET epochs shows it."""
        (epoch,) = [epoch for epoch in await self.phases.latest_stages(5) if epoch["epoch_index"] == index]
        return epoch

    async def when_claimed(self, state: State) -> BatchRow:
        """Wait until the claim for epoch 1 is in this state."""

        async def is_claimed() -> bool:
            return [row.state for row in await self.rows(Kind.CLAIM)] == [state]

        await until_answered(is_claimed)
        (row,) = await self.rows(Kind.CLAIM)
        return row

    async def when_generated(self) -> None:
        """Come to epoch 1's PoC, and wait until the chain has some batches of each node, and no more are made."""
        self.produce_to(FIRST_POC)
        await self.when_all("generate")
        for node in self.nodes.values():
            await soon(node.ledger.when_delivered(1))
            node.settings.batches_per_walk = 0
            await when_all_is_delivered(node)
        await self.when_nothing_is_left()

    async def when_validated(self) -> None:
        """Come through epoch 1's PoC, up to the block after the one that sets its validators."""
        await self.when_generated()
        self.produce_to(VALIDATION_START)
        await until(lambda: self.chain.state.validations)
        await self.when_nothing_is_left()
        self.produce_to(self.chain.state.epochs.set_new_validators(FIRST_POC) + 1)

    async def when_settled(self) -> None:
        """Come to the block that settles epoch 1; epoch 2 needs weight for nothing that is looked at here."""
        await self.when_validated()
        await self.when_all(None)
        self.produce_to(self.chain.state.epochs.set_new_validators(SECOND_POC))


@pytest_twisted.async_yield_fixture
async def paid(tmp_path: Path) -> AsyncIterator[PaidDapi]:
    """All of it, stopped at the end."""
    paid = PaidDapi(tmp_path)
    yield paid
    await paid.end()


@pytest_twisted.ensureDeferred
async def test_nothing_declared_at_the_start_and_paid_after_the_first_full_epoch(paid: PaidDapi) -> None:
    paid.node("node1")
    paid.node("node2", websocket=False)
    assert not paid.chain.state.hardware_nodes
    paid.start()
    await paid.when_settled()
    row = await paid.when_claimed(State.CONFIRMED)
    assert row.reason == f"paid {REWARD}: Rewards claimed successfully"
    assert paid.chain.state.balances == {paid.address: REWARD}
    assert paid.declared() == {"node1": ("simulated",), "node2": ("simulated",)}
    assert [row.state for row in await paid.rows(Kind.HARDWARE)] == [State.CONFIRMED]

    async def is_told() -> bool:
        return bool((await paid.epoch(1))["claim"].owed == 0)

    await until_answered(is_told)
    epoch = await paid.epoch(1)
    assert epoch["weight"] == epoch["effective_weight"] > 0
    assert (epoch["claim"].paid, epoch["claim"].state) == (REWARD, State.CONFIRMED)
    weights = [epoch["nodes"][name]["weight"] for name in ("node1", "node2")]
    assert sum(weights) == epoch["weight"]
    assert all(weights)
    assert [node["not_counted"] for node in epoch["nodes"].values()] == [None] * len(epoch["nodes"])


@pytest_twisted.ensureDeferred
async def test_an_unknown_model_is_left_out_and_told(paid: PaidDapi) -> None:
    paid.node("node1")
    paid.node("node2")
    paid.with_models("node1", "simulated", "unheard-of")
    paid.with_models("node2", "unheard-of")
    with captured_log() as log:
        await until_the_unknown_model_is_told(paid, log)
    # Governance learns of the model: the next diff says so by itself.
    paid.chain.state.models["unheard-of"] = Model("unheard-of")
    await until(lambda: paid.declared() == {"node1": ("simulated", "unheard-of"), "node2": ("unheard-of",)})


async def until_the_unknown_model_is_told(paid: PaidDapi, log: Log) -> None:
    paid.start()
    await until(lambda: paid.declared() == {"node1": ("simulated",), "node2": ()})
    await paid.when_validated()

    async def is_told() -> bool:
        # Before the chain was asked for what it knows of the nodes, it is told without its reason.
        not_counted = str((await paid.epoch(1))["nodes"]["node2"]["not_counted"])
        return not_counted == "confirmed but not counted: governance knows none of its models"

    await until_answered(is_told)
    assert (await paid.epoch(1))["nodes"]["node1"]["not_counted"] is None
    for problem in (
        "node1: governance knows no model unheard-of: declared without",
        "node2: governance knows no model unheard-of: declared without",
        "node2: its batches of epoch 1 are confirmed but not counted: governance knows none of its models",
    ):
        await until(partial(is_said, paid, log, problem))


def is_said(paid: PaidDapi, log: Log, problem: str) -> bool:
    """Whether the status says it, and the log has said it once."""
    return problem in told(paid.phases.status()) and len(log.warnings(problem)) == 1


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_added_renamed_or_removed_while_dapi_runs(paid: PaidDapi) -> None:
    paid.node("node1")
    service = paid.start()
    await until(lambda: paid.declared() == {"node1": ("simulated",)})
    second = paid.node("node2")
    await service.broker.add_node(paid.config_of(second))
    await until(lambda: set(paid.declared()) == {"node1", "node2"})
    await service.broker.remove_node("node2")
    await until(lambda: set(paid.declared()) == {"node1"})
    # The same change again is another message.
    await service.broker.add_node(paid.config_of(second))
    await until(lambda: set(paid.declared()) == {"node1", "node2"})
    # The last one is told nobody: rather a dapi without its database than a host without nodes.
    await service.broker.remove_node("node1")
    await until(lambda: set(paid.declared()) == {"node2"})
    await service.broker.remove_node("node2")
    await soon(paid.chain.when_height(paid.chain.height + 5))
    assert set(paid.declared()) == {"node2"}
    assert len(await paid.rows(Kind.HARDWARE)) == 5


@pytest_twisted.ensureDeferred
async def test_no_phase_changes_what_is_declared(paid: PaidDapi) -> None:
    node = paid.node("node1")
    paid.start()
    await until(paid.declared)
    await paid.when_validated()
    await when_in(node, None)
    await soon(paid.chain.when_height(paid.chain.height + 5))
    assert len(await paid.rows(Kind.HARDWARE)) == 1


@pytest_twisted.ensureDeferred
async def test_a_claim_that_is_refused_with_code_0_is_loud(paid: PaidDapi) -> None:
    paid.node("node1")
    paid.chain.state.missed_inference_validations.add(paid.address)
    paid.start()
    with captured_log() as log:
        await paid.when_settled()
        row = await paid.when_claimed(State.FAILED)
        # The row is written before the line is: wait for both.
        loud = f"1 claim messages of stage {SECOND_POC} failed: not paid: Inference validation missed"
        await until(lambda: log.lines(LogLevel.error, loud))
    assert row.reason == "not paid: Inference validation missed significantly"
    assert not paid.chain.state.balances
    still_owed = f"epoch 1: {REWARD} are still owed, and the claim is failed ({row.reason})"
    await until(lambda: still_owed in told(paid.phases.status()))
    epoch = await paid.epoch(1)
    assert (epoch["claim"].owed, epoch["claim"].paid, epoch["claim"].reason) == (REWARD, None, row.reason)
    # Once the cause is gone, an operator has it sent again.
    paid.chain.state.missed_inference_validations.clear()
    assert paid.service is not None
    await paid.service.outbox.retry(row.batch_id)
    await paid.when_claimed(State.CONFIRMED)
    assert paid.chain.state.balances == {paid.address: REWARD}
    await until(lambda: not [problem for problem in told(paid.phases.status()) if "owed" in problem])


@pytest_twisted.ensureDeferred
async def test_restarted_between_the_storing_of_a_claim_and_its_confirmation(paid: PaidDapi) -> None:
    paid.node("node1")
    paid.start()
    await paid.when_settled()
    # No block comes until dapi was restarted: the claim is in a transaction at the most.
    paid.chain.is_halted = True

    async def is_stored() -> bool:
        return bool(await paid.rows(Kind.CLAIM))

    await until_answered(is_stored)
    assert not paid.chain.state.balances
    await paid.stop()
    paid.start()
    paid.chain.is_halted = False
    await paid.when_claimed(State.CONFIRMED)
    await soon(paid.chain.when_height(paid.chain.height + 3))
    assert paid.chain.state.balances == {paid.address: REWARD}
    claims = [each for each in paid.chain.blockchain.ledger if isinstance(each.message, ClaimRewards)]
    assert len(claims) == len(await paid.rows(Kind.CLAIM)) == 1


@pytest_twisted.ensureDeferred
async def test_paid_through_a_granted_key(paid: PaidDapi) -> None:
    participant = Key(2)
    paid.chain.add_account(participant.public)
    state = paid.chain.state
    # Genesis gave the only weight to the account that signs here.
    state.participants.update({paid.address: 0, participant.address: 1})
    for url in (BATCH_URL, VALIDATION_URL, SEED_URL, HARDWARE_URL, CLAIM_URL):
        paid.chain.grant(participant.address, paid.address, url)
    # Once it has sent anything, the chain shows its public key.
    account = state.accounts[participant.address]
    state.accounts[participant.address] = msgspec.structs.replace(account, public_key=participant.public)
    paid.chain_settings = {"account_public_key": base64.b64encode(participant.public).decode()}
    paid.node("node1")
    paid.start()
    await paid.when_settled()
    row = await paid.when_claimed(State.CONFIRMED)
    assert row.reason == f"paid {REWARD}: Rewards claimed successfully"
    assert state.balances == {participant.address: REWARD}


@pytest_twisted.ensureDeferred
async def test_nodes_are_called_below_the_chains_version_where_they_answer_there(paid: PaidDapi) -> None:
    behind_nginx = paid.node("node1", prefix="/v3.0.8")
    bare = paid.node("node2")
    # The host's own word for a node goes before the chain's.
    other = paid.node("node3", prefix="/v9")
    paid.configs["node3"] = msgspec.structs.replace(paid.config_of(other), version="v9")
    assert paid.chain.state.mlnode_version == "v3.0.8"
    service = paid.start()
    with captured_log() as log:
        paid.produce_to(FIRST_POC)
        for node in (behind_nginx, bare, other):
            await when_in(node, "generate")
            # The WebSocket is reached without the version.
            await soon(node.ledger.when_delivered(1, via="websocket"))
        assert len(log.warnings("node2: answers 404 below /v3.0.8, and is used without that")) <= 1
    first, second, third = service.broker.status().nodes
    assert (third.version, third.version_problem) == ("", None)
    assert (first.version, first.version_problem) == ("v3.0.8", None)
    assert (second.version, second.version_problem) == ("", "answers 404 below /v3.0.8, and is used without that")
    assert paid.phases.status()["host"]["node_version"].version == "v3.0.8"


@pytest_twisted.ensureDeferred
async def test_nodes_serve_with_the_networks_arguments_and_those_of_their_own_beside_them(paid: PaidDapi) -> None:
    # docs/protocol/chain.md, 'Arguments of models'
    node = paid.node("node1")
    own = ModelConfig(args=("--quantization", "awq", "--max-num-seqs", "4"))
    paid.configs["node1"] = msgspec.structs.replace(paid.config_of(node), models={"simulated": own})
    state = paid.chain.state
    state.models["simulated"] = Model("simulated", model_args=("--quantization", "fp8"))
    state.epoch_groups[0, ""] = state.epoch_groups[0, "simulated"] = ()
    paid.start()
    await until(lambda: node.inference.arguments == ["--quantization", "fp8", "--max-num-seqs", "4"])


@pytest_twisted.ensureDeferred
async def test_switched_off_nothing_is_sent(paid: PaidDapi) -> None:
    paid.node("node1")
    paid.chain_settings = {"declare_nodes": False, "claim_rewards": False}
    # The network's own software declares them.
    node = HardwareNode("node1", 1, ("simulated",))
    paid.chain.state.hardware_nodes[paid.address, node.local_id] = node
    paid.start()
    await paid.when_settled()
    await soon(paid.chain.when_height(paid.chain.height + 5))
    assert paid.chain.state.settle_amounts[paid.address].reward_coins == REWARD
    assert not await paid.rows(Kind.CLAIM)
    assert not await paid.rows(Kind.HARDWARE)
    assert not paid.chain.state.balances
