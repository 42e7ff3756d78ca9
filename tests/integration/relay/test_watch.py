"""The watch asks a container and a chain on real sockets, and says what is wrong with the stage."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted

from dapi.chain.rpc import ChainRpc
from dapi.config import PocV2Config
from dapi.relay.api_client import ApiClient
from dapi.relay.watch import Watch
from dapi.service import DapiService, make_service
from dapi.simulator.chain.chain import SimulatedChain
from tests.integration.relay.host import MODEL, Host, P, hosting, reactor
from tests.integration.service.services import config
from tests.integration.waiting import soon, until

PARTICIPANT = "gonka1participant"


@pytest_twisted.async_yield_fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path, is_started=False) as host:
        yield host


@pytest_twisted.ensureDeferred
async def test_stored_and_committed_side_by_side(host: Host) -> None:
    chain = SimulatedChain(reactor, random.Random(1), block_seconds=0.2)
    chain.startService()
    api = host.api
    client = ApiClient(reactor, callback_url=api.callback_url, public_url=api.public_url, admin_url=api.admin_url)
    rpc = ChainRpc(reactor, [chain.url])
    watch = Watch(reactor, client, rpc=rpc, participant=PARTICIPANT, look_seconds=0.05)
    watch.startService()
    try:
        api.statuses = {1: "GENERATING", 2: "GENERATING"}
        api.take_callback(*body())
        await until(lambda: stage(watch).get("stored") == 2)
        assert stage(watch)["committed"] == 0
        chain.state.store_commits[P, PARTICIPANT, MODEL] = 2
        await until(lambda: stage(watch)["committed"] == 2)
        assert watch.status()["troubles"] == []
        # After the end, a commit that has less, and no weights.
        assert api.stage is not None
        chain.state.store_commits[P, PARTICIPANT, MODEL] = 1
        api.see_block(api.stage.validation_start)
        await until(lambda: {each["kind"] for each in watch.status()["troubles"]} == {"tail", "weights"})
        chain.state.node_weights[P, PARTICIPANT, MODEL] = {"node1": 1}
        await until(lambda: {each["kind"] for each in watch.status()["troubles"]} == {"tail"})
        # It is told when the container does not answer, and forgotten when it does.
        await soon(api.stopService())
        await until(lambda: "epochs" in watch.status()["questions"])
        await host.start_api()
        await until(lambda: watch.status()["questions"] == {})
    finally:
        await soon(watch.stopService())
        await soon(chain.stopService())


@pytest_twisted.ensureDeferred
async def test_as_a_part_of_a_whole_dapi(host: Host, tmp_path: Path) -> None:
    api = host.api
    watching = PocV2Config(
        watch=True, api_url=api.callback_url, api_public_url=api.public_url, api_admin_url=api.admin_url
    )
    service: DapiService = make_service(config(tmp_path / "outbox.db", poc_v2=watching), reactor)
    service.startService()
    try:
        watch = service._parts.poc_v2_watch
        assert watch is not None
        await until(lambda: watch.status()["height"] == P)
        status: dict[str, Any] = await soon(service.status())
        assert status["poc_v2_watch"]["knows_commits"] is False
        # It watches, and nothing passes through it.
        assert status["relay"] is None
        assert list(api.posts) == []
    finally:
        await soon(service.stopService())


def body() -> tuple[bytes, str, bytes]:
    """Two artifacts, as the container gets them."""
    from tests.integration.relay.host import PATH, body_of

    return PATH.encode(), "application/json", body_of(1, 4)


def stage(watch: Watch) -> dict[str, Any]:
    """What is known of the stage."""
    stages = watch.status()["stages"]
    return stages[0] if stages else {}
