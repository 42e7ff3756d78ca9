"""What ``dapi check`` finds of PoC v2: the api container, the chain, and the URL that the nodes are given."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest_twisted
from twisted.internet.defer import Deferred

from dapi.cli.checks.poc_v2 import poc_v2_checks
from dapi.cli.checks.result import Check
from dapi.config import Config, PocV2Config
from dapi.service import make_service
from dapi.simulator.chain.chain import SimulatedChain
from tests.integration.relay.host import MODEL, Host, P, hosting, reactor
from tests.integration.service.services import config
from tests.integration.waiting import soon

URL = "callback URL of PoC v2"


@pytest_twisted.async_yield_fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path, is_started=False) as host:
        yield host


def settings(host: Host, folder: Path, *, callback_url: str | None = None, **changes: Any) -> Config:
    api = host.api
    changes = {
        "api_url": api.callback_url,
        "api_public_url": api.public_url,
        "api_admin_url": api.admin_url,
        **changes,
    }
    whole = config(folder / "outbox.db", poc_v2=PocV2Config(relay=True, **changes))
    return msgspec.structs.replace(whole, api=msgspec.structs.replace(whole.api, poc_callback_url=callback_url))


async def checked(wanted: Config) -> dict[str, Check]:
    checks = await soon(Deferred.fromCoroutine(poc_v2_checks(reactor, wanted)))
    for check in checks:
        assert check.result != "FAIL" or check.to_do
    return {check.name: check for check in checks}


@pytest_twisted.ensureDeferred
async def test_beside_a_dapi_that_runs(host: Host, tmp_path: Path) -> None:
    chain = SimulatedChain(reactor, random.Random(1))
    chain.startService()
    chain.state.store_commits[P, "gonka1me", MODEL] = 825
    chain.produce_block()
    service = make_service(settings(host, tmp_path), reactor)
    service.startService()
    try:
        prefix = (tmp_path / "outbox.db-relay.prefix").read_text().strip()
        base = f"http://127.0.0.1:{service.callback_listener.port}"
        wanted = settings(host, tmp_path, callback_url=f"{base}{prefix}", chain_url=chain.url, participant="gonka1me")
        found = await checked(wanted)
        assert {name: check.result for name, check in found.items()} == {
            "api container, callbacks": "PASS",
            "api container, epochs": "PASS",
            "api container, nodes": "PASS",
            "api container, state": "PASS",
            "commits": "PASS",
            URL: "PASS",
            f"{URL}, from the nodes": "SKIPPED",
        }
        assert "825 artifacts of stage" in found["commits"].found
        assert not any(prefix in f"{check.found} {check.to_do}" for check in found.values())
        other = f"{base}/k/{'x' * 43}"
        for url, words in ((other, "another one"), (base, "no prefix"), (f"{base}{prefix}/", "ends with a slash")):
            check = (await checked(settings(host, tmp_path, callback_url=url)))[URL]
            assert (check.result, words in check.found) == ("FAIL", True), check
        await soon(host.api.stopService())
        found = await checked(wanted)
        assert [check.name for check in found.values() if check.result == "FAIL"] == [
            "api container, callbacks",
            "api container, epochs",
            "api container, nodes",
            URL,
        ]
        assert "HTTP 502" in found[URL].found
    finally:
        await soon(service.stopService())
        await soon(chain.stopService())


@pytest_twisted.ensureDeferred
async def test_before_the_first_start(host: Host, tmp_path: Path) -> None:
    found = await checked(settings(host, tmp_path))
    assert (found[URL].result, found["commits"].result) == ("SKIPPED", "SKIPPED")
    found = await checked(settings(host, tmp_path, callback_url=f"http://10.9.9.9/k/{'x' * 43}"))
    assert found[URL].result == "SKIPPED"
    off = config(tmp_path / "outbox.db")
    assert await checked(off) == {}
    assert not (tmp_path / "outbox.db").exists()
