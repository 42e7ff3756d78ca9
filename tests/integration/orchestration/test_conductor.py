"""A whole dapi between a simulated chain and simulated nodes: the phases drive the nodes, whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted

from dapi.orchestration.stage_work import QUIET_SECONDS
from dapi.simulator.chain.epochs import ConfirmationEvent, EpochParams
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.websocket.client import WebSocketState
from tests.integration.whole_world import (
    FIRST_POC,
    LONG,
    PATIENCE_SECONDS,
    SOON_SECONDS,
    World,
    phase_of,
    reactor,
    world,
)

__all__ = ["world"]

GENERATION_END = FIRST_POC + LONG.poc_stage_duration
VALIDATION_START = GENERATION_END + LONG.poc_validation_delay
VALIDATION_END = VALIDATION_START + LONG.poc_validation_duration
# The first height of each phase, and what nodes do from then on.
BOUNDARIES = (
    (FIRST_POC, "generate"),
    (GENERATION_END + LONG.poc_exchange_duration - 2, "validate"),
    (VALIDATION_START, "validate"),
    (VALIDATION_END, None),
)


@pytest_twisted.async_yield_fixture
async def short_world(tmp_path: Path) -> AsyncIterator[World]:
    """All of it, with a test chain's short epochs."""
    world = World(tmp_path, EpochParams(), block_seconds=0.4)
    yield world
    await world.end()


@pytest_twisted.ensureDeferred
async def test_whole_epochs_by_itself(short_world: World) -> None:
    world = short_world
    world.node("node1")
    world.node("node2", websocket=False)
    world.start()
    for epoch in (1, 2):
        start = FIRST_POC + 40 * (epoch - 1)
        world.produce_to(start - 2)
        for height, phase in ((start + 2, "generate"), (start + 13, "validate"), (start + 20, None)):
            await world.chain.when_height(height).addTimeout(PATIENCE_SECONDS, reactor)
            await world.when_all(phase)
        assert (epoch, world.key.address) in world.chain.state.seeds
        batches = [batch for (height, _, _), batch in world.chain.state.batches.items() if height == start]
        assert {batch.message.node_id for batch in batches} == {"node1", "node2"}
        # We are the only participant, and have validated ourselves.
        assert (start, world.key.address, world.key.address) in world.chain.state.validations
    await world.when_nothing_is_left()


@pytest.mark.parametrize(("boundary", "phase"), BOUNDARIES)
@pytest_twisted.ensureDeferred
async def test_restarted_at_a_phase_boundary(world: World, boundary: int, phase: str | None) -> None:
    world.node("node1")
    world.node("node2", websocket=False)
    world.start()
    world.produce_to(FIRST_POC + 1 if boundary > FIRST_POC else boundary - 2)
    await world.when_all("generate" if boundary > FIRST_POC else None)
    world.produce_to(boundary - 2)
    await world.stop()
    world.produce_to(boundary + 1)
    world.start()
    await world.when_all(phase)
    world.produce_to(VALIDATION_END)
    await world.when_all(None)


@pytest_twisted.ensureDeferred
async def test_nodes_that_generate_are_not_disturbed_by_a_restart(world: World) -> None:
    node = world.node("node1")
    world.start()
    world.produce_to(FIRST_POC)
    await world.when_all("generate")
    await node.ledger.when_delivered(3).addTimeout(PATIENCE_SECONDS, reactor)
    run = node.run
    await world.stop()
    world.start()
    by_websocket = node.ledger.counts["websocket"]
    # Its WebSocket is open again within 10 s, and it is the same run that uses it.
    await node.ledger.when_delivered(by_websocket + 2, via="websocket").addTimeout(10, reactor)
    assert node.run is run
    await world.when_nothing_is_left()


@pytest.mark.parametrize(
    ("height", "phase"), [(FIRST_POC + 2, "generate"), (VALIDATION_START + 2, "validate"), (VALIDATION_END + 2, None)]
)
@pytest_twisted.ensureDeferred
async def test_node_restarted_in_a_phase(world: World, height: int, phase: str | None) -> None:
    node, other = world.node("node1"), world.node("node2")
    world.start()
    world.produce_to(height)
    await world.when_all(phase)
    run = other.run
    await node.crash()
    node.startService()
    assert phase_of(node) == "nothing"
    await world.when_all(phase)
    assert other.run is run


@pytest_twisted.ensureDeferred
async def test_chain_websocket_cut_and_chain_away(world: World) -> None:
    world.node("node1")
    world.start()
    world.produce_to(FIRST_POC)
    await world.when_all("generate")
    # All of its connections are lost, and the generation ends while nobody can ask it.
    await world.chain.restart(down_seconds=1.0)
    world.produce_to(VALIDATION_START)
    await world.when_all("validate")


@pytest_twisted.ensureDeferred
async def test_chain_halted_over_a_boundary(world: World) -> None:
    world.node("node1")
    world.start()
    world.produce_to(GENERATION_END - 2)
    await world.when_all("generate")
    world.chain.switches.is_halted = True
    await world.when(
        lambda: (
            world.service is not None
            and world.service.chain is not None
            and "halted" in str(world.service.chain.submitter.status()["reason"])
        ),
        "the halt is noticed",
    )
    # Deadlines stand still: what is generated meanwhile is kept, and confirmed when the chain goes on.
    assert phase_of(world.nodes["node1"]) == "generate"
    world.chain.switches.is_halted = False
    world.produce_to(GENERATION_END + 4)
    await world.when_all("validate")
    await world.when_nothing_is_left()


