"""``dapi check`` and ``dapi restore`` as processes, beside a simulated chain and a simulated node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest_twisted

from dapi.cli.exit_codes import ExitCode
from dapi.database.file import open_prepared
from tests.integration.cli.dapi_process import Begin, begin, ended
from tests.integration.ports import free_port
from tests.integration.whole_dapi import WholeDapi, whole

__all__ = ["begin", "whole"]


def settings(whole: WholeDapi, folder: Path, *, relay: bool = False, **chain: str) -> str:
    """Write the settings of a dapi between this chain and its nodes; return their path."""
    api = {"ml_server_host": "127.0.0.1", "ml_server_port": free_port(), "admin_server_port": free_port()}
    node = whole.nodes["one"]
    config: dict[str, Any] = {
        "api": {**api, "poc_callback_url": f"http://127.0.0.1:{api['ml_server_port']}"},
        "chain_node": {"url": whole.chain.url, "key_file": str(whole.key_file), **chain},
        "poc_v2": {"relay": relay},
        "storage": {"path": str(folder / "outbox.db"), "reserve_bytes": 2**23},
        "nodes": [
            {
                "id": "one",
                "host": "127.0.0.1",
                "poc_port": node.port,
                "inference_port": 1,
                "models": {"m": {"args": []}},
            }
        ],
    }
    path = folder / "config.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


@pytest_twisted.ensureDeferred
async def test_all_that_can_be_tried(whole: WholeDapi, begin: Begin, tmp_path: Path) -> None:
    whole.node("one")
    whole.chain.produce_block()
    done = await ended(begin("check", "--config", settings(whole, tmp_path), "--json"))
    assert (done.code, done.errors) == (0, ""), done
    results = {each["name"].partition(" 127.")[0]: each["result"] for each in done.json()["checks"]}
    passing = {
        "settings",
        "key",
        "database",
        "disk",
        "callback port",
        "admin port",
        "admin API",
        "callback URL",
        "open files",
    }
    passing |= {"chain node", "clock", "phases", f"account {whole.key.address}", "node one"}
    assert {name for name, result in results.items() if result == "PASS"} == passing
    assert results["grants"] == results["callback URL, from the nodes"] == "SKIPPED"
    assert not (tmp_path / "outbox.db").exists()


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_down_and_no_grant(whole: WholeDapi, begin: Begin, tmp_path: Path) -> None:
    await whole.node("one").stopService()
    whole.chain.produce_block()
    cold = "A" + "k" * 43
    done = await ended(begin("check", "--config", settings(whole, tmp_path, account_public_key=cold), "--json"))
    assert done.code == ExitCode.NO, done
    failures = {each["name"]: each for each in done.json()["checks"] if each["result"] == "FAIL"}
    assert set(failures) == {"node one", "grants"}
    assert "grant-ml-ops-permissions" in failures["grants"]["to_do"]


@pytest_twisted.ensureDeferred
async def test_a_node_of_another_version(whole: WholeDapi, begin: Begin, tmp_path: Path) -> None:
    whole.node("one")
    whole.chain.produce_block()
    config = Path(settings(whole, tmp_path))
    config.write_text(config.read_text().replace('"id": "one"', '"id": "one", "version": "v9.9.9"'))
    done = await ended(begin("check", "--config", str(config), "--json"))
    (failure,) = [each for each in done.json()["checks"] if each["result"] == "FAIL"]
    assert "404" in failure["found"]
    assert failure["to_do"].startswith("look at its version and poc_port")


@pytest_twisted.ensureDeferred
async def test_chain_nodes_of_another_chain_than_the_database(whole: WholeDapi, begin: Begin, tmp_path: Path) -> None:
    whole.node("one")
    whole.chain.produce_block()
    config = settings(whole, tmp_path)
    connection = open_prepared(tmp_path / "outbox.db")
    for chain_id, code in ((whole.chain.state.chain_id, 0), ("the-first-network", ExitCode.NO)):
        connection.execute("DELETE FROM chain")
        connection.execute("INSERT INTO chain (id, height, time_ns, hash) VALUES (?, 1, 1, '')", (chain_id,))
        done = await ended(begin("check", "--config", config, "--json"))
        assert done.code == code, done
    connection.close()
    (failure,) = [each for each in done.json()["checks"] if each["result"] == "FAIL"]
    assert "the database is of the chain the-first-network, and the chain nodes are of gonka-sim" in failure["found"]
    assert "set chain nodes of the right network" in failure["to_do"]


@pytest_twisted.ensureDeferred
async def test_a_network_that_runs_poc_v2(whole: WholeDapi, begin: Begin, tmp_path: Path) -> None:
    whole.node("one")
    whole.chain.state.rules.poc_v2 = True
    whole.chain.produce_block()
    for relay, expected in ((False, "FAIL"), (True, "PASS")):
        done = await ended(begin("check", "--config", settings(whole, tmp_path, relay=relay), "--json"))
        (phases,) = [each for each in done.json()["checks"] if each["name"] == "phases"]
        assert (phases["result"], "PoC v2" in phases["found"]) == (expected, True)


@pytest_twisted.ensureDeferred
async def test_a_dapi_starts_from_a_copy(whole: WholeDapi, begin: Begin, tmp_path: Path) -> None:
    whole.node("one")
    service = whole.start()
    url = f"http://127.0.0.1:{service.admin_listener.port}"
    assert (await ended(begin("backup", "copy.db", DAPI_URL=url))).code == 0
    database = str(tmp_path / "outbox.db")
    busy = await ended(begin("restore", "copy.db", "--database", database, "--yes"))
    assert (busy.code, "in use by another dapi" in busy.errors) == (ExitCode.REFUSED, True)
    await whole.stop()
    restored = await ended(begin("restore", "copy.db", "--database", database, "--yes", "--json"))
    assert restored.code == 0, restored
    assert Path(restored.json()["moved_to"]).exists()
    service = whole.start()
    done = await ended(begin("status", "--json", DAPI_URL=f"http://127.0.0.1:{service.admin_listener.port}"))
    assert done.json()["database"]["state"] == "ok"
