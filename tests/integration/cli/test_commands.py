"""The console script ``dapi`` and a whole dapi between a simulated chain and simulated nodes."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
import pytest_twisted

from dapi.cli.exit_codes import ExitCode
from dapi.config import Secret
from dapi.messages import Kind, State, Via
from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from dapi.outbox.outbox import OutboxEntry
from dapi.submission.rows import Changes, End, lose
from tests.integration.cli.dapi_process import Begin, Ended, begin, ended
from tests.integration.ports import free_port
from tests.integration.waiting import until_awaited
from tests.integration.whole_dapi import FIRST_POC, WholeDapi, whole

__all__ = ["begin", "whole"]

Run = Callable[..., Awaitable[Ended]]


@pytest.fixture
def run(begin: Begin, whole: WholeDapi) -> Run:
    """Runs a command against the dapi that runs, and waits until it ends."""

    async def run(*arguments: str) -> Ended:
        assert whole.service is not None
        url = f"http://127.0.0.1:{whole.service.admin_listener.port}"
        return await ended(begin(*arguments, DAPI_URL=url))

    return run


async def generating(whole: WholeDapi) -> None:
    """Start dapi with two nodes, and wait until a batch that came over a WebSocket is confirmed."""
    for name in ("one", "two"):
        # A batch whose ack is late would come by HTTP as well.
        whole.node(name, ack_wait_seconds=10)
    service = whole.start()
    whole.produce_to(FIRST_POC)

    async def is_confirmed() -> bool:
        rows = (await service.outbox.batches(state=State.CONFIRMED)).batches
        return any(row.via == Via.WEBSOCKET for row in rows)

    await until_awaited(is_confirmed)


@pytest_twisted.ensureDeferred
async def test_looking_at_batches(whole: WholeDapi, run: Run) -> None:
    await generating(whole)
    shown = await run("status")
    assert (shown.code, shown.errors) == (0, "")
    assert "\x1b" not in shown.output
    assert "two" in shown.output
    assert (await run("status", "--json")).json()["batches"]["confirmed"] > 0
    (_,) = (await run("batches", "--state", "confirmed", "--limit", "1", "--json")).json()["batches"]
    listed = (await run("batches", "--state", "confirmed", "--json")).json()["batches"]
    batch = next(each for each in listed if each["via"] == "websocket")
    story = (await run("batch", batch["batch_id"][:16], "--json")).json()
    # It may come again meanwhile, on a busy machine.
    same = ("batch_id", "node_id", "kind", "state", "height", "nonces", "tx_hash", "included_height", "received_at")
    assert [story[name] for name in same] == [batch[name] for name in same]
    assert sum(story["ways"].values()) == story["seen"] > 0
    assert story["transactions"][-1]["code"] == 0
    assert batch["tx_hash"] in (await run("batch", batch["batch_id"])).output
    assert [stage["height"] for stage in (await run("epochs", "--json")).json()["epochs"]] == [FIRST_POC]
    advice = await run("restart-advice")
    assert (advice.code, advice.output[:3]) == (ExitCode.NO, "no:")


@pytest_twisted.ensureDeferred
async def test_changing_nodes_and_commanding_them(whole: WholeDapi, run: Run) -> None:
    await generating(whole)
    assert (await run("node", "disable", "two")).code == 0
    states = {each["node"]["id"]: each["state"] for each in (await run("nodes", "--json")).json()}
    assert (states["one"]["enabled"], states["two"]["enabled"]) == (True, False)
    assert (await run("node", "set", "two", "--max-concurrent", "7", "--json")).json()["max_concurrent"] == 7
    assert (await run("node", "remove", "two", "--yes")).code == 0
    unknown = await run("node", "enable", "two")
    assert (unknown.code, unknown.errors) == (ExitCode.REFUSED, "dapi: no node has the id 'two'\n")
    refused = await run("poc", "stop")
    assert refused.code == ExitCode.REFUSED
    assert "--force" in refused.errors
    assert (await run("poc", "stop", "--force", "--json")).json()["results"]["one"]["status"] == "STOPPED"


async def failed(whole: WholeDapi) -> OutboxEntry:
    """Start dapi, and have it keep a batch that has failed."""
    service = whole.start()
    message = MsgSubmitPocBatch(batch_id="failed", nonces=[1, 2, 3]).SerializeToString()
    # Of no stage that there is, so that nobody sends it.
    entry = OutboxEntry("failed-batch", Kind.GENERATED, "one", 999_999, 3, Via.HTTP, message, "run")
    await service.outbox.put(entry)

    end = End(State.FAILED, 1.0, "AB", reason="sdk 5: no")
    await service.database.write(lambda connection: lose(connection, Changes(), {1}, end))
    return entry


@pytest_twisted.ensureDeferred
async def test_a_failed_batch_is_exported_whole_and_sent_again(whole: WholeDapi, run: Run) -> None:
    entry = await failed(whole)
    (line,) = (await run("export", "--state", "failed")).output.splitlines()
    exported = json.loads(line)
    assert (exported["batch_id"], exported["reason"]) == (entry.batch_id, "sdk 5: no")
    assert base64.b64decode(exported["message"]) == entry.message
    assert (await run("retry", "--all", "--node", "other", "--yes", "--json")).json() == {"retried": 0}
    assert (await run("retry", "--all", "--node", "one", "--yes", "--json")).json() == {"retried": 1}
    story = (await run("batch", entry.batch_id, "--json")).json()
    assert story["ways"] == {"websocket": 0, "http": 1}
    # What the chain says of it from now on comes after it.
    first = story["transactions"][0]
    assert (first["tx_hash"], first["code"], first["codespace"]) == ("AB", 5, "sdk")
    unknown = await run("retry", "nobody")
    assert (unknown.code, unknown.errors) == (ExitCode.REFUSED, "dapi: no batch has the id 'nobody'\n")


@pytest_twisted.ensureDeferred
async def test_backup_while_batches_come(whole: WholeDapi, run: Run, tmp_path: Path) -> None:
    await generating(whole)
    (known,) = (await run("batches", "--state", "confirmed", "--limit", "1", "--json")).json()["batches"]
    done = await run("backup", "copy.db")
    assert (done.code, done.errors) == (0, "")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        found = copy.execute("SELECT state FROM finished WHERE batch_id = ?", (known["batch_id"],)).fetchall()
        assert found == [("confirmed",)]
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    again = await run("backup", "copy.db")
    assert again.code == ExitCode.REFUSED
    assert "nothing is ever overwritten" in again.errors


@pytest_twisted.ensureDeferred
async def test_follow_until_ctrl_c(whole: WholeDapi, begin: Begin) -> None:
    await generating(whole)
    assert whole.service is not None
    url = f"http://127.0.0.1:{whole.service.admin_listener.port}"
    process = begin("batches", "--follow", "--interval", "0.2", "--limit", "1", "--url", url)
    await process.when_written(r"\A.*\n.*\n.*\n")
    process.signal("INT")
    assert await process.when_ended() == ExitCode.INTERRUPTED


@pytest_twisted.ensureDeferred
async def test_no_dapi_answers(begin: Begin) -> None:
    done = await ended(begin("status", "--url", f"http://127.0.0.1:{free_port()}"))
    assert done.code == ExitCode.UNREACHABLE
    assert "no dapi answers at" in done.errors


@pytest_twisted.ensureDeferred
async def test_a_dapi_that_asks_for_a_token(whole: WholeDapi, begin: Begin, tmp_path: Path) -> None:
    token = "a-token-that-is-long-enough"
    whole.api_settings = {"admin_token": Secret(token)}
    url = f"http://127.0.0.1:{whole.start().admin_listener.port}"
    refused = await ended(begin("nodes", "--url", url))
    assert refused.code == ExitCode.REFUSED
    assert "--token-file, or DAPI_ADMIN_TOKEN" in refused.errors
    assert (await ended(begin("nodes", "--url", url, DAPI_ADMIN_TOKEN=token))).code == 0
    (tmp_path / "token").write_text(f"{token}\n")
    unknown = await ended(begin("node", "disable", "x", "--url", url, "--token-file", "token"))
    assert unknown.errors == "dapi: no node has the id 'x'\n"