@pytest_twisted.ensureDeferred
async def test_a_jump_of_50_blocks(world: World) -> None:
    world.node("node1")
    world.start()
    world.produce_to(FIRST_POC)
    await world.when_all("generate")
    world.produce_to(FIRST_POC + 50)
    await world.when_all("validate")
    world.produce_to(FIRST_POC + 100)
    await world.when_all(None)


def stage_of(node: SimulatedMLNode) -> tuple[int, int] | None:
    """The stage that a node works in, and the node count that it was told."""
    return (node.run.request.block_height, node.run.request.node_count) if node.run is not None else None


@pytest_twisted.ensureDeferred
async def test_node_added_and_removed_in_the_middle_of_a_stage(world: World) -> None:
    first = world.node("node1")
    service = world.start()
    world.produce_to(FIRST_POC)
    await world.when_all("generate")
    run = first.run
    second = world.node("node2")
    await service.broker.add_node(world.config_of(second))
    # Another node count would restart the first one: the second serves inference, and joins at the next PoC.
    await world.when(lambda: phase_of(second) is None, "node2 serves inference", 10)
    assert first.run is run
    second_poc = FIRST_POC + LONG.epoch_length
    world.produce_to(second_poc)
    for node in (first, second):
        await world.when(lambda node=node: stage_of(node) == (second_poc, 3), f"{node.node_name} joins", SOON_SECONDS)
    await service.broker.remove_node("node1")
    world.produce_to(second_poc + LONG.poc_stage_duration + 5)
    await world.when(lambda: phase_of(second) == "validate", "node2 validates", SOON_SECONDS)
    # Nobody tells the removed one anything any more.
    assert phase_of(first) == "generate"


@pytest_twisted.ensureDeferred
async def test_a_disabled_node_is_left_alone(world: World) -> None:
    first, second = world.node("node1"), world.node("node2")
    service = world.start()
    await service.broker.register_missing([])
    await service.broker.disable_node("node2")
    world.produce_to(FIRST_POC)
    await world.when(lambda: phase_of(first) == "generate", "node1 generates", 10)
    assert phase_of(second) == "nothing"
    await service.broker.enable_node("node2")
    await world.when_all("generate")


@pytest.mark.parametrize("restarts", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_confirmation_in_the_inference_phase(world: World, restarts: bool) -> None:
    node = world.node("node1")
    world.start()
    world.produce_to(VALIDATION_END + 2)
    await world.when_all(None)
    trigger = world.chain.height
    start = trigger + 3
    world.chain.state.confirmation = ConfirmationEvent(1, 1, trigger, start, "")
    world.produce_to(start)
    world.chain.state.confirmation = ConfirmationEvent(1, 1, trigger, start, "ab" * 32)
    await world.when_all("generate")
    run = node.run
    assert run is not None
    assert (run.request.block_height, run.request.block_hash) == (trigger, "ab" * 32)
    await node.ledger.when_delivered(2).addTimeout(PATIENCE_SECONDS, reactor)
    if restarts:
        await world.stop()
        world.start()
        by_websocket = node.ledger.counts["websocket"]
        await node.ledger.when_delivered(by_websocket + 1, via="websocket").addTimeout(10, reactor)
        assert node.run is run
    # Blocks that are made at once leave no time for what is under way: nothing may be when the window's end is near.
    node.settings.batches_per_walk = 0
    await world.when(lambda: node.ledger.counts["made"] == node.ledger.counts["delivered"], "all is delivered")
    await world.when_nothing_is_left()
    exchange_end = start + LONG.poc_stage_duration - 1 + LONG.poc_exchange_duration
    world.produce_to(exchange_end - 2)
    await world.when_all("validate")
    if restarts:
        await world.stop()
        world.start()
        await world.when(lambda: is_websocket_open(world), "the WebSocket is open again", 10)
        assert node.run is run
    world.produce_to(exchange_end + LONG.poc_validation_delay + LONG.poc_validation_duration)
    await world.when_all(None)
    await world.when_nothing_is_left()
    assert {height for height, _, _ in world.chain.state.batches} == {trigger}


def is_websocket_open(world: World) -> bool:
    """Whether dapi has the WebSockets of all nodes open."""
    assert world.service is not None
    nodes = world.service.broker.status().nodes
    return bool(nodes) and all(node.websocket.state is WebSocketState.OPEN for node in nodes)


@pytest_twisted.ensureDeferred
async def test_the_switch_follows_the_last_delivery(world: World) -> None:
    node = world.node("node1")
    service = world.start()
    world.produce_to(FIRST_POC)
    await world.when_all("generate")
    handler = service.broker.worker_by_num(1).batch_handler
    # Nothing comes when generation ends: the node is given the time that the exchange window leaves.
    node.settings.batches_per_walk = 0
    await world.when(lambda: node.ledger.counts["made"] == node.ledger.counts["delivered"], "all is delivered")
    world.produce_to(GENERATION_END)
    assert service.chain is not None
    conductor = service.chain.conductor
    assert conductor is not None
    await world.when(
        lambda: conductor.situation is not None and conductor.situation.height >= GENERATION_END, "the end is seen"
    )
    delivered = handler.counts.generated
    assert phase_of(node) == "generate"
    node.settings.batches_per_walk = 1
    await world.when(lambda: handler.counts.generated > delivered, "the last delivery")
    node.settings.batches_per_walk = 0
    # After the pause that shows it to be the last, and not at the end of the window.
    await world.when(lambda: phase_of(node) == "validate", "the switch", QUIET_SECONDS + 1)
    assert world.chain.height < GENERATION_END + LONG.poc_exchange_duration - 2
