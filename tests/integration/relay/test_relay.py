"""What comes to the relay gets to the api container, byte for byte, whatever happens on the way."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from dapi.simulator.api.api import ApiState
from dapi.simulator.api.stages import Stage
from dapi.simulator.vllm.sender import callback_path
from tests.integration.relay.host import DURATIONS, MODEL, PATH, Host, P, body_of, hosting
from tests.integration.waiting import soon, until


@pytest_twisted.async_yield_fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path) as host:
        yield host


@pytest_twisted.async_yield_fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Host]:
    """One that takes for lost what is not on the container's disk after a second."""
    async with hosting(tmp_path, settled_seconds=1.0) as host:
        yield host


@pytest_twisted.ensureDeferred
async def test_a_callback_gets_there_byte_for_byte_and_is_settled(host: Host) -> None:
    body = body_of(1, 4, 7)
    assert await host.post(body) == (200, b"")
    await until(lambda: host.states().get("settled") == 1)
    (post,) = host.api.posts
    assert post.target == PATH.encode()
    assert post.digest == hashlib.sha256(body).digest()
    assert host.stored() == 3
    # Its body is kept until the stage ends, and then the disk has its room back.
    assert len(host.files()) == 1
    host.api.see_block(host.api.stage.end + 1 if host.api.stage else 0)
    await until(lambda: not host.files())
    await until(lambda: host.relay.store.bytes == 0)


@pytest_twisted.ensureDeferred
async def test_the_same_body_twice_is_kept_once(host: Host) -> None:
    for _ in range(3):
        assert await host.post(body_of(1, 4)) == (200, b"")
    assert await host.post(body_of(1, 4), callback_path("other/model", "generated")) == (200, b"")
    await until(lambda: host.states().get("settled") == 1)
    assert host.states()["doubled"] == 2
    assert len(host.api.posts) == 1
    # The other model is run by none of the host's nodes.
    assert [each["reason"] for each in host.relay.status()["held"]] == ["none of the host's nodes runs its model"]


@pytest_twisted.ensureDeferred
async def test_the_prefix_is_required(host: Host) -> None:
    base = f"http://127.0.0.1:{host.port}"
    for wrong in (base, f"{base}/k/{'u' * 43}", f"{base}/k/", f"{host.base}x"):
        status, answer = await host.post(body_of(1), base=wrong)
        assert status == 403
        assert b"prefix" in answer
    assert host.files() == []
    assert host.relay.status()["refused"] == 4


@pytest_twisted.ensureDeferred
async def test_what_the_container_must_not_get_is_held_until_it_can_be_right(host: Host) -> None:
    assert (await host.post(body_of(1, height=P + 400)))[0] == 200
    assert (await host.post(b'{"node_id": 1, "Block_Height": %d, "artifacts": []}' % (P + 10**12)))[0] == 200
    assert (await host.post(body_of(1).replace(b'"vector_b64": "', b'"vector_b64": "AAAA')))[0] == 200
    assert (await host.post(body_of(-3)))[0] == 200
    assert (await host.post(body_of(1, 5)))[0] == 200
    assert (await host.post(body_of(1, 1 + 3 * 10**8)))[0] == 200
    await until(lambda: host.states().get("held") == 6)
    reasons = " / ".join(each["reason"] for each in host.relay.status()["held"])
    for words in (
        "a nonce is below 0",
        "12 finite half floats",
        f"stage {P + 400} is",
        "its fields are not written as nodes write them",
        "none of those of node number 1",
        f"nonce {1 + 3 * 10**8} is far above",
    ):
        assert words in reasons
    assert list(host.api.posts) == []
    # The next stage begins.
    host.api.stage, host.api.height = Stage(P + 400, DURATIONS), P + 400
    await until(lambda: len(host.api.posts) == 1)
    assert host.api.posts[0].status == 200


