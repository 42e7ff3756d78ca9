"""After a whole PoC with faults, every place that shows numbers shows those of the disk, the nodes and the chain."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from typing import Any

import msgspec
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.web.client import Agent

from dapi.messages import Kind, ProofBatch, State, content_id
from dapi.server.page.view import view
from dapi.simulator.ml_node.node import SimulatedMLNode
from tests.integration.cli.dapi_process import Begin, begin, ended
from tests.integration.waiting import soon, until
from tests.integration.whole_dapi import (
    FIRST_POC,
    GENERATION_END,
    VALIDATION_END,
    VALIDATION_START,
    WholeDapi,
    when_all_is_delivered,
    whole,
)
from tests.metric_samples import series_of, value_of

__all__ = ["begin", "whole"]

BATCHES = 6


class Shown:
    """What dapi shows, everywhere, at a moment when nothing changes."""

    def __init__(self, whole: WholeDapi, begin: Begin) -> None:
        assert whole.service is not None
        self._whole = whole
        self._begin = begin
        self._url = f"http://127.0.0.1:{whole.service.admin_listener.port}"

    async def look(self) -> None:
        """Ask everybody."""
        self.status = json.loads(await self._get("/admin/v1/status"))
        self.page = view(self.status, None)
        self.metrics = series_of(await self._get("/metrics"))
        self.cli_status = await self._cli("status", "--json")
        (self.cli_stage,) = (await self._cli("epochs", "--json"))["epochs"]
        (self.stage,) = json.loads(await self._get("/admin/v1/epochs"))["epochs"]
        self.rows = self._rows()

    async def _get(self, path: str) -> bytes:
        answer = await treq.get(self._url + path, agent=Agent(reactor))
        return bytes(await answer.content())

    async def _cli(self, *arguments: str) -> Any:
        done = await ended(self._begin(*arguments, DAPI_URL=self._url))
        assert (done.code, done.errors) == (0, "")
        return done.json()

    def _rows(self) -> list[tuple[str, str, str, int, int]]:
        """Kind, state, node, nonces and how often it came, of each message on disk."""
        columns = "kind, state, coalesce(node_id, ''), nonces, seen"
        with closing(sqlite3.connect(f"file:{self._whole.folder / 'outbox.db'}?mode=ro", uri=True)) as database:
            return [
                *database.execute(f"SELECT {columns} FROM finished WHERE batch_id NOT LIKE '%/%'"),
                *database.execute(f"SELECT {columns} FROM unfinished"),
            ]

    def metric(self, name: str, **labels: str) -> float | None:
        return value_of(self.metrics, name, **labels)


def came(node: SimulatedMLNode, via: Any) -> tuple[int, int]:
    """How many deliveries dapi has taken from a node this way at least and at most, by the node's own ledger.

    A node does not learn whether what it sent on a connection that was cut has come.
    """
    outcomes = [attempt.outcome for entry in node.ledger.batches for attempt in entry.attempts if attempt.via == via]
    sure = sum(outcome in ("acknowledged", "ack lost", "accepted") for outcome in outcomes)
    return sure, sure + sum(outcome == "no ack" for outcome in outcomes)


async def a_whole_poc(whole: WholeDapi) -> None:
    """Have one: acks are lost, connections cut, a node has no WebSocket, and the chain stands still meanwhile."""
    whole.node("one", double_every=3)
    whole.node("two", drop_every_seconds=1.0)
    whole.node("three", websocket=False)
    whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    for node in whole.nodes.values():
        await soon(node.ledger.when(lambda node=node: node.ledger.counts["delivered"] >= BATCHES))  # type: ignore[misc]
    whole.chain.is_halted = True
    for node in whole.nodes.values():
        made = node.ledger.counts["delivered"]
        await soon(node.ledger.when(lambda node=node, made=made: node.ledger.counts["delivered"] > made + 2))  # type: ignore[misc]
        node.settings.batches_per_walk = 0
        await when_all_is_delivered(node)
    whole.chain.is_halted = False
    await whole.when_finished()
    whole.produce_to(GENERATION_END)
    whole.produce_to(VALIDATION_START)
    await whole.when_all("validate")
    await whole.when_handed_out()
    for node in whole.nodes.values():
        await when_all_is_delivered(node)
    whole.produce_to(VALIDATION_END + 2)
    await whole.when_all(None)
    await whole.when_finished()


@pytest_twisted.ensureDeferred
async def test_every_number_is_the_same_everywhere(whole: WholeDapi, begin: Begin) -> None:
    await a_whole_poc(whole)
    whole.chain.is_halted = True
    await until(lambda: whole.chain_service.submitter.status()["height"] == whole.chain.height)
    shown = Shown(whole, begin)
    await shown.look()
    rows = shown.rows

    # The chain has what the disk says is confirmed, and the nodes made all of it.
    confirmed = {row for row in rows if row[1] == State.CONFIRMED}
    assert confirmed
    on_chain = {batch_id for _, _, batch_id in whole.chain.state.batches}
    made = {
        content_id(msgspec.convert(entry.batch, ProofBatch))
        for node in whole.nodes.values()
        for entry in node.ledger.delivered(kind="generated")
    }
    by_kind = Counter((kind, state) for kind, state, *_ in rows)
    assert by_kind[Kind.GENERATED, State.CONFIRMED] == len(on_chain) == len(made)
    assert on_chain == made

    # Messages, by kind and state: metrics, status, page, command line.
    for kind in Kind:
        for state in State:
            assert shown.metric("dapi_outbox_messages", kind=kind, state=state) == by_kind[kind, state], (kind, state)
    by_state = Counter(state for _, state in by_kind.elements())
    for batches in (shown.status["batches"], shown.page["batches"], shown.cli_status["batches"]):
        assert batches == {state.value: by_state[state] for state in State}

    # Each node's work: the ledger of the stage, and of the command line.
    assert shown.stage == shown.cli_stage
    for name, node in whole.nodes.items():
        of_node = [row for row in rows if row[2] == name and row[0] == Kind.GENERATED]
        told = shown.stage["nodes"][name]
        assert told["generated"] == told["confirmed"] == len(of_node) == len(node.ledger.delivered(kind="generated"))
        assert told["nonces"] == sum(row[3] for row in of_node)
        assert told["doubled"] == sum(row[4] - 1 for row in of_node)
        assert told["validated"] == len([row for row in rows if row[2] == name and row[0] == Kind.VALIDATED])

    # Each node's deliveries: by way and doubled, in status, page, metrics, and by the node itself.
    for each in shown.status["nodes"]:
        name, batches, row = each["node_id"], each["batches"], shown.page["nodes"][each["node_id"]]
        node = whole.nodes[name]
        ways = {"websocket": row["by_websocket"], "http": row["by_http"]}
        for way, count in ways.items():
            least, most = came(node, way)
            assert least <= count <= most, (name, way)
            kinds = [shown.metric("dapi_batches_received_total", node_id=name, way=way, kind=kind) for kind in Kind]
            assert sum(filter(None, kinds)) == count, (name, way)
        assert batches["generated"] + batches["validated"] == sum(ways.values())
        assert row["doubled"] == batches["doubled"] == shown.metric("dapi_batches_doubled_total", node_id=name)
        assert batches["doubled"] == sum(ways.values()) - len(node.ledger.delivered())
    # The faults were there.
    assert shown.page["nodes"]["one"]["doubled"] > 0
    assert shown.page["nodes"]["three"]["by_http"] == len(whole.nodes["three"].ledger.delivered())
    assert whole.nodes["two"].ledger.connections[0].closed_at is not None
    # Where the chain is.
    heights = {each["chain"]["height"] for each in (shown.status, shown.page, shown.cli_status)}
    assert heights == {whole.chain.height} == {shown.metric("dapi_chain_height")}
