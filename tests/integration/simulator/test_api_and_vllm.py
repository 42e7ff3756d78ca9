"""The simulated api container and a vLLM's sender, on real sockets."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred

from dapi.http.exchange import Exchanges
from dapi.simulator.api.api import ApiState, SimulatedApi
from dapi.simulator.api.settings import ApiSettings
from dapi.simulator.api.stages import Stage
from dapi.simulator.vllm.sender import SimulatedVllm, callback_path, generated_body
from dapi.simulator.vllm.settings import SenderSettings
from tests.integration.ports import free_port
from tests.integration.waiting import PATIENCE_SECONDS, soon, until

reactor: Any = global_reactor
MODEL = "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"
P = 1_728_000


def quick(factor: float) -> SenderSettings:
    """A sender that hurries, and gives a try the time that a busy machine needs."""
    scaled = SenderSettings(artifacts_per_second=1000).scaled(factor)
    return msgspec.structs.replace(scaled, try_seconds=PATIENCE_SECONDS)


@pytest_twisted.async_yield_fixture
async def api() -> AsyncIterator[SimulatedApi]:
    settings = ApiSettings(flush_seconds=0.1, unsynced_seconds=0.05, many_commits_a_block=True)
    ports = (free_port(), free_port(), free_port())
    api = SimulatedApi(reactor, settings, nodes={1: MODEL, 2: MODEL}, ports=ports)
    api.stage, api.height = Stage(P), P
    api.startService()
    await until(lambda: api.state is ApiState.RUNNING)
    yield api
    if api.running:
        await api.stopService()


async def ask(method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    exchanges = Exchanges(reactor, None, PATIENCE_SECONDS)
    answer = await soon(Deferred.fromCoroutine(exchanges.exchange(method, url, body)))
    await exchanges.close()
    return answer


@pytest_twisted.ensureDeferred
async def test_golden_bodies_come_byte_for_byte(api: SimulatedApi) -> None:
    body = generated_body(P, 1, [1, 5, 9])
    url = api.callback_url + callback_path(MODEL, "generated")
    assert await ask("POST", url, body) == (200, b"")
    (post,) = api.posts
    assert post.target == b"/v2/poc-batches/Qwen%252FQwen3-235B-A22B-Instruct-2507-FP8/generated"
    assert post.digest == hashlib.sha256(body).digest()
    state = f"{api.public_url}/v1/poc/artifacts/state"
    status, text = await ask("GET", f"{state}?height={P}&model_id=Qwen%2FQwen3-235B-A22B-Instruct-2507-FP8")
    assert status == 200
    assert b'"root_hash"' in text
    for query, status in (("", 400), ("?height=x", 400), (f"?height={P}", 400), (f"?height={P}&model_id=other", 404)):
        assert (await ask("GET", state + query))[0] == status
    assert (await ask("GET", api.callback_url + callback_path(MODEL, "generated")))[0] == 405
    assert (await ask("GET", f"{api.callback_url}/v2/poc-batches/generated"))[0] == 404
    assert b"process_start_time_seconds" in (await ask("GET", f"{api.callback_url}/metrics"))[1]
    assert b'"poc_exchange_duration"' not in (await ask("GET", f"{api.public_url}/v1/epochs/latest"))[1]
    assert b'"node_num": 2' in (await ask("GET", f"{api.admin_url}/admin/v1/nodes"))[1]


@pytest_twisted.ensureDeferred
async def test_a_sender_delivers_all_that_it_made_over_a_crash(api: SimulatedApi) -> None:
    sender = SimulatedVllm(reactor, api.callback_url, node_num=1, node_count=3, model=MODEL, settings=quick(0.02))
    sender.generate(P)
    await until(lambda: api.committed(P, MODEL) > 0)
    before = api.started_at
    await soon(Deferred.fromCoroutine(api.crash(0.1)))
    assert api.started_at > before
    delivered = sender.counts.delivered
    await until(lambda: sender.counts.delivered > delivered)
    await until(lambda: api.committed(P, MODEL) + api.lost >= delivered)
    await soon(sender.stop())
    counts = sender.counts
    assert counts.made == counts.delivered + counts.forgotten


@pytest_twisted.ensureDeferred
async def test_a_payload_is_dropped_after_the_10th_failure(api: SimulatedApi) -> None:
    api.height = P - 1
    sender = SimulatedVllm(reactor, api.callback_url, node_num=1, node_count=3, model=MODEL, settings=quick(0.001))
    sender.generate(P)
    await until(lambda: len(api.posts) > 10)
    digests = [post.digest for post in api.posts]
    assert len(set(digests[:10])) == 1
    assert digests[10] != digests[0]
    assert sender.counts.dropped > 0
    # Any status below 400 counts as delivered, and so a redirect loses what it answers.
    api.height, api.faults.status = P, 302
    await until(lambda: sender.counts.delivered > 0)
    await soon(sender.stop())
    assert api.artifacts == {}


@pytest_twisted.ensureDeferred
async def test_a_try_ends_in_time_when_the_container_hangs(api: SimulatedApi) -> None:
    api.faults.hangs = True
    settings = SenderSettings(artifacts_per_second=1000).scaled(0.01)
    sender = SimulatedVllm(reactor, api.callback_url, node_num=1, node_count=3, model=MODEL, settings=settings)
    sender.generate(P)
    await until(lambda: sender.counts.tries >= 2)
    made = sender.counts.made
    await soon(sender.stop())
    # It forgets all of it: there is no last flush.
    assert sender.counts.forgotten >= made