@pytest_twisted.ensureDeferred
async def test_what_would_be_held_beyond_the_bound_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger with the prefix, and a million stages or models, fills neither disk nor memory."""
    monkeypatch.setattr("dapi.relay.relay._MAX_HELD", 3)
    for number in range(3):
        assert (await host.post(body_of(1, height=P + 1 + number)))[0] == 200
    await until(lambda: host.states().get("held") == 3)
    for height, path in ((P + 9, PATH), (P, callback_path("none of ours", "generated"))):
        status, answer = await host.post(body_of(1, height=height), path)
        assert status == 503
        assert b"too many callbacks are held" in answer
    await until(lambda: len(host.files()) == 3)
    # What is right is taken all the same.
    assert (await host.post(body_of(1)))[0] == 200
    await until(lambda: host.states().get("settled") == 1)


@pytest_twisted.ensureDeferred
async def test_a_node_that_generates_and_delivers_nothing_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapi.relay.hearing._SILENT_SECONDS", 0.5)
    host.api.statuses = {1: "GENERATING"}
    await until(lambda: list(host.relay.status()["silent_nodes"]) == ["node1"])
    host.sender(1)
    await until(lambda: host.relay.status()["silent_nodes"] == {})


@pytest_twisted.ensureDeferred
async def test_a_refused_one_is_set_aside_and_holds_no_other_up(host: Host) -> None:
    assert (await host.post(b"no JSON at all"))[0] == 200
    assert (await host.post(b'{"block_height": %d, "node_id": 7, "artifacts": []}' % P))[0] == 200
    assert (await host.post(body_of(1)))[0] == 200
    await until(lambda: host.states().get("settled") == 1)
    await until(lambda: host.states().get("set_aside") == 1)
    problems = host.relay.status()["problems"]
    assert "UNKNOWN_NODE" in problems["answers"]
    assert "HTTP 400" in host.relay.status()["set_aside"][0]["reason"]


@pytest_twisted.ensureDeferred
async def test_results_of_a_validation_are_handed_on_once(host: Host) -> None:
    body = b'{"block_height": %d, "node_id": 1, "public_key": "03%s", "n_total": 200}' % (P, b"5a" * 32)
    assert (await host.post(body, callback_path(MODEL, "validated")))[0] == 200
    await until(lambda: len(host.api.posts) == 1)
    assert host.api.posts[0].status == 503
    stage = host.api.stage
    assert stage is not None
    host.api.see_block(stage.validation_start)
    await until(lambda: host.api.votes.total() == 1)
    assert (await host.post(body, callback_path(MODEL, "validated")))[0] == 200
    await until(lambda: not host.files())
    assert host.api.votes.total() == 1


@pytest_twisted.ensureDeferred
async def test_a_crash_of_the_container_loses_nothing(host: Host) -> None:
    host.api.faults.flush_fails = True
    for number in range(5):
        assert (await host.post(body_of(*range(1 + 30 * number, 31 + 30 * number, 3))))[0] == 200
    await until(lambda: host.states().get("taken") == 5)
    # What was answered with 200 is in memory only, and is lost.
    crashed = Deferred.fromCoroutine(host.api.crash(0.2))
    assert (await host.post(body_of(199, 202)))[0] == 200
    await soon(crashed)
    assert host.api.lost == 50
    host.api.faults.flush_fails = False
    await until(lambda: host.stored() == 52)
    await until(lambda: host.states().get("settled") == 6)
    assert host.relay.knowledge.restarts == 1


@pytest_twisted.ensureDeferred
async def test_lost_in_silence_it_is_sent_again_after_a_while(hasty: Host) -> None:
    host = hasty
    assert (await host.post(body_of(1, 4)))[0] == 200
    await until(lambda: host.states().get("settled") == 1)
    host.api.faults.flush_fails = True
    assert (await host.post(body_of(7, 10)))[0] == 200
    await until(lambda: host.states().get("taken", 0) >= 2)
    host.api.artifacts[P, MODEL].crash()
    host.api.faults.flush_fails = False
    await until(lambda: host.stored() == 4)
    assert host.states()["sent_again"] >= 1
    await until(lambda: host.states().get("settled") == 2)


@pytest_twisted.ensureDeferred
async def test_a_count_that_fell_has_the_whole_stage_sent_again(host: Host) -> None:
    for number in range(4):
        assert (await host.post(body_of(1 + 6 * number, 4 + 6 * number)))[0] == 200
    await until(lambda: host.states().get("settled") == 4)
    await until(lambda: host.relay.book.ledgers[P, MODEL].highest == 8)
    host.api.damage(MODEL, 3)
    await until(lambda: host.stored() == 8)
    assert any("fewer than before" in text for text in host.relay.status()["problems"]["fallen"])


@pytest_twisted.ensureDeferred
async def test_after_a_restart_of_dapi_what_was_kept_goes_on(host: Host) -> None:
    await soon(host.api.stopService())
    for number in range(3):
        assert (await host.post(body_of(1 + 3 * number)))[0] == 200
    await host.stop()
    await host.start_api()
    await host.start()
    await until(lambda: host.stored() == 3)
    await until(lambda: host.states().get("settled") == 3)
    # What was settled is known to be, after another start.
    await host.stop()
    await host.start()
    assert (await host.post(body_of(100)))[0] == 200
    await until(lambda: host.stored() == 4)
    await until(lambda: host.states().get("settled") == 1)
    assert host.relay.book.ledgers[P, MODEL].is_exact


@pytest_twisted.ensureDeferred
async def test_other_requests_pass_through(host: Host) -> None:
    status, answer = await host.post(b"", "/metrics", method="GET")
    assert status == 200
    assert b"process_start_time_seconds" in answer
    assert (await host.post(b"{}", "/v3/some/other/route"))[0] == 200
    await until(lambda: len(host.api.posts) == 1)
    assert host.api.posts[0].target == b"/v3/some/other/route"
    assert host.api.state is ApiState.RUNNING


@pytest_twisted.ensureDeferred
async def test_a_callback_url_that_ends_with_a_slash_is_told_by_its_path(host: Host) -> None:
    """docs/protocol/poc-v2.md, 'Answers': a slash more is another path."""
    assert (await host.post(body_of(1), base=f"{host.base}/"))[0] == 200
    await until(lambda: "MISROUTED" in host.relay.status()["problems"]["answers"])
    problem = host.relay.status()["problems"]["answers"]["MISROUTED"]
    assert f"HTTP 404: Not Found, for /{PATH}" in problem
    assert host.api.posts[0].target == f"/{PATH}".encode()


@pytest_twisted.ensureDeferred
async def test_a_redirect_is_neither_followed_nor_given(host: Host) -> None:
    host.api.faults.status = 302
    assert (await host.post(body_of(1)))[0] == 200
    await until(lambda: len(host.api.posts) == 1)
    assert (await host.post(b"", "/other", method="GET"))[0] == 502
    assert "MISROUTED" in host.relay.status()["problems"]["answers"]
    assert host.states().get("set_aside") is None
