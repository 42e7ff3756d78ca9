"""What goes wrong for other software at a stage's edges, on a whole dapi: counted on the simulated chain's ledger."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import pytest_twisted

from dapi.messages import Kind, ProofBatch, State
from dapi.simulator.chain.messages import SubmitPocValidation, SubmitSeed
from dapi.simulator.chain.state import GroupMember, GroupNode
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.websocket.client import WebSocketState
from tests.chain_tools import SECOND_NS, Key, batch, transaction
from tests.diagnosis import told
from tests.integration.simulated_node import passed
from tests.integration.waiting import soon, until
from tests.integration.whole_dapi import (
    FIRST_POC,
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
from tests.logs import captured_log

__all__ = ["whole"]

VALIDATE = "/api/v1/pow/validate"


def taken(whole: WholeDapi, message_type: type) -> list[Any]:
    """All messages of a type that the chain took, in order."""
    return [
        one.message for one in whole.chain.blockchain.ledger if isinstance(one.message, message_type) and not one.code
    ]


def calls(node: SimulatedMLNode, path: str) -> int:
    return sum(call.path == path for call in node.ledger.calls)


def calls_taken(node: SimulatedMLNode, path: str) -> int:
    """How many calls the node answered with 200."""
    return sum((call.path, call.status) == (path, 200) for call in node.ledger.calls)


@pytest_twisted.ensureDeferred
async def test_one_seed_an_epoch_over_restarts(whole: WholeDapi) -> None:
    whole.node("node1")
    for height in (FIRST_POC, FIRST_POC + 2, SECOND_POC, SECOND_POC + 1):
        whole.start()
        whole.produce_to(height)
        await whole.when_seen(height)
        # Each start finds the seed of its epoch on disk: sent or not.
        epoch = 1 if height < SECOND_POC else 2
        await until(partial(whole.chain.state.seeds.get, (epoch, whole.key.address)))
        await whole.stop()
    assert [seed.epoch_index for seed in taken(whole, SubmitSeed)] == [1, 2]


@pytest_twisted.ensureDeferred
async def test_what_missed_its_window_expires_and_is_told(whole: WholeDapi) -> None:
    node = whole.node("node1", batches_per_walk=0)
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    await whole.when_seen(FIRST_POC)
    await whole.chain.stopService()
    await until(lambda: "not reachable" in str(whole.conductor.problem))
    node.settings.batches_per_walk = 1
    await soon(node.ledger.when_delivered(3))
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)
    last = FIRST_POC + LONG.poc_stage_duration + LONG.poc_exchange_duration
    whole.produce_to(last)
    whole.chain.startService()
    await whole.when_seen(last)
    # The submitter may have been faster than the conductor with some: those are refused by the chain.
    await whole.when_finished()
    page = await service.outbox.batches(kind=Kind.GENERATED)
    assert len(page.batches) >= 3
    assert {row.state for row in page.batches} == {State.EXPIRED}
    (stage,) = await whole.phases.latest_stages(5)
    ledger = stage["nodes"]["node1"]
    assert (stage["height"], ledger["expired"], ledger["confirmed"]) == (FIRST_POC, len(page.batches), 0)
    # The chain never heard of them, and the nodes went on to the next phase.
    whole.produce_to(VALIDATION_START)
    await whole.when_all("validate")
    assert not whole.chain.state.batches


@pytest_twisted.ensureDeferred
async def test_nodes_of_a_poc_slot_serve_inference_all_the_time(whole: WholeDapi) -> None:
    kept, other = whole.node("node1"), whole.node("node2")
    groups = whole.chain.state.epoch_groups
    # It is the group of the epoch in force that tells; that of the next one is in preparation.
    groups[1, ""] = (GroupMember(whole.key.address),)
    groups[1, "simulated"] = (
        GroupMember(whole.key.address, (GroupNode("node1", (True, True)), GroupNode("node2", (True, False)))),
        GroupMember(Key(9).address, (GroupNode("node2", (True, True)),)),
    )
    whole.start()
    whole.produce_to(SECOND_POC - 2)
    await whole.when_all(None)
    inits = calls(kept, "/api/v1/pow/init/generate")
    for height, phase in ((SECOND_POC, "generate"), (SECOND_POC + VALIDATION_START - FIRST_POC, "validate")):
        whole.produce_to(height)
        await when_in(other, phase)
        assert phase_of(kept) is None
        # What node2 delivers the chain drops, for the sake of another participant's node of that id.
        await until(lambda: "node2: another participant's node of this id" in str(told(whole.phases.status())))
        # Nor does a restart in the middle of PoC take it for one that does.
        await whole.stop()
        whole.start()
        await whole.when_seen(height)
        await when_in(other, phase)
    assert phase_of(kept) is None
    assert calls(kept, "/api/v1/pow/init/generate") == inits
    assert calls(kept, "/api/v1/pow/init/validate") == 0


@pytest_twisted.ensureDeferred
async def test_a_node_that_answers_nothing_is_started_anew(whole: WholeDapi) -> None:
    node = whole.node("node1")
    whole.start()
    tools = whole.chain_service.validation_tools
    tools.retry_delay = lambda: 0.1
    tools.look_seconds, tools.silent_seconds = 0.1, 0.7
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    await soon(node.ledger.when_delivered(1))
    await until(lambda: whole.chain.state.batches)
    whole.produce_to(VALIDATION_START - 1)
    await whole.when_all("validate")
    silent = node.run
    assert silent is not None
    node.kill_sender()
    whole.produce_to(VALIDATION_START)
    await until(lambda: node.run not in (None, silent) and phase_of(node) == "validate")
    assert calls(node, "/api/v1/stop") == 1
    address = whole.key.address
    await until(lambda: (FIRST_POC, address, address) in whole.chain.state.validations)


def submit_for_others(whole: WholeDapi, keys: list[Key]) -> None:
    """Have batches of other participants in the next block."""
    for key in keys:
        number = whole.chain.add_account(key.public).number
        raw = transaction(
            key,
            batch(key.address, height=FIRST_POC),
            timeout_ns=whole.chain.blockchain.latest.time_ns + 60 * SECOND_NS,
            account_number=number,
        )
        assert whole.chain.broadcast(raw).code == 0


@pytest_twisted.ensureDeferred
async def test_a_restart_in_mid_validation_goes_on_where_it_was(whole: WholeDapi) -> None:
    node = whole.node("node1")
    others = [Key(seed) for seed in range(2, 6)]
    whole.chain.is_halted = True
    whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    node.settings.batches_per_walk = 0
    submit_for_others(whole, others)
    whole.produce_to(VALIDATION_START - 1)
    await whole.when_all("validate")
    whole.produce_to(VALIDATION_START)
    await soon(node.ledger.when_called(VALIDATE, 2))
    # It takes no more of them, and so the validation is not over.
    node.settings.http_failures[VALIDATE] = 500
    await until(lambda: (whole.phases.status()["validation"] or {}).get("answered", 0) >= 2)
    await whole.stop()
    before = calls_taken(node, VALIDATE)
    assert 2 <= before < len(others)
    node.settings.http_failures.clear()
    whole.start()
    whole.chain.is_halted = False
    await until(lambda: len(whole.chain.state.validations) >= len(others))
    await whole.when_handed_out()
    await whole.when_finished()
    verdicts = [verdict.participant_address for verdict in taken(whole, SubmitPocValidation)]
    assert {key.address for key in others} <= set(verdicts) <= {key.address for key in others} | {whole.key.address}
    # Nobody was validated a second time: what was done before is known.
    assert calls_taken(node, VALIDATE) == len(verdicts) == len(set(verdicts))


@pytest.mark.parametrize("event", ["process restarted", "process ended", "pow restarted"])
@pytest_twisted.ensureDeferred
async def test_a_node_that_begins_anew_while_it_validates_costs_no_verdict(whole: WholeDapi, event: str) -> None:
    slow, quick = whole.node("node1"), whole.node("node2")
    others = [Key(seed) for seed in range(2, 8)]
    whole.chain.is_halted = True
    whole.start()
    # Not because it is silent: that would take its time.
    whole.chain_service.validation_tools.silent_seconds = 3600
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    for node in (slow, quick):
        node.settings.batches_per_walk = 0
    submit_for_others(whole, others)
    whole.produce_to(VALIDATION_START - 1)
    await whole.when_all("validate")
    # It takes what it is given, and computes nothing before it begins anew.
    walk_seconds, slow.settings.walk_seconds = slow.settings.walk_seconds, 3600
    await passed(2 * walk_seconds)
    with captured_log() as log:
        whole.produce_to(VALIDATION_START)
        await until(
            lambda: (whole.phases.status()["validation"] or {}).get("nodes", {}).get("node1", {}).get("unanswered")
        )
        slow.settings.walk_seconds = quick.settings.walk_seconds
        if event == "pow restarted":
            slow.settings.load_seconds = 8
            await soon(slow.restart_pow())
        else:
            await slow.crash()
            if event == "process restarted":
                slow.startService()
        whole.chain.is_halted = False
        await until(lambda: (whole.phases.status()["validation"] or {}).get("answered", 0) >= len(others))
        await until(lambda: log.warnings("unanswered participants go to others, 0 were tried often enough"))


@pytest_twisted.ensureDeferred
async def test_an_end_with_participants_unanswered_is_a_warning(whole: WholeDapi) -> None:
    node = whole.node("node1", batches_per_walk=0)
    others = [Key(seed) for seed in range(2, 5)]
    whole.chain.is_halted = True
    whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    submit_for_others(whole, others)
    whole.produce_to(VALIDATION_START - 1)
    await whole.when_all("validate")
    node.kill_sender()
    with captured_log() as log:
        whole.produce_to(VALIDATION_START)
        await soon(node.ledger.when_called(VALIDATE, 3))
        await until(lambda: (whole.phases.status()["validation"] or {}).get("handed") == 3)
        whole.produce_to(VALIDATION_START + LONG.poc_validation_duration)
        await until(lambda: log.warnings("of 3 participants unanswered"))
    text = f"the window of stage {FIRST_POC} ended with 3 of 3 participants unanswered: 3 were not answered by node1"
    assert log.warnings("participants unanswered") == [text]


@pytest_twisted.ensureDeferred
async def test_one_verdict_on_a_participant_whatever_the_later_ones_say(whole: WholeDapi) -> None:
    # On a busy machine an ack takes its time, and a copy by HTTP would be counted too.
    first = whole.node("node1", batches_per_walk=0, ack_wait_seconds=10.0)
    nodes = first, whole.node("node2", batches_per_walk=0, websocket=False)
    other = Key(2)
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    submit_for_others(whole, [other])
    whole.produce_to(VALIDATION_START)
    await until(lambda: whole.chain.state.validations)
    worker = service.broker.worker_by_num(1)
    await until(lambda: worker.status().websocket.state is WebSocketState.OPEN)
    # As when the first node that had it was lost.
    await whole.conductor.comparison.hand_out(FIRST_POC, [(other.address, node_id) for node_id in whole.nodes])
    for number, node in enumerate(nodes, start=1):
        delivered = len(node.ledger.delivered(kind="validated"))
        # It computes other nonces than the first time: another verdict.
        sample = ProofBatch(other.public.hex(), "AB", FIRST_POC, [number], [0.5], 0)
        await service.broker.worker_by_num(number).ml_client.validate(sample)
        await soon(node.ledger.when_delivered(delivered + 1, kind="validated"))
    await whole.when_finished()
    assert [verdict.participant_address for verdict in taken(whole, SubmitPocValidation)] == [other.address]
    (row,) = (await service.outbox.batches(kind=Kind.VALIDATED)).batches
    assert (row.state, row.seen, row.reason) == (State.CONFIRMED, 3, None)
    assert worker.batch_handler.counts.doubled == 1
    assert {entry.delivered_via for entry in nodes[1].ledger.delivered(kind="validated")} == {"http"}


@pytest_twisted.ensureDeferred
async def test_a_chain_that_catches_up_drives_nothing(whole: WholeDapi) -> None:
    node = whole.node("node1")
    whole.chain.switches.is_catching_up = True
    whole.start()
    await until(lambda: whole.conductor.problem == "catching up")
    for height in (FIRST_POC, VALIDATION_START, VALIDATION_END, SECOND_POC + 1):
        whole.produce_to(height)
        await soon(whole.chain.when_height(height + 1))
    assert phase_of(node) == "nothing"
    assert not node.ledger.calls
    assert whole.conductor.situation is None
    assert not whole.phases.restart_advice().safe
    whole.chain.switches.is_catching_up = False
    await whole.when_all("generate")
    assert not whole.chain.state.seeds.get((1, whole.key.address))
