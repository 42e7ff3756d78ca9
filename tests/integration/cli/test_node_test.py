"""``dapi node test`` with a whole dapi: a rehearsal passes, a PoC cuts it short, the database has nothing of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest_twisted

from dapi.broker.rehearsal import RehearsalState, RehearsalTimes
from dapi.cli.exit_codes import ExitCode
from dapi.messages import Kind
from dapi.service import DapiService
from tests.integration.cli.dapi_process import Begin, Ended, begin, ended
from tests.integration.waiting import until, until_awaited
from tests.integration.whole_dapi import FIRST_POC, SECOND_POC, VALIDATION_END, WholeDapi, when_in, whole

__all__ = ["begin", "whole"]

# A pause of the machine is not to be all of it.
QUICK = RehearsalTimes(rate=4.0)


async def serving(whole: WholeDapi) -> str:
    """Start dapi with a node in the inference phase, far from the next PoC; return the URL of its admin API."""
    whole.node("one")
    whole.produce_to(VALIDATION_END + 2)
    service = whole.start()
    service._parts.rehearsals.times = QUICK
    await when_in(whole.nodes["one"], None)
    await until(lambda: whole.phases.restart_advice().safe and is_on_duty(service))
    return f"http://127.0.0.1:{service.admin_listener.port}"


def is_on_duty(service: DapiService) -> bool:
    """Whether the command that brings the node to inference has ended."""
    (worker,) = service.broker.workers()
    status = worker.status()
    return status.command is None and status.last is not None and status.last.result.succeeded


def rows_of_batches(whole: WholeDapi) -> int:
    """How many generated batches the database has, in whatever state."""
    with closing(sqlite3.connect(whole.folder / "outbox.db")) as database:
        tables = ("unfinished", "finished")
        counts = [f"SELECT count(*) AS number FROM {table} WHERE kind = 'generated'" for table in tables]
        (number,) = database.execute(f"SELECT sum(number) FROM ({' UNION ALL '.join(counts)})").fetchone()
    return int(number)


async def run(begin: Begin, url: str, *arguments: str) -> Ended:
    return await ended(begin(*arguments, "--url", url))


@pytest_twisted.ensureDeferred
async def test_a_node_passes_and_serves_again(whole: WholeDapi, begin: Begin) -> None:
    url = await serving(whole)
    done = await run(begin, url, "node", "test", "one", "--json")
    assert done.code == 0, done
    told = done.json()
    assert [step["result"] for step in told["steps"]] == ["PASS"] * 6
    assert told["nonces_per_second"] > 0
    node = whole.nodes["one"]
    ways = {entry.delivered_via for entry in node.ledger.delivered(kind="generated")}
    assert ways == {"websocket", "http"}
    # By itself: dapi follows the chain, which is in the inference phase.
    await when_in(node, None)
    assert rows_of_batches(whole) == 0


@pytest_twisted.ensureDeferred
async def test_a_poc_cuts_it_short_and_gets_its_batches(whole: WholeDapi, begin: Begin) -> None:
    url = await serving(whole)
    assert whole.service is not None
    rehearsals, outbox = whole.service._parts.rehearsals, whole.service.outbox
    rehearsals.times = RehearsalTimes(rate=1000.0)
    process = begin("node", "test", "one", "--url", url)
    await process.when_written("first batch over the WebSocket")
    whole.produce_to(SECOND_POC)
    done = await ended(process)
    assert (done.code, "cut short" in done.output) == (ExitCode.NO, True)
    assert rehearsals.status("one").state is RehearsalState.CUT_SHORT

    async def is_kept() -> bool:
        return bool((await outbox.batches(kind=Kind.GENERATED)).batches)

    await until_awaited(is_kept)
    kept = (await outbox.batches(kind=Kind.GENERATED, limit=1000)).batches
    assert {row.height for row in kept} == {SECOND_POC}


@pytest_twisted.ensureDeferred
async def test_refused_in_a_poc(whole: WholeDapi, begin: Begin) -> None:
    whole.node("one")
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    refused = await run(begin, f"http://127.0.0.1:{service.admin_listener.port}", "node", "test", "one")
    assert refused.code == ExitCode.REFUSED
    assert "no test now: the chain is in PoCGenerate" in refused.errors
