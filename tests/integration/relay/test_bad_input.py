"""What nobody should send does no harm, and takes nobody else along."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted

from dapi.messages.sizes import MIB
from tests.integration.relay.host import PATH, Host, body_of, hosting
from tests.integration.relay.test_faults import Sender, connected, write
from tests.integration.waiting import soon, until


@pytest_twisted.async_yield_fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path) as host:
        yield host


async def posted(host: Host, target: str, body: bytes, *headers: str) -> bytes:
    """POST to a target as it is written; return the status line."""
    sender: Sender = await connected(host.port)
    head = f"POST {host.relay.prefix}{target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    if not any(line.startswith("Content-Type") for line in headers):
        headers = ("Content-Type: application/json", *headers)
    lines = "".join(f"{line}\r\n" for line in headers)
    write(sender, f"{head}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return (await soon(sender.closed)).partition(b"\r\n")[0]


@pytest_twisted.ensureDeferred
async def test_odd_model_ids_are_never_used_as_file_names(host: Host) -> None:
    """Those that can be read, and that no node runs, are held; all others go on as they are, to the byte."""
    odd = (
        "/v2/poc-batches/" + "m" * 10_000 + "/generated",
        "/v2/poc-batches/../generated",
        "/v2/poc-batches/..%252F..%252Fetc%252Fpasswd/generated",
        "/v2/poc-batches/%2500/generated",
        "/v2/poc-batches/%00/generated",
        "/v2/poc-batches/%25ZZ%/generated",
        "/v2/poc-batches/%25FF/generated",
        "/v2//poc-batches/x/generated?a=%20b",
        "//v2/poc-batches/x/generated/",
    )
    bodies = [body_of(1 + 3 * number) for number in range(len(odd))]
    for target, body in zip(odd, bodies, strict=True):
        assert await posted(host, target, body) == b"HTTP/1.1 200 OK", target
    relay = host.relay
    await until(lambda: len(relay.book.held) + len(host.api.posts) >= len(odd))
    handed_on = {post.target.decode(): post.digest for post in host.api.posts}
    held = {payload.target.decode() for payload in relay.book.held.values()}
    assert set(handed_on) | held == set(odd)
    for target, body in zip(odd, bodies, strict=True):
        assert handed_on.get(target, hashlib.sha256(body).digest()) == hashlib.sha256(body).digest()
    names = [path.name for path in (host.folder / "relay").iterdir()]
    assert all(re.fullmatch(r"[0-9a-f]+-[0-9a-f]+-[0-9a-f]+\.body", name) for name in names), names
    # Nothing is wrong with the others.
    assert (await host.post(body_of(100)))[0] == 200
    await until(lambda: host.stored() == 1)


@pytest_twisted.ensureDeferred
async def test_an_encoding_goes_on_as_it_is(host: Host) -> None:
    body = gzip.compress(body_of(1, 4))
    assert await posted(host, PATH, body, "Content-Encoding: gzip") == b"HTTP/1.1 200 OK"
    await until(lambda: len(host.api.posts) == 1)
    (post,) = host.api.posts
    assert (post.encoding, post.digest) == (b"gzip", hashlib.sha256(body).digest())
    # The container does not read it, and says so.
    await until(lambda: host.states().get("set_aside") == 1)


@pytest_twisted.ensureDeferred
async def test_what_says_that_it_is_no_json_is_held(host: Host) -> None:
    """docs/protocol/poc-v2.md, 'Answers': the container has readers for other types, too."""
    for number, content_type in enumerate(("application/xml", "text/xml; charset=utf-8", "application/json; a=b")):
        assert await posted(host, PATH, body_of(1 + 3 * number), f"Content-Type: {content_type}") == b"HTTP/1.1 200 OK"
    await until(lambda: (host.states().get("held"), host.stored()) == (2, 1))
    assert [each["reason"] for each in host.relay.status()["held"]] == ["its content type is not application/json"] * 2


@pytest_twisted.ensureDeferred
async def test_a_head_that_nobody_can_send_on_is_refused(host: Host) -> None:
    for odd in ("User-Agent: a\x01b", "Accept: \x7f", "Content-Encoding: a\x00"):
        assert await posted(host, PATH, body_of(1), odd) == b"HTTP/1.1 400 Bad Request", odd
    assert host.files() == []
    assert await posted(host, PATH, body_of(1), "User-Agent: \u00e9\tb") == b"HTTP/1.1 200 OK"
    await until(lambda: host.stored() == 1)


@pytest_twisted.ensureDeferred
async def test_bodies_that_come_slowly_hold_nobody_up(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await host.start_api()
    await host.start(deadline_seconds=2.0)
    try:
        slow = []
        for length in (200, 5 * MIB):
            head = f"POST {host.relay.prefix}{PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
            sender = await connected(host.port)
            write(sender, head.encode() + b"x" * 100)
            slow.append(sender)
        for number in range(5):
            assert (await host.post(body_of(1 + 3 * number)))[0] == 200
        for sender in slow:
            assert not (await soon(sender.closed)).startswith(b"HTTP/1.1 200")
        await until(lambda: host.stored() == 5)
        await until(lambda: len(host.files()) == 5)
    finally:
        await host.end()


@pytest_twisted.ensureDeferred
async def test_made_up_models_and_stages_take_no_room_in_what_is_shown(host: Host) -> None:
    for number in range(60):
        target = f"/v2/poc-batches/model-{number}/generated"
        assert (await host.post(body_of(1, height=10**6 * (number + 1)), target))[0] == 200
    await until(lambda: sum(host.states().get(state, 0) for state in ("held", "late")) >= 60)
    status = host.relay.status()
    assert len(status["held"]) <= 20
    assert status["stages"] == []
    assert host.relay.book.ledgers == {}
    assert list(host.api.posts) == []
