"""A whole dapi between a simulated chain and simulated nodes: the phases drive the nodes, whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_twisted

from dapi.messages import Kind
from dapi.simulator.chain.epochs import ConfirmationEvent, EpochParams
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.websocket.client import WebSocketState
from tests.integration.waiting import soon, until, until_awaited
from tests.integration.whole_dapi import (
    FIRST_POC,
    GENERATION_END,
    LONG,
    SECOND_POC,
    VALIDATION_END,
    VALIDATION_START,
    WholeDapi,
    phase_of,
    when_all_is_delivered,
    when_in,
    whole,
)

__all__ = ["whole"]

# Nodes that still have something to deliver are waited for until then.
EXCHANGE_END = GENERATION_END + LONG.poc_exchange_duration - 2
# The first height of each phase, and what nodes do from then on.
BOUNDARIES = (
    (FIRST_POC, "generate"),
    (EXCHANGE_END, "validate"),
    (VALIDATION_START, "validate"),
    (VALIDATION_END, None),
)


@pytest_twisted.async_yield_fixture
async def short(tmp_path: Path) -> AsyncIterator[WholeDapi]:
    """All of it, with a test chain's short epochs."""
    whole = WholeDapi(tmp_path, EpochParams(), block_seconds=0.4)
    yield whole
    await whole.end()


def has_delivered(node: SimulatedMLNode, height: int) -> bool:
    return any(entry.batch["block_height"] == height for entry in node.ledger.delivered(kind="generated"))


async def is_kept(whole: WholeDapi, kind: Kind, height: int) -> bool:
    assert whole.service is not None
    rows = (await whole.service.outbox.batches(kind=kind)).batches
    return any(row.height == height for row in rows)


@pytest_twisted.ensureDeferred
async def test_whole_epochs_by_itself(short: WholeDapi) -> None:
    whole = short
    whole.node("node1")
    whole.node("node2", websocket=False)
    whole.start()
    for epoch in (1, 2):
        start = FIRST_POC + 40 * (epoch - 1)
        for node in whole.nodes.values():
            node.settings.batches_per_walk = 1
        whole.produce_to(start - 2)
        for height, phase in ((start + 2, "generate"), (start + 13, "validate"), (start + 20, None)):
            await soon(whole.chain.when_height(height))
            # A block comes every 0.4 s, and a busy machine has the time that it needs for a phase.
            whole.chain.is_halted = True
            await whole.when_all(phase)
            if phase == "generate":
                for node in whole.nodes.values():
                    await until(partial(has_delivered, node, start))
                    # What comes in the last second of a window would expire.
                    node.settings.batches_per_walk = 0
                    await when_all_is_delivered(node)
            if phase == "validate":
                await until_awaited(partial(is_kept, whole, Kind.VALIDATED, start))
            # What is in a mempool gets into the next block.
            await whole.when_all_is_sent()
            whole.chain.is_halted = False
        assert (epoch, whole.key.address) in whole.chain.state.seeds
        batches = [batch for (height, _, _), batch in whole.chain.state.batches.items() if height == start]
        assert {batch.message.node_id for batch in batches} == {"node1", "node2"}
        # We are the only participant, and have validated ourselves.
        assert (start, whole.key.address, whole.key.address) in whole.chain.state.validations
    await whole.when_nothing_is_left()


@pytest.mark.parametrize(("boundary", "phase"), BOUNDARIES)
@pytest_twisted.ensureDeferred
async def test_restarted_at_a_phase_boundary(whole: WholeDapi, boundary: int, phase: str | None) -> None:
    whole.node("node1")
    whole.node("node2", websocket=False)
    whole.start()
    whole.produce_to(FIRST_POC + 1 if boundary > FIRST_POC else boundary - 2)
    await whole.when_all("generate" if boundary > FIRST_POC else None)
    whole.produce_to(boundary - 2)
    await whole.stop()
    whole.produce_to(boundary + 1)
    whole.start()
    await whole.when_all(phase)
    whole.produce_to(VALIDATION_END)
    await whole.when_all(None)


@pytest_twisted.ensureDeferred
async def test_nodes_that_generate_are_not_disturbed_by_a_restart(whole: WholeDapi) -> None:
    node = whole.node("node1")
    whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    await soon(node.ledger.when_delivered(3))
    run = node.run
    await whole.stop()
    whole.start()
    by_websocket = node.ledger.counts["websocket"]
    # Its WebSocket is open again, and it is the same run that uses it.
    await soon(node.ledger.when_delivered(by_websocket + 2, via="websocket"))
    assert node.run is run
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)
    await whole.when_nothing_is_left()


@pytest.mark.parametrize(
    ("height", "phase"), [(FIRST_POC + 2, "generate"), (VALIDATION_START + 2, "validate"), (VALIDATION_END + 2, None)]
)
@pytest_twisted.ensureDeferred
async def test_node_restarted_in_a_phase(whole: WholeDapi, height: int, phase: str | None) -> None:
    node, other = whole.node("node1"), whole.node("node2")
    whole.start()
    whole.produce_to(height)
    await whole.when_all(phase)
    run = other.run
    await node.crash()
    node.startService()
    assert phase_of(node) == "nothing"
    await whole.when_all(phase)
    assert other.run is run


@pytest_twisted.ensureDeferred
async def test_chain_websocket_cut_and_chain_away(whole: WholeDapi) -> None:
    whole.node("node1")
    whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    # All of its connections are lost, and the generation ends while nobody can ask it.
    await whole.chain.restart(down_seconds=1.0)
    whole.produce_to(VALIDATION_START)
    await whole.when_all("validate")


