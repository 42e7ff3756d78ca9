"""The relay as a part of a whole dapi: set, it stands on the callback port; not set, nothing of it is there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from dapi.config import PocV2Config, TlsConfig
from dapi.http.exchange import Exchanges
from dapi.service import DapiService, make_service
from dapi.simulator.api.api import SimulatedApi
from tests.integration.certificates import Authority
from tests.integration.relay.host import DURATIONS, PATH, Host, P, body_of, hosting, reactor
from tests.integration.service.services import config
from tests.integration.waiting import PATIENCE_SECONDS, soon, until, until_awaited


async def ask(port: int, path: str, body: bytes | None = None) -> int:
    exchanges = Exchanges(reactor, None, PATIENCE_SECONDS)
    method = "GET" if body is None else "POST"
    url = f"http://127.0.0.1:{port}{path}"
    status, _ = await soon(Deferred.fromCoroutine(exchanges.exchange(method, url, body)))
    await exchanges.close()
    return status


async def told(port: int, path: str) -> Any:
    exchanges = Exchanges(reactor, None, PATIENCE_SECONDS)
    _, body = await soon(Deferred.fromCoroutine(exchanges.exchange("GET", f"http://127.0.0.1:{port}{path}", None)))
    await exchanges.close()
    return json.loads(body)


def relaying(api: SimulatedApi) -> PocV2Config:
    return PocV2Config(relay=True, api_url=api.callback_url, api_public_url=api.public_url, api_admin_url=api.admin_url)


@pytest_twisted.async_yield_fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path, is_started=False) as host:
        yield host


@pytest_twisted.ensureDeferred
async def test_a_callback_goes_through_a_whole_dapi(host: Host, tmp_path: Path) -> None:
    service: DapiService = make_service(config(tmp_path / "outbox.db", poc_v2=relaying(host.api)), reactor)
    service.startService()
    try:
        prefix = (tmp_path / "outbox.db-relay.prefix").read_text().strip()
        port = service.callback_listener.port
        assert await ask(port, f"{prefix}{PATH}", body_of(1, 4)) == 200
        assert await ask(port, PATH, body_of(7)) == 403
        await until(lambda: host.stored() == 2)
        status: dict[str, Any] = await soon(service.status())
        assert status["relay"]["stage"] == P
        assert prefix not in str(status)
        admin = service.admin_listener.port
        advice = await told(admin, "/admin/v1/restart")
        assert (advice["safe"], advice["api_container"]["safe"]) == (False, False)
        assert advice["safe_at"] == P + DURATIONS.poc_stage_duration + 25
        host.api.see_block(advice["safe_at"])

        async def may_be_restarted() -> bool:
            return bool((await told(admin, "/admin/v1/restart"))["safe"])

        await until_awaited(may_be_restarted)
        # It is described, and its prefix is not told.
        described = await told(port, "/openapi.json")
        assert "/k/{prefix}/v2/poc-batches/{model}/generated" in described["paths"]
        # dapi's own routes are where they were.
        assert await ask(port, "/v1/poc-batches/generated", b"{}") in (400, 403)
    finally:
        await soon(service.stopService())


@pytest_twisted.ensureDeferred
async def test_not_set_nothing_of_it_is_there(host: Host, tmp_path: Path) -> None:
    service: DapiService = make_service(config(tmp_path / "outbox.db"), reactor)
    service.startService()
    try:
        port = service.callback_listener.port
        for path in (PATH, f"/k/{'x' * 43}{PATH}"):
            assert await ask(port, path, body_of(1)) == 404
        assert (await soon(service.status()))["relay"] is None
        assert {path.name for path in tmp_path.iterdir() if "relay" in path.name} == set()
        assert list(host.api.posts) == []
    finally:
        await soon(service.stopService())


class Told(Resource):
    """What a container tells that is at the height 7 and has no node, whatever it is asked."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        if request.path == b"/metrics":
            return b"process_start_time_seconds 1\n"
        if request.path == b"/admin/v1/nodes":
            return b"[]"
        return b'{"block_height": 7, "epoch_params": {"poc_stage_duration": 60}}'


@pytest.mark.parametrize("part", ["relay", "watch"])
@pytest_twisted.ensureDeferred
async def test_a_container_behind_tls_is_asked_by_the_hosts_own_authorities(part: str, tmp_path: Path) -> None:
    authority = Authority()
    port = reactor.listenSSL(0, Site(Told()), authority.options_for("127.0.0.1"), interface="127.0.0.1")
    url = f"https://127.0.0.1:{port.getHost().port}"
    poc_v2 = PocV2Config(
        relay=part == "relay", watch=part == "watch", api_url=url, api_public_url=url, api_admin_url=url
    )
    tls = TlsConfig(ca_file=authority.write(tmp_path))
    service: DapiService = make_service(config(tmp_path / "outbox.db", poc_v2=poc_v2, tls=tls), reactor)
    service.startService()
    try:

        async def is_known() -> bool:
            found: dict[str, Any] = (await soon(service.status()))["relay" if part == "relay" else "poc_v2_watch"]
            return bool(found["height"] == 7)

        await until_awaited(is_known)
    finally:
        await soon(service.stopService())
        await soon(maybeDeferred(port.stopListening))
