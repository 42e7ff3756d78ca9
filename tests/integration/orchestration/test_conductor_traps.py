"""What goes wrong for other software at a stage's edges, on a whole dapi: counted on the simulated chain's ledger."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from twisted.internet.task import deferLater

from dapi.messages import Kind, State
from dapi.orchestration.conductor import Conductor
from dapi.orchestration.validation import ValidationSettings
from dapi.simulator.chain.messages import SubmitPocValidation, SubmitSeed
from dapi.simulator.chain.state import GroupMember, GroupNode
from dapi.simulator.ml_node.node import SimulatedMLNode
from tests.chain_tools import SECOND_NS, Key, batch, transaction
from tests.integration.whole_world import FIRST_POC, LONG, PATIENCE_SECONDS, World, phase_of, reactor, world

__all__ = ["world"]

VALIDATION_START = FIRST_POC + LONG.poc_stage_duration + LONG.poc_validation_delay
SECOND_POC = FIRST_POC + LONG.epoch_length
VALIDATE = "/api/v1/pow/validate"


def conductor_of(world: World) -> Conductor:
    assert world.service is not None
    assert world.service.chain is not None
    assert world.service.chain.conductor is not None
    return world.service.chain.conductor


def taken(world: World, message_type: type) -> list[Any]:
    """All messages of a type that the chain took, in order."""
    return [
        one.message for one in world.chain.blockchain.ledger if isinstance(one.message, message_type) and not one.code
    ]


def calls(node: SimulatedMLNode, path: str) -> int:
    return sum(call.path == path for call in node.ledger.calls)


async def when_seen(world: World, height: int) -> None:
    """Wait until the conductor has done what is to be done at a height."""
    conductor = conductor_of(world)
    await world.when(
        lambda: conductor.situation is not None and conductor.situation.height >= height, f"height {height} is seen"
    )


@pytest_twisted.ensureDeferred
async def test_one_seed_an_epoch_over_restarts(world: World) -> None:
    world.node("node1")
    for height in (FIRST_POC, FIRST_POC + 2, SECOND_POC, SECOND_POC + 1):
        world.start()
        world.produce_to(height)
        await when_seen(world, height)
        # Each start finds the seed of its epoch on disk: sent or not.
        epoch = 1 if height < SECOND_POC else 2
        await world.when(lambda epoch=epoch: (epoch, world.key.address) in world.chain.state.seeds, "the seed")
        await world.stop()
    assert [seed.epoch_index for seed in taken(world, SubmitSeed)] == [1, 2]


@pytest_twisted.ensureDeferred
async def test_what_missed_its_window_expires_and_is_told(world: World) -> None:
    node = world.node("node1", batches_per_walk=0)
    service = world.start()
    world.produce_to(FIRST_POC)
    await world.when_all("generate")
    await when_seen(world, FIRST_POC)
    conductor = conductor_of(world)
    await world.chain.stopService()
    await world.when(lambda: "not reachable" in str(conductor.status()["problem"]), "the problem")
    node.settings.batches_per_walk = 1
    await node.ledger.when_delivered(3).addTimeout(PATIENCE_SECONDS, reactor)
    node.settings.batches_per_walk = 0
    await world.when(lambda: node.ledger.counts["made"] == node.ledger.counts["delivered"], "all is delivered")
    last = FIRST_POC + LONG.poc_stage_duration + LONG.poc_exchange_duration
    world.produce_to(last)
    world.chain.startService()
    await when_seen(world, last)
    deadline = reactor.seconds() + PATIENCE_SECONDS
    # The submitter may have been faster than the conductor with some: those are refused by the chain.
    while (counts := await service.outbox.counts())[State.STORED] or counts[State.IN_FLIGHT]:
        assert reactor.seconds() < deadline, counts
        await deferLater(reactor, 0.05)
    page = await service.outbox.batches(kind=Kind.GENERATED)
    assert len(page.batches) >= 3
    assert {row.state for row in page.batches} == {State.EXPIRED}
    (stage,) = await conductor.epochs(5)
    ledger = stage["nodes"]["node1"]
    assert (stage["height"], ledger.expired, ledger.confirmed) == (FIRST_POC, len(page.batches), 0)
    # The chain never heard of them, and the nodes went on to the next phase.
    world.produce_to(VALIDATION_START)
    await world.when_all("validate")
    assert not world.chain.state.batches


@pytest_twisted.ensureDeferred
async def test_nodes_of_a_poc_slot_serve_inference_all_the_time(world: World) -> None:
    kept, other = world.node("node1"), world.node("node2")
    groups = world.chain.state.epoch_groups
    # It is the group of the epoch in force that tells; that of the next one is in preparation.
    groups[1, ""] = (GroupMember(world.key.address),)
    groups[1, "simulated"] = (
        GroupMember(world.key.address, (GroupNode("node1", (True, True)), GroupNode("node2", (True, False)))),
        GroupMember(Key(9).address, (GroupNode("node2", (True, True)),)),
    )
    world.start()
    world.produce_to(SECOND_POC - 2)
    await world.when_all(None)
    inits = calls(kept, "/api/v1/pow/init/generate")
    for height, phase in ((SECOND_POC, "generate"), (SECOND_POC + VALIDATION_START - FIRST_POC, "validate")):
        world.produce_to(height)
        await world.when(lambda phase=phase: phase_of(other) == phase, f"node2: {phase}", 10)
        assert phase_of(kept) is None
        # What node2 delivers the chain drops, for the sake of another participant's node of that id.
        await world.when(
            lambda: "node2: another participant's node of this id" in str(conductor_of(world).status()["warnings"]),
            "the warning",
        )
        # Nor does a restart in the middle of PoC take it for one that does.
        await world.stop()
        world.start()
        await when_seen(world, height)
        await world.when(lambda phase=phase: phase_of(other) == phase, f"node2: {phase}", 10)
    assert phase_of(kept) is None
    assert calls(kept, "/api/v1/pow/init/generate") == inits
    assert calls(kept, "/api/v1/pow/init/validate") == 0


@pytest_twisted.ensureDeferred
async def test_a_node_that_answers_nothing_is_started_anew(world: World) -> None:
    node = world.node("node1")
    service = world.start()
    assert service.chain is not None
    service.chain.validation_settings = ValidationSettings(
        retry_min_seconds=0.1, retry_max_seconds=0.2, look_seconds=0.1, silent_seconds=0.7, absent_seconds=0.2
    )
    world.produce_to(FIRST_POC)
    await world.when_all("generate")
    await node.ledger.when_delivered(1).addTimeout(PATIENCE_SECONDS, reactor)
    await world.when(lambda: world.chain.state.batches, "a batch is on the chain")
    world.produce_to(VALIDATION_START - 1)
    await world.when_all("validate")
    silent = node.run
    assert silent is not None
    silent.kill_sender()
    world.produce_to(VALIDATION_START)
    await world.when(lambda: node.run not in (None, silent) and phase_of(node) == "validate", "started anew")
    assert calls(node, "/api/v1/stop") == 1
    address = world.key.address
    await world.when(lambda: (FIRST_POC, address, address) in world.chain.state.validations, "its verdict")


def submit_for_others(world: World, keys: list[Key]) -> None:
    """Have batches of other participants in the next block."""
    for key in keys:
        number = world.chain.add_account(key.public).number
        raw = transaction(
            key,
            batch(key.address, height=FIRST_POC),
            timeout_ns=world.chain.blockchain.latest.time_ns + 60 * SECOND_NS,
            account_number=number,
        )
        assert world.chain.blockchain.broadcast(raw).code == 0


@pytest_twisted.ensureDeferred
async def test_a_restart_in_mid_validation_goes_on_where_it_was(world: World) -> None:
    node = world.node("node1")
    others = [Key(seed) for seed in range(2, 6)]
    # Blocks by hand: the validation is not over before it has queried again, two blocks later.
    world.chain.switches.is_halted = True
    world.start()
    world.produce_to(FIRST_POC)
    await world.when_all("generate")
    node.settings.batches_per_walk = 0
    submit_for_others(world, others)
    world.produce_to(VALIDATION_START)
    everybody = {key.address for key in others} | {world.key.address}

    def are_answered() -> bool:
        validation = conductor_of(world).status()["validation"] or {"participants": 0}
        return validation["participants"] >= len(others) and validation["unanswered"] == 0

    await world.when(are_answered, "all are validated")
    await world.stop()
    handed = calls(node, VALIDATE)
    assert handed >= len(others)
    world.start()
    await world.when(are_answered, "what was done before is known")
    world.chain.switches.is_halted = False
    height = world.chain.height
    await world.when(
        lambda: (
            {participant for stage, participant, _ in world.chain.state.validations} <= everybody
            and len(world.chain.state.validations) >= len(others)
        ),
        "the verdicts are on the chain",
    )
    world.produce_to(height + 3)

    deadline = reactor.seconds() + PATIENCE_SECONDS
    while not (await conductor_of(world).epochs(1))[0]["is_handed_out"]:
        assert reactor.seconds() < deadline
        await deferLater(reactor, 0.05)
    # Nobody was validated a second time.
    assert calls(node, VALIDATE) == handed
    verdicts = [verdict.participant_address for verdict in taken(world, SubmitPocValidation)]
    assert sorted(verdicts) == sorted(set(verdicts))


@pytest_twisted.ensureDeferred
async def test_a_chain_that_catches_up_drives_nothing(world: World) -> None:
    node = world.node("node1")
    world.chain.switches.is_catching_up = True
    world.start()
    conductor = conductor_of(world)
    await world.when(lambda: conductor.status()["problem"] == "catching up", "the problem")
    for height in (FIRST_POC, VALIDATION_START, FIRST_POC + 100, SECOND_POC + 1):
        world.produce_to(height)
        await world.chain.when_height(height + 1).addTimeout(PATIENCE_SECONDS, reactor)
    assert phase_of(node) == "nothing"
    assert not node.ledger.calls
    assert conductor.situation is None
    assert not conductor.restart_advice()["safe"]
    world.chain.switches.is_catching_up = False
    await world.when_all("generate")
    assert not world.chain.state.seeds.get((1, world.key.address))
