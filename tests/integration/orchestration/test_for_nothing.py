"""Batches and verdicts that are for nothing: they are kept, cost what is real nothing, and come to an end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from dapi.messages import Kind, ProofBatch, State, content_id
from dapi.messages.addresses import address_of
from dapi.outbox.pages import BatchRow
from dapi.service import DapiService
from dapi.simulator.chain.messages import SubmitPocBatch, SubmitPocValidation
from dapi.simulator.ml_node.node import SimulatedMLNode
from tests.batches import generated_fields, validated_fields
from tests.chain_tools import Key
from tests.diagnosis import told
from tests.integration.server.http_tools import RawClient, connect
from tests.integration.waiting import soon, until, until_awaited
from tests.integration.whole_dapi import FIRST_POC, LONG, WholeDapi, when_all_is_delivered, whole

__all__ = ["whole"]

NO_SUCH_STAGE = "not sent: the chain has told of no such stage"
NOT_ASKED_FOR = "not sent: a verdict that the node was not asked for"
VALIDATION_START = FIRST_POC + LONG.poc_stage_duration + LONG.poc_validation_delay
CONNECTIONS = 16
GARBAGE = 6000
# So long may a busy machine take for them.
FLOOD_SECONDS = 120


@pytest_twisted.async_yield_fixture
async def slow(tmp_path: Path) -> AsyncIterator[WholeDapi]:
    """All of it, with a stage that lasts longer than the flood."""
    slow = WholeDapi(tmp_path, block_seconds=3)
    yield slow
    await slow.end()


def requests(base: str, bodies: Iterable[dict[str, Any]], kind: Kind) -> bytes:
    """HTTP requests that post these, one right after the other."""
    encoded = [json.dumps(body).encode() for body in bodies]
    head = (
        f"POST {urlsplit(base).path}/{kind} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: "
    )
    return b"".join(head.encode() + b"%d\r\n\r\n%s" % (len(body), body) for body in encoded)


async def deliver(node: SimulatedMLNode, bodies: Sequence[dict[str, Any]], kind: Kind) -> Counter[bytes]:
    """Post these in the name of a node over one connection; return how often each status was answered."""
    assert node.run is not None
    base = node.run.request.url
    client: RawClient = await connect(urlsplit(base).port or 80)
    client.transport.write(requests(base, bodies, kind))
    await until(lambda: client.received.count(b"HTTP/1.1 ") == len(bodies), FLOOD_SECONDS)
    client.transport.loseConnection()
    await client.when_closed()
    return Counter(answer[:3] for answer in client.received.split(b"HTTP/1.1 ")[1:])


async def rows_of(service: DapiService, kind: Kind, state: State) -> list[BatchRow]:
    """All rows of a kind and state."""
    rows: list[BatchRow] = []
    cursor = None
    while True:
        page = await service.outbox.batches(kind=kind, state=state, limit=1000, before=cursor)
        rows += page.batches
        if (cursor := page.next) is None:
            return rows


@pytest.mark.parametrize("is_chain_known", [True, False])
@pytest_twisted.ensureDeferred
async def test_six_thousand_heights_of_no_stage_hold_nothing_up(slow: WholeDapi, is_chain_known: bool) -> None:
    node = slow.node("node1")
    service = slow.start()
    slow.produce_to(FIRST_POC)
    await slow.when_all("generate")
    await soon(node.ledger.when_delivered(1))
    if not is_chain_known:
        await slow.stop()
        await slow.chain.stopService()
        service = slow.start()
    garbage = [generated_fields(block_height=height, nonces=[7], dist=[0.5]) for height in range(1, GARBAGE + 1)]
    flood = [deliver(node, garbage[each::CONNECTIONS], Kind.GENERATED) for each in range(CONNECTIONS)]
    answers: Counter[bytes] = sum(await gatherResults(map(Deferred.fromCoroutine, flood)), Counter())
    assert answers.total() == answers[b"200"] + answers[b"429"] == GARBAGE
    assert slow.conductor.comparison.status()["refused"] == answers[b"429"]
    # Any of them may be real before the chain was asked.
    assert is_chain_known or answers[b"429"] == 0
    await soon(node.ledger.when_delivered(5))
    if not is_chain_known:
        slow.chain.startService()
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)
    real = {content_id(msgspec.convert(entry.batch, ProofBatch)) for entry in node.ledger.delivered(kind="generated")}
    await until(lambda: {batch_id for _, _, batch_id in slow.chain.state.batches} == real)

    async def are_only_those_left_that_may_come() -> tuple[list[BatchRow], list[BatchRow]] | None:
        # Of the stage's own height there is one: of another block hash, it ends with the window.
        height = slow.chain.height
        left = await rows_of(service, Kind.GENERATED, State.STORED)
        expired = await rows_of(service, Kind.GENERATED, State.EXPIRED)
        may_come = all(row.height == FIRST_POC or height < row.height <= height + 100 for row in left)
        # With each block one more expires: it may be among both.
        is_of_one_moment = len(left) + len(expired) == answers[b"200"]
        return (left, expired) if may_come and is_of_one_moment else None

    found = await until_awaited(are_only_those_left_that_may_come)
    assert found is not None
    left, expired = found
    assert left
    assert {row.reason for row in expired} == {NO_SUCH_STAGE}
    assert {row.reason for row in left if row.height != FIRST_POC} == {NO_SUCH_STAGE}
    # No transaction was wasted on them.
    sent = [one.message for one in slow.chain.blockchain.ledger if isinstance(one.message, SubmitPocBatch)]
    assert {message.poc_stage_start_block_height for message in sent} == {FIRST_POC}
    assert len(sent) == len(real)
    warning = "messages are kept and not sent: the chain has told of no stage with their height"
    await until(lambda: warning in str(told(slow.phases.status())))


@pytest_twisted.ensureDeferred
async def test_a_verdict_that_nobody_asked_for_is_kept_and_takes_no_place(whole: WholeDapi) -> None:
    node = whole.node("node1")
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    await soon(node.ledger.when_delivered(2))
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)
    own = whole.key.public_key.hex()
    # One on somebody whom dapi hands out later, one on somebody whom it hands out to nobody, one of another stage.
    made_up = [
        validated_fields(block_height=FIRST_POC, public_key=own, fraud_detected=True),
        validated_fields(block_height=FIRST_POC, public_key=Key(9).public.hex()),
        validated_fields(block_height=FIRST_POC + 20, public_key=own),
    ]
    assert await deliver(node, made_up, Kind.VALIDATED) == {b"200": 3}
    kept = await rows_of(service, Kind.VALIDATED, State.STORED)
    assert sorted(str(row.reason) for row in kept) == [NOT_ASKED_FOR, NOT_ASKED_FOR, NO_SUCH_STAGE]
    whole.produce_to(VALIDATION_START)
    await whole.when_handed_out()

    def verdicts() -> list[SubmitPocValidation]:
        ledger = whole.chain.blockchain.ledger
        return [one.message for one in ledger if isinstance(one.message, SubmitPocValidation)]

    (verdict,) = await until(verdicts)
    assert (verdict.participant_address, verdict.fraud_detected) == (address_of(own), False)
    assert whole.conductor.comparison.status()["not_asked_for"] == 3
    warning = "node1: 2 messages are kept and not sent: they are verdicts that dapi did not ask the node for"
    await until(lambda: warning in str(told(whole.phases.status())))
    whole.produce_to(VALIDATION_START + LONG.poc_validation_duration)
    await whole.when_finished()
    expired = await rows_of(service, Kind.VALIDATED, State.EXPIRED)
    reasons = sorted(str(row.reason).partition("; before: ")[2] for row in expired if row.height == FIRST_POC)
    assert reasons == [NOT_ASKED_FOR, NOT_ASKED_FOR]
    assert len(verdicts()) == 1
