"""PoC v1 and the relay of PoC v2 in one dapi: each stage is handled by what the chain says."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted

from dapi.config import PocV2Config
from dapi.messages import Kind, State
from dapi.simulator.api.stages import Stage
from tests.integration.relay.host import DURATIONS, MODEL, PATH, Host, P, body_of, hosting
from tests.integration.waiting import soon, until, until_awaited
from tests.integration.whole_dapi import FIRST_POC, LONG, WholeDapi, when_all_is_delivered, whole

__all__ = ["whole"]


@pytest_twisted.async_yield_fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path, is_started=False) as host:
        yield host


def relaying(host: Host, **more: str) -> PocV2Config:
    api = host.api
    urls = {"api_url": api.callback_url, "api_public_url": api.public_url, "api_admin_url": api.admin_url}
    return PocV2Config(relay=True, **urls, **more)  # type: ignore[arg-type]


def base_of(whole: WholeDapi) -> str:
    """What the api container would be told as its callback URL."""
    prefix = (whole.folder / "outbox.db-relay.prefix").read_text().strip()
    return f"http://127.0.0.1:{whole.callback_port}{prefix}"


@pytest_twisted.ensureDeferred
async def test_each_stage_is_handled_by_what_the_chain_says(host: Host, whole: WholeDapi) -> None:
    node = whole.node("node1")
    whole.poc_v2 = relaying(host)
    # The environment of the api container: its callback URL has the prefix, of which v1 knows nothing.
    whole.start()
    base = base_of(whole)
    await whole.stop()
    whole.api_settings["poc_callback_url"] = base
    service = whole.start()
    # A stage of v1: the node gets its command, and its batches go to the chain.
    whole.produce_to(FIRST_POC + 1)
    await whole.when_all("generate")
    await until(lambda: len(whole.chain.state.batches) > 0)
    assert list(host.api.posts) == []
    inits = [call for call in node.ledger.calls if call.path.endswith("/init/generate")]
    assert inits
    assert "/k/" not in str(inits[0])
    # The network moves: no command any more, and what comes for v2 goes to the container.
    whole.chain.state.rules.poc_v2 = True
    whole.produce_to(FIRST_POC + LONG.epoch_length + 1)
    await whole.when_seen(FIRST_POC + LONG.epoch_length + 1)

    async def is_moved() -> bool:
        return bool((await soon(service.status()))["chain"]["state"] == "moved")

    await until_awaited(is_moved)
    calls = [call for call in node.ledger.calls if call.method != "GET"]
    assert (await host.post(body_of(1, 4), base=base))[0] == 200
    await until(lambda: host.stored() == 2)
    status = await soon(service.status())
    assert status["relay"]["counts"]["kept"] == 1
    assert base.rpartition("/k/")[2] not in str(status)
    assert [call for call in node.ledger.calls if call.method != "GET"] == calls
    # And back.
    whole.chain.state.rules.poc_v2 = False
    batches = len(whole.chain.state.batches)
    whole.produce_to(FIRST_POC + 2 * LONG.epoch_length + 2)
    await whole.when_all("generate")
    await until(lambda: len(whole.chain.state.batches) > batches)
    assert len(host.api.posts) == 1


@pytest_twisted.ensureDeferred
async def test_nothing_is_lost_and_nothing_goes_both_ways_while_the_network_moves_and_moves_back(
    host: Host, whole: WholeDapi
) -> None:
    """The chain changes its mind twice within one stage, while the api container is away."""
    node = whole.node("node1")
    whole.poc_v2 = relaying(host)
    service = whole.start()
    base = base_of(whole)
    whole.produce_to(FIRST_POC + 1)
    await whole.when_all("generate")
    await until(lambda: len(whole.chain.state.batches) > 0)
    whole.chain.state.rules.poc_v2 = True

    async def is_state(state: str) -> bool:
        return bool((await soon(service.status()))["chain"]["state"] == state)

    async def is_nothing_in_flight() -> bool:
        return (await soon(service.outbox.counts()))[State.IN_FLIGHT] == 0

    await until_awaited(lambda: is_state("moved"))
    await until_awaited(is_nothing_in_flight)
    # The node goes on, and what it delivers is kept: the network may move back within the window.
    await until(lambda: len(whole.chain.state.batches) < node.ledger.counts["websocket"])
    on_chain = len(whole.chain.state.batches)
    # The container is away, and both kinds of callbacks are answered.
    await soon(host.api.stopService())
    bodies = [body_of(1, 4), body_of(7, 10)]
    for body in bodies:
        assert (await host.post(body, base=base))[0] == 200
    assert len(whole.chain.state.batches) == on_chain
    whole.chain.state.rules.poc_v2 = False
    await until_awaited(lambda: is_state("submitting"))
    await host.start_api()
    await until(lambda: host.stored() == 4)
    node.settings.batches_per_walk = 0
    await when_all_is_delivered(node)
    await whole.when_nothing_is_left()
    assert len(whole.chain.state.batches) > on_chain
    assert {post.target for post in host.api.posts} == {PATH.encode()}
    assert {post.digest for post in host.api.posts} == {hashlib.sha256(body).digest() for body in bodies}
    confirmed = (await soon(service.outbox.batches(kind=Kind.GENERATED, state=State.CONFIRMED))).batches
    assert len(confirmed) == len(whole.chain.state.batches)


@pytest_twisted.ensureDeferred
async def test_a_challenge_is_handed_on_once_the_chain_tells_of_it(host: Host, whole: WholeDapi) -> None:
    whole.poc_v2 = relaying(host, chain_url=whole.chain.url, participant="gonka1me")
    service = whole.start()
    base, start = base_of(whole), P + 300
    # The container knows of it, and epochs/latest does not tell.
    host.api.see_block(start)
    await until(
        lambda: service._parts.poc_v2_watch is not None and service._parts.poc_v2_watch.status()["height"] == start
    )
    host.api.active_challenge = Stage(start, DURATIONS)
    assert (await host.post(body_of(1, 4, height=start), base=base))[0] == 200

    async def is_held() -> bool:
        return bool((await soon(service.status()))["relay"]["held_count"] == 1)

    await until_awaited(is_held)
    assert list(host.api.posts) == []
    whole.chain.state.challenges["gonka1me"] = (start, start + 500)
    await until(lambda: (start, MODEL) in host.api.artifacts)
    assert [post.status for post in host.api.posts] == [200]