@pytest_twisted.ensureDeferred
async def test_chain_halted_over_a_boundary(whole: WholeDapi) -> None:
    node = whole.node("node1")
    whole.start()
    whole.produce_to(GENERATION_END - 2)
    await whole.when_all("generate")
    whole.chain.is_halted = True
    await until(lambda: "halted" in str(whole.chain_service.submitter.status()["reason"]))
    # Deadlines stand still: what is generated meanwhile is kept, and confirmed when the chain goes on.
    assert phase_of(node) == "generate"
    whole.chain.is_halted = False
    whole.produce_to(GENERATION_END + 4)
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)
    await whole.when_nothing_is_left()
    whole.produce_to(EXCHANGE_END)
    await whole.when_all("validate")
    await whole.when_nothing_is_left()


@pytest_twisted.ensureDeferred
async def test_a_jump_of_hundreds_of_blocks(whole: WholeDapi) -> None:
    whole.node("node1")
    whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    whole.produce_to(VALIDATION_START + 8)
    await whole.when_all("validate")
    whole.produce_to(VALIDATION_END + 200)
    await whole.when_all(None)


def is_in_stage(node: SimulatedMLNode, height: int) -> bool:
    """Whether a node works in this stage, as one of two."""
    return node.run is not None and (node.run.request.block_height, node.run.request.node_count) == (height, 3)


@pytest_twisted.ensureDeferred
async def test_node_added_and_removed_in_the_middle_of_a_stage(whole: WholeDapi) -> None:
    first = whole.node("node1")
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    run = first.run
    second = whole.node("node2")
    await service.broker.add_node(whole.config_of(second))
    # Another node count would restart the first one: the second serves inference, and joins at the next PoC.
    await when_in(second, None)
    assert first.run is run
    whole.produce_to(SECOND_POC)
    for node in (first, second):
        await until(partial(is_in_stage, node, SECOND_POC))
    # A call that is cut short may leave a node between two phases.
    await until(lambda: not any(worker.status().command for worker in service.broker.workers()))
    await service.broker.remove_node("node1")
    whole.produce_to(SECOND_POC + EXCHANGE_END - FIRST_POC)
    await when_in(second, "validate")
    # Nobody tells the removed one anything any more.
    assert phase_of(first) == "generate"


@pytest_twisted.ensureDeferred
async def test_a_disabled_node_is_left_alone(whole: WholeDapi) -> None:
    first, second = whole.node("node1"), whole.node("node2")
    # While the chain catches up, nobody is commanded.
    whole.chain.switches.is_catching_up = True
    service = whole.start()
    await service.broker.register_missing([])
    await service.broker.disable_node("node2")
    whole.chain.switches.is_catching_up = False
    whole.produce_to(FIRST_POC)
    await when_in(first, "generate")
    assert phase_of(second) == "nothing"
    await service.broker.enable_node("node2")
    await whole.when_all("generate")


@pytest.mark.parametrize("restarts", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_confirmation_in_the_inference_phase(whole: WholeDapi, restarts: bool) -> None:
    node = whole.node("node1")
    whole.start()
    whole.produce_to(VALIDATION_END + 2)
    await whole.when_all(None)
    trigger = whole.chain.height
    start = trigger + 3
    whole.chain.state.confirmation = ConfirmationEvent(1, 1, trigger, start, "")
    whole.produce_to(start)
    whole.chain.state.confirmation = ConfirmationEvent(1, 1, trigger, start, "ab" * 32)
    await whole.when_all("generate")
    run = node.run
    assert run is not None
    assert (run.request.block_height, run.request.block_hash) == (trigger, "ab" * 32)
    await soon(node.ledger.when_delivered(2))
    if restarts:
        await whole.stop()
        whole.start()
        by_websocket = node.ledger.counts["websocket"]
        await soon(node.ledger.when_delivered(by_websocket + 1, via="websocket"))
        assert node.run is run
    # Blocks that are made at once leave no time for what is under way: nothing may be when the window's end is near.
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)
    await whole.when_nothing_is_left()
    exchange_end = start + LONG.poc_stage_duration - 1 + LONG.poc_exchange_duration
    whole.produce_to(exchange_end - 2)
    await whole.when_all("validate")
    if restarts:
        await whole.stop()
        whole.start()
        await until(lambda: is_websocket_open(whole))
        assert node.run is run
    whole.produce_to(exchange_end + LONG.poc_validation_delay + LONG.poc_validation_duration)
    await whole.when_all(None)
    await whole.when_nothing_is_left()
    assert {height for height, _, _ in whole.chain.state.batches} == {trigger}


def is_websocket_open(whole: WholeDapi) -> bool:
    """Whether dapi has the WebSockets of all nodes open."""
    assert whole.service is not None
    nodes = whole.service.broker.status().nodes
    return bool(nodes) and all(node.websocket.state is WebSocketState.OPEN for node in nodes)


@pytest_twisted.ensureDeferred
async def test_the_switch_follows_the_last_delivery(whole: WholeDapi) -> None:
    node = whole.node("node1")
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    handler = service.broker.worker_by_num(1).batch_handler
    # Nothing comes when generation ends: the node is given the time that the exchange window leaves.
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)
    whole.produce_to(GENERATION_END)
    await whole.when_seen(GENERATION_END)
    delivered = handler.counts.generated
    assert phase_of(node) == "generate"
    node.settings.batches_per_walk = 1
    await until(lambda: handler.counts.generated > delivered)
    node.settings.batches_per_walk = 0
    # After the pause that shows it to be the last, and not at the end of the window.
    await when_in(node, "validate")
    assert whole.chain.height < GENERATION_END + LONG.poc_exchange_duration - 2
