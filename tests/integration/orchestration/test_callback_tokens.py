"""Nodes that deliver with a token, those that still have none, and strangers, on a whole dapi."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor as global_reactor
from twisted.web.client import Agent

from dapi.database.schema import SCHEMA_VERSIONS
from dapi.messages import Kind
from dapi.outbox.pages import BatchRow
from dapi.service.assembly import Parts
from dapi.simulator.ml_node.node import SimulatedMLNode
from tests.batches import PUBLIC_KEY, generated_fields, validated_fields
from tests.integration.service.services import call
from tests.integration.waiting import soon, until
from tests.integration.whole_dapi import (
    FIRST_POC,
    SECOND_POC,
    VALIDATION_START,
    WholeDapi,
    when_all_is_delivered,
    whole,
)
from tests.logs import Log, captured_log

__all__ = ["whole"]

reactor: Any = global_reactor


@pytest.fixture
def log() -> Iterator[Log]:
    with captured_log() as log:
        yield log


def told_url(node: SimulatedMLNode) -> str:
    """The callback base that a node was told."""
    assert node.run is not None
    return node.run.request.url


async def post(url: str, fields: dict[str, Any]) -> tuple[int, bytes]:
    response = await soon(treq.post(url, json=fields, agent=Agent(reactor)))
    return response.code, await treq.content(response)


async def stop_making(whole: WholeDapi) -> None:
    for node in whole.nodes.values():
        node.settings.batches_per_walk = 0
        await when_all_is_delivered(node)


async def jump(whole: WholeDapi, height: int) -> None:
    """Have the nodes make no more, and go to a height at once: no batch is lost to the end of its window."""
    await stop_making(whole)
    await whole.when_finished()
    whole.produce_to(height)


@pytest_twisted.ensureDeferred
async def test_only_a_nodes_own_token_stores_and_it_is_shown_nowhere(whole: WholeDapi, log: Log) -> None:
    node = whole.node("node1", websocket=False)
    other = whole.node("node2", websocket=False)
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    await soon(node.ledger.when_delivered(2, via="http"))
    await stop_making(whole)
    tokens = [told_url(each).rpartition("/")[2] for each in (node, other)]
    assert tokens[0].startswith("cb-1-1-")
    assert tokens[1].startswith("cb-2-1-")
    base = service.callback_url

    async def batches() -> list[BatchRow]:
        # The seed, and what declares the nodes, is recorded at any time.
        generated = (await service.outbox.batches(kind=Kind.GENERATED, limit=1000)).batches
        return generated + (await service.outbox.batches(kind=Kind.VALIDATED, limit=1000)).batches

    rows = len(await batches())
    for token in ("", "/x", f"/{tokens[0][:-1]}", f"/{tokens[0].replace('cb-1', 'cb-2')}"):
        for kind, fields in (("generated", generated_fields()), ("validated", validated_fields(public_key=PUBLIC_KEY))):
            code, body = await post(f"{base}{token}/{kind}", fields)
            assert (code, json.loads(body)["error"][:30]) == (403, "the path has no right callback")
    assert len(await batches()) == rows
    # Nodes can lie about what they are, and store nothing for another one.
    assert await post(f"{told_url(node)}/generated", generated_fields(node_id=2)) == (200, b"")
    newest = (await batches())[0]
    assert newest.node_id == "node1"

    admin = service.admin_listener.port
    _, status = await call(admin, "/admin/v1/status")
    assert status["callbacks"]["refused_by_address"] == {"127.0.0.1": 8}
    assert status["callbacks"]["unproven"] == "refused"
    assert any("without a right token are refused: 8" in each["problem"] for each in status["problems"])
    shown = [json.dumps(status), *log.lines()]
    shown += [json.dumps((await call(admin, f"/admin/v1/{route}"))[1]) for route in ("nodes", "epochs", "batches")]
    assert "was refused" in "".join(shown)
    for text in shown:
        assert "cb-1-" not in text
        assert not any(token[-43:] in text for token in tokens)


@pytest_twisted.ensureDeferred
async def test_a_token_that_is_rotated_is_right_until_the_stage_ends(whole: WholeDapi) -> None:
    node = whole.node("node1", websocket=False)
    service = whole.start()
    whole.produce_to(FIRST_POC)
    await whole.when_all("generate")
    await soon(node.ledger.when_delivered(1, via="http"))
    first = told_url(node)
    assert (await call(service.admin_listener.port, "/admin/v1/nodes/node1/rotate", {}))[0] == 200
    assert (await call(service.admin_listener.port, "/admin/v1/nodes/other/rotate", {}))[0] == 404
    run = node.run
    await whole.stop()
    service = whole.start()
    delivered = len(node.ledger.delivered())
    await soon(node.ledger.when_delivered(delivered + 2, via="http"))
    await jump(whole, VALIDATION_START)
    await whole.when_all("validate")
    assert node.run is run
    await whole.when_handed_out()
    await jump(whole, SECOND_POC)
    await until(lambda: node.run is not None and node.run is not run and node.run.phase == "generate")
    assert "/cb-1-2-" in told_url(node)
    assert (await post(f"{first}/generated", generated_fields()))[0] == 403
    node.settings.batches_per_walk = 1
    delivered = len(node.ledger.delivered())
    await soon(node.ledger.when_delivered(delivered + 1, via="http"))


def make_earlier(path: Path, added: str) -> None:
    """Make a database that of the version before the one that added a column: with those rows, in its tables."""
    version = next(number for number, script in enumerate(SCHEMA_VERSIONS) if added in script)
    later = path.rename(path.with_suffix(".later"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("ATTACH ? AS later", (str(later),))
        for script in SCHEMA_VERSIONS[:version]:
            database.executescript(script)
        tables = [name for (name,) in database.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [
                {name for _, name, *_ in database.execute(f"PRAGMA {schema}.table_info({table})")}
                for schema in ("main", "later")
            ]
            names = ", ".join(sorted(set.intersection(*columns)))
            if names and not table.startswith("sqlite_"):
                database.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM later.{table}")
        for pragma in ("application_id", "page_size"):
            database.execute(f"PRAGMA main.{pragma} = {database.execute(f'PRAGMA later.{pragma}').fetchone()[0]}")
        database.execute(f"PRAGMA user_version = {version}")


@pytest_twisted.ensureDeferred
async def test_an_upgrade_in_the_middle_of_a_stage_loses_no_batch(
    whole: WholeDapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = whole.node("node1", websocket=False)
    with monkeypatch.context() as earlier:
        # What dapi told nodes before there were tokens.
        earlier.setattr(Parts, "_told_url", lambda self, node_num, token_num: self.callback_url())
        whole.start()
        whole.produce_to(FIRST_POC)
        await whole.when_all("generate")
        await whole.stop()
    make_earlier(whole.folder / "outbox.db", "token_num")
    (whole.folder / "outbox.db.secret").unlink()

    run, inits = node.run, len([call for call in node.ledger.calls if "init" in call.path])
    service = whole.start()
    delivered = len(node.ledger.delivered())
    await soon(node.ledger.when_delivered(delivered + 3, via="http"))
    await until(lambda: len([call for call in node.ledger.calls if "init" in call.path]) > inits)
    # The init was the same, so that nothing began anew.
    assert node.run is run
    assert told_url(node) == service.callback_url
    assert (await service.status())["callbacks"]["unproven"] == "until the next stage"
    await jump(whole, VALIDATION_START)
    await whole.when_all("validate")
    assert node.run is run
    await whole.when_handed_out()
    await jump(whole, SECOND_POC)
    await until(lambda: node.run is not None and node.run is not run and node.run.phase == "generate")
    assert "/cb-1-1-" in told_url(node)
    assert (await service.status())["callbacks"]["unproven"] == "refused"
    assert (await post(f"{service.callback_url}/generated", generated_fields()))[0] == 403
    node.settings.batches_per_walk = 1
    delivered = len(node.ledger.delivered())
    await soon(node.ledger.when_delivered(delivered + 2, via="http"))
    await stop_making(whole)
    await whole.when_nothing_is_left()
