"""What dapi answered with 200 survives ``kill -9`` of dapi, of the api container, and of both."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted
from twisted.internet.defer import Deferred

from tests.integration.relay.host import MODEL, PATH, Host, P, body_of, hosting
from tests.integration.twistd_process import Run, Twistd, twistd
from tests.integration.waiting import soon, until

__all__ = ["twistd"]


@pytest_twisted.async_yield_fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path, is_started=False) as host:
        yield host


def environ(host: Host) -> dict[str, str]:
    return {
        "DAPI_POC_V2__RELAY": "true",
        "DAPI_POC_V2__API_URL": host.api.callback_url,
        "DAPI_POC_V2__API_PUBLIC_URL": host.api.public_url,
        "DAPI_POC_V2__API_ADMIN_URL": host.api.admin_url,
    }


async def base_of(process: Twistd, folder: Path) -> str:
    """Where callbacks are taken."""
    port = (await process.when_written(r"callbacks: listening on 127\.0\.0\.1:(\d+)"))[1]
    prefix = (folder / "outbox.db-relay.prefix").read_text().strip()
    return f"http://127.0.0.1:{port}{prefix}"


@pytest_twisted.ensureDeferred
async def test_killed_while_the_container_is_away(host: Host, twistd: Run, tmp_path: Path) -> None:
    dapi = twistd(environ=environ(host))
    base = await base_of(dapi, tmp_path)
    assert (await host.post(body_of(1), base=base))[0] == 200
    await until(lambda: host.stored() == 1)
    # In the container's memory, and lost with it.
    host.api.faults.flush_fails = True
    assert (await host.post(body_of(4), base=base))[0] == 200
    await until(lambda: len(host.api.posts) == 2)
    await soon(host.api.stopService())
    bodies = [body_of(7 + 3 * number) for number in range(10)]
    for body in bodies:
        assert (await host.post(body, base=base))[0] == 200
    await dapi.kill()
    # A body that was being written has no row, and is deleted.
    (tmp_path / "outbox.db-relay" / "0-0-0.body").write_bytes(b"half")
    host.api.faults.flush_fails = False
    await host.start_api()
    again = twistd(environ=environ(host))
    second_base = await base_of(again, tmp_path)
    assert second_base.partition("/k/")[2] == base.partition("/k/")[2]
    await until(lambda: host.api.committed(P, MODEL) == 12)
    digests = {post.digest for post in host.api.posts}
    assert {hashlib.sha256(body).digest() for body in bodies} <= digests
    assert {post.target for post in host.api.posts} == {PATH.encode()}
    assert not (tmp_path / "outbox.db-relay" / "0-0-0.body").exists()


@pytest_twisted.ensureDeferred
async def test_killed_in_the_middle_of_a_stream(host: Host, twistd: Run, tmp_path: Path) -> None:
    dapi = twistd(environ=environ(host))
    base = await base_of(dapi, tmp_path)
    answered = 0

    async def post_until_it_fails() -> None:
        nonlocal answered
        while True:
            status, _ = await host.post(body_of(1 + 3 * answered), base=base)
            assert status == 200
            answered += 1

    posting = Deferred.fromCoroutine(post_until_it_fails())
    posting.addErrback(lambda _: None)
    await until(lambda: answered >= 20)
    await dapi.kill()
    await soon(posting)
    twistd(environ=environ(host))
    await until(lambda: host.api.committed(P, MODEL) >= answered)
