"""``GET /metrics`` of a whole dapi."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.web.client import Agent

from dapi.config import ChainNodeConfig
from dapi.service import DapiService
from tests.batches import generated_fields, validated_fields
from tests.integration.service.services import Start, call, config, entry, node
from tests.integration.waiting import soon, until_awaited
from tests.metric_samples import Series, series_of, value_of


async def scrape(service: DapiService) -> dict[Series, float]:
    url = f"http://127.0.0.1:{service.admin_listener.port}/metrics"
    response = await soon(treq.get(url, agent=Agent(reactor)))
    assert response.code == 200
    return series_of(await treq.content(response))


async def garbage(service: DapiService, seed: int) -> None:
    """Send to both ports what nobody should send: other garbage for each seed, refused for the same reasons."""
    words = random.Random(seed)
    word = f"{words.getrandbits(64):x}"
    callbacks, admin = service.callback_listener.port, service.admin_listener.port
    for port, path, body in (
        (callbacks, f"/{word}", None),
        (callbacks, f"/v1/poc-batches/{word}", {word: word}),
        (callbacks, "/v1/poc-batches/generated", {word: word}),
        (callbacks, "/v1/poc-batches/generated", generated_fields(node_id=words.getrandbits(30) + 1000)),
        (callbacks, "/v1/poc-batches/validated", validated_fields(public_key=word)),
        (callbacks, "/v1/poc-batches/validated", validated_fields(block_height=words.getrandbits(30))),
        (callbacks, "/v1/poc-batches/validated", validated_fields(block_hash=word, node_id=words.getrandbits(30))),
        (admin, f"/{word}", None),
        (admin, f"/admin/v1/nodes/{word}/enable", {}),
        (admin, "/admin/v1/nodes", {"id": word}),
        (admin, f"/admin/v1/batches?kind={word}", None),
    ):
        await call(port, path, body)


@pytest_twisted.ensureDeferred
async def test_no_series_grows_with_what_comes_from_outside(tmp_path: Path, start: Start) -> None:
    service = await start(config(tmp_path / "a.db", node("a")))
    await garbage(service, 1)
    await scrape(service)
    before = await scrape(service)
    for seed in range(2, 5):
        await garbage(service, seed)
    after = await scrape(service)
    assert set(after) == set(before)
    refused = {"node_id": "", "way": "http", "reason": "unknown_node"}
    assert value_of(after, "dapi_batches_refused_total", **refused) == 4
    received = {"node_id": "", "way": "http", "kind": "validated"}
    assert value_of(after, "dapi_batches_received_total", **received) == 4 * 3


@pytest_twisted.ensureDeferred
async def test_two_in_one_process_do_not_mix(tmp_path: Path, start: Start) -> None:
    one = await start(config(tmp_path / "a.db", node("a")))
    other = await start(config(tmp_path / "b.db", node("b")))
    await one.outbox.put(entry("batch"))
    of_one, of_other = await scrape(one), await scrape(other)
    for found, node_id, stored in ((of_one, "a", 1), (of_other, "b", 0)):
        assert {dict(labels)["node_id"] for name, labels in found if name == "dapi_node_enabled"} == {node_id}
        assert value_of(found, "dapi_outbox_messages", kind="generated", state="stored") == stored


@pytest_twisted.ensureDeferred
async def test_problems_and_the_chain_are_told(tmp_path: Path, start: Start) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("1" * 64)
    key_file.chmod(0o600)
    chain_node = ChainNodeConfig(url="http://127.0.0.1:1", key_file=str(key_file))
    service = await start(config(tmp_path / "a.db", chain_node=chain_node))

    async def is_told() -> dict[Series, Any] | None:
        found = await scrape(service)
        return found if value_of(found, "dapi_problems", id="chain-unreachable", severity="critical") else None

    found = await until_awaited(is_told)
    assert found is not None
    assert value_of(found, "dapi_chain_node_sound", chain_node="127.0.0.1:1") == 0
    assert value_of(found, "dapi_sending_state", state="waiting") == 1
    assert value_of(found, "dapi_restart_safe") == 0
    # Nothing is known of it: no number stands for that.
    assert value_of(found, "dapi_chain_height") is None


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_closed_leaves_out_what_only_it_can_tell(tmp_path: Path, start: Start) -> None:
    service = await start(config(tmp_path / "a.db"))
    await service.database.stopService()
    found = await scrape(service)
    names = {name for name, _ in found}
    assert "dapi_build_info" in names
    assert not {"dapi_outbox_messages", "dapi_disk_free_bytes"} & names
