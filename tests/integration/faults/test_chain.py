"""One stage in which the chain fails in one way after the other: after each, all that was acknowledged is in a block.

``DAPI_FAULT_ROUNDS=2`` has all of them come twice, in any order; usually only those come that no other test has.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest_twisted

from dapi.messages import Kind, ProofBatch, State, content_id
from dapi.outbox.pages import BatchRow
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams
from tests.integration.waiting import soon, until
from tests.integration.whole_dapi import FIRST_POC, WholeDapi, when_all_is_delivered

ROUNDS = int(os.environ.get("DAPI_FAULT_ROUNDS", "0"))
# Stages that last as long as a test waits.
PARAMS = EpochParams(
    epoch_length=6000,
    poc_stage_duration=2000,
    poc_exchange_duration=100,
    poc_validation_delay=100,
    poc_validation_duration=500,
)
# What governance makes of them in mid-stage.
SHORTER, LONGER = 1000, 150
BLOCK_SECONDS, BLOCK_TIME_SECONDS = 0.25, 5.0
PATIENCE_SECONDS = 120

Act = Callable[[SimulatedChain], object]


def switch(name: str, value: Any, usual: Any, *, of_all: bool) -> tuple[Act, Act]:
    """Return what turns a switch of the first node or of all nodes, and what turns it back."""

    def turn(to: Any, chain: SimulatedChain) -> None:
        for node in chain.nodes if of_all else chain.nodes[:1]:
            setattr(node.switches, name, to)

    return partial(turn, value), partial(turn, usual)


def govern(chain: SimulatedChain) -> None:
    """Change the windows of the stage that is under way."""
    chain.state.govern(poc_stage_duration=SHORTER, poc_exchange_duration=LONGER)


def halt(chain: SimulatedChain) -> None:
    chain.is_halted = True
    chain.pass_block_time(600)


def nothing(chain: SimulatedChain) -> None:
    """Nothing is to be healed."""


TROUBLES: dict[str, tuple[Act, Act]] = {
    "no block for 10 minutes": (halt, lambda chain: setattr(chain, "is_halted", False)),
    "block time jumps by 599 s": (lambda chain: chain.pass_block_time(599), nothing),
    "governance changes the windows": (govern, nothing),
    "the first node says that all is in a block": switch("invents_inclusions", True, False, of_all=False),
}
SHORTLY = tuple(TROUBLES)
TROUBLES |= {
    "mempools are full": switch("is_mempool_full", True, False, of_all=True),
    "mempools are rechecked": switch("is_mempool_rechecking", True, False, of_all=True),
    "mempools are lost": (SimulatedChain.lose_mempools, nothing),
    "no index": switch("is_indexing_off", True, False, of_all=True),
    "an index that is late": switch("index_delay_blocks", 1, 0, of_all=True),
    "state that is late": switch("is_state_late", True, False, of_all=True),
    "broadcasts are not answered": switch("loses_confirmations", True, False, of_all=True),
    "half of the transactions are dropped": switch("drop_fraction", 0.5, 0.0, of_all=True),
    "the first node lags": switch("lag_blocks", 4, 0, of_all=False),
    "the first node catches up": switch("is_catching_up", True, False, of_all=False),
    "the first node says that nothing is in a block": switch("hides_inclusions", True, False, of_all=False),
    "the first node answers 500": switch("answers_500", True, False, of_all=False),
    "the first node is cut off": (lambda chain: chain.node.partition(), lambda chain: chain.node.reconnect()),
    "the first node is frozen": (lambda chain: chain.node.freeze(), lambda chain: chain.node.thaw()),
    "no events": switch("hides_events", True, False, of_all=True),
    "WebSockets are cut": (SimulatedChain.cut_websockets, nothing),
}


@pytest_twisted.async_yield_fixture
async def whole(tmp_path: Path) -> AsyncIterator[WholeDapi]:
    whole = WholeDapi(tmp_path, PARAMS, BLOCK_SECONDS, BLOCK_TIME_SECONDS)
    second = whole.chain.add_node()
    for node in whole.chain.nodes:
        node.settings.blocks_per_second = 50
    whole.chain_settings["url"] = f"{whole.chain.url},{second.url}"
    yield whole
    await whole.end()


def acknowledged(whole: WholeDapi) -> set[str]:
    """The ids of all batches that were, so far."""
    entries = [entry for node in whole.nodes.values() for entry in node.ledger.delivered(kind="generated")]
    return {content_id(msgspec.convert(entry.batch, ProofBatch)) for entry in entries}


def in_blocks(whole: WholeDapi) -> set[str]:
    return {batch_id for _, _, batch_id in whole.chain.state.batches}


async def all_rows(whole: WholeDapi) -> list[BatchRow]:
    """All that is on disk."""
    assert whole.service is not None
    rows: list[BatchRow] = []
    before = None
    while True:
        page = await whole.service.outbox.batches(limit=1000, before=before)
        rows += page.batches
        before = page.next
        if before is None:
            return rows


def are_in_blocks(whole: WholeDapi, wanted: set[str]) -> bool:
    return wanted <= in_blocks(whole)


async def more(whole: WholeDapi, number: int) -> None:
    """Wait until each node has had so many more acknowledged."""
    for node in whole.nodes.values():
        await soon(node.ledger.when_delivered(node.ledger.counts["delivered"] + number), PATIENCE_SECONDS)


@pytest_twisted.ensureDeferred
async def test_all_that_was_acknowledged_is_in_a_block_after_each(whole: WholeDapi) -> None:
    for name in ("node1", "node2"):
        whole.node(name, walk_seconds=0.2, websocket=name == "node1")
    whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    names = random.Random(ROUNDS).sample(list(TROUBLES) * ROUNDS, ROUNDS * len(TROUBLES)) or SHORTLY
    for name in names:
        begin, end = TROUBLES[name]
        begin(whole.chain)
        await more(whole, 3)
        if not whole.chain.is_halted:
            await soon(whole.chain.when_height(whole.chain.height + 3), PATIENCE_SECONDS)
        end(whole.chain)
        wanted = acknowledged(whole)
        try:
            await until(partial(are_in_blocks, whole, wanted), PATIENCE_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{name}: {len(wanted - in_blocks(whole))} batches are in no block") from error
    assert whole.chain.height < FIRST_POC + SHORTER
    for node in whole.nodes.values():
        node.settings.batches_per_walk = 0
    for node in whole.nodes.values():
        await when_all_is_delivered(node)
    await whole.when_nothing_is_left()
    assert not whole.chain.state.doubled_nonces()
    rows = await all_rows(whole)
    assert {row.state for row in rows} == {State.CONFIRMED}
    assert acknowledged(whole) == in_blocks(whole) == {row.batch_id for row in rows if row.kind is Kind.GENERATED}
    # By the windows that governance has made, at whose end no node is waited for any more.
    whole.produce_to(FIRST_POC + SHORTER + LONGER - 2)
    await whole.when_all("validate")
