"""Batches that are not of their stage, and nodes that make them, on a whole dapi."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import pytest_twisted
import treq
from twisted.internet import reactor as global_reactor

from dapi.messages import Kind, ProofBatch, State, content_id
from dapi.mlnode.client import InitRequest, MLNodeClient
from dapi.outbox.pages import BatchRow
from tests.batches import generated_fields
from tests.chain_tools import Key
from tests.diagnosis import told
from tests.integration.waiting import soon, until, until_awaited
from tests.integration.whole_dapi import FIRST_POC, LONG, WholeDapi, until_answered, when_all_is_delivered, whole

__all__ = ["whole"]

reactor: Any = global_reactor


@pytest.mark.parametrize("changes", [{"block_hash": "AB" * 32}, {"public_key": Key(9).public.hex()}])
@pytest_twisted.ensureDeferred
async def test_a_node_in_another_run_is_brought_back_and_what_it_made_there_is_kept(
    whole: WholeDapi, changes: dict[str, str]
) -> None:
    node = whole.node("node1")
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    await soon(node.ledger.when_delivered(2))
    right = node.run
    assert right is not None
    # As a second API node does.
    intruder = MLNodeClient(reactor, node.base_url, node_id="node1")
    (body,) = [call.body for call in node.ledger.calls if call.path == "/api/v1/pow/init/generate"]
    request = msgspec.convert(body, InitRequest)
    await intruder.init_generate(msgspec.structs.replace(request, **changes))
    await intruder.close()
    await until(lambda: node.run is not None and node.run is not right and node.run.request == right.request)
    foreign = {entry.batch["block_hash"] + entry.batch["public_key"] for entry in node.ledger.delivered()}
    assert len(foreign) == 2
    delivered = len(node.ledger.delivered())
    await soon(node.ledger.when_delivered(delivered + 2))
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)

    async def kept() -> list[BatchRow]:
        rows = (await service.outbox.batches(kind=Kind.GENERATED, limit=1000)).batches
        return [row for row in rows if row.reason == "not sent: its block hash or public key is not that of the stage"]

    async def is_all_else_confirmed() -> bool:
        rows = await kept()
        counts = await service.outbox.counts()
        return bool(rows) and counts[State.STORED] == len(rows) and counts[State.IN_FLIGHT] == 0

    await until_answered(is_all_else_confirmed)
    right_ids = {
        content_id(msgspec.convert(entry.batch, ProofBatch))
        for entry in node.ledger.delivered(kind="generated")
        if (entry.batch["block_hash"], entry.batch["public_key"])
        == (right.request.block_hash, right.request.public_key)
    }
    assert {batch_id for _, _, batch_id in whole.chain.state.batches} == right_ids
    rows = await kept()
    assert {(row.state, row.node_id, row.height) for row in rows} == {(State.STORED, "node1", FIRST_POC)}
    assert whole.phases.status()["nodes"]["node1"].batches_of_others >= len(rows)
    warning = f"node1: {len(rows)} messages are kept and not sent: their block hash or public key is not that of stage"
    await until(lambda: warning in str(told(whole.phases.status())))
    # They end with their window, and it stays known why they were not sent.
    whole.produce_to(FIRST_POC + LONG.poc_stage_duration + LONG.poc_exchange_duration)
    await whole.when_finished()
    expired = (await service.outbox.batches(state=State.EXPIRED, limit=1000)).batches
    assert {row.batch_id for row in expired} == {row.batch_id for row in rows}
    assert {str(row.reason).partition("; before: ")[2] for row in expired} == {rows[0].reason}


@pytest_twisted.ensureDeferred
async def test_a_batch_that_comes_before_its_stage_is_known_is_sent_once_it_is(whole: WholeDapi) -> None:
    node = whole.node("node1")
    whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    await soon(node.ledger.when_delivered(1))
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)
    await whole.when_nothing_is_left()
    await whole.stop()
    await whole.chain.stopService()
    node.settings.batches_per_walk = 1
    # A database without the stage, and a chain that does not tell of it yet.
    for path in whole.folder.glob("outbox.db*"):
        if path.suffix != ".secret":
            path.unlink()
    by_http = node.ledger.counts["http"]
    service = whole.start()
    await soon(node.ledger.when_delivered(by_http + 2, via="http"))
    rows = (await service.outbox.batches(kind=Kind.GENERATED)).batches
    assert {(row.state, row.reason) for row in rows} == {
        (State.STORED, "not sent: the chain has told of no such stage")
    }
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)
    whole.chain.startService()
    await whole.when_nothing_is_left()


@pytest_twisted.ensureDeferred
async def test_nonces_of_another_node_are_kept_and_not_sent(whole: WholeDapi) -> None:
    node = whole.node("node1", batches_per_walk=0)
    whole.node("node2", batches_per_walk=0)
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    assert node.run is not None
    request = node.run.request
    run = {"block_height": FIRST_POC, "block_hash": request.block_hash, "public_key": request.public_key}
    for nonces in ([1, 4], [2, 5], [4, 5]):
        fields = generated_fields(**run, nonces=nonces, dist=[0.5, 0.5])
        response = await soon(treq.post(f"{request.url}/generated", json=fields, persistent=False))
        assert (response.code, await treq.content(response)) == (200, b"")

    async def is_one_confirmed() -> bool:
        return bool((await service.outbox.batches(kind=Kind.GENERATED, state=State.CONFIRMED)).batches)

    await until_awaited(is_one_confirmed)
    reason = "not sent: its nonces are not those of its node"
    warning = "node1: 2 messages are kept and not sent: their nonces are those of other nodes"
    await until(lambda: any(text.startswith(warning) for text in told(whole.phases.status())))
    rows = (await service.outbox.batches(kind=Kind.GENERATED)).batches
    assert sorted((row.state, row.reason) for row in rows if row.reason) == [(State.STORED, reason)] * 2
    # Over its WebSocket, a node's nonces are looked at, too.
    assert service.broker.worker_by_num(1).batch_handler.counts.with_others_nonces == 2
    assert {batch_id for _, _, batch_id in whole.chain.state.batches} == {
        row.batch_id for row in rows if not row.reason
    }
