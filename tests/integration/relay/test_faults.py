"""What fails around the relay costs a host nothing that it would have had without it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from dapi.messages.sizes import MIB
from dapi.simulator.api.settings import Faults, Line
from dapi.simulator.api.stages import Stage
from tests.integration.conftest import LoggedErrors
from tests.integration.relay.host import DURATIONS, MODEL, PATH, Host, P, body_of, hosting, reactor
from tests.integration.waiting import soon, until

# More than what stays in memory.
LARGE = range(1, 3 * 60_000, 3)


@pytest_twisted.async_yield_fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path, settled_seconds=1.0) as host:
        yield host


@pytest_twisted.ensureDeferred
async def test_a_large_body_goes_by_way_of_its_file(host: Host) -> None:
    body = body_of(*LARGE)
    assert len(body) > 3 * MIB
    assert await host.post(body) == (200, b"")
    await until(lambda: host.stored() == len(LARGE))
    assert host.api.posts[0].digest == hashlib.sha256(body).digest()
    assert [path.stat().st_size for path in host.files()] == [len(body)]


@pytest_twisted.ensureDeferred
async def test_beyond_the_bound_it_is_refused_unread(host: Host) -> None:
    head = f"POST {host.relay.prefix}{PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {129 * MIB}\r\n\r\n"
    sender = await connected(host.port)
    write(sender, head.encode())
    answer = await soon(sender.closed)
    assert answer.startswith(b"HTTP/1.1 413")
    assert host.files() == []


@pytest_twisted.ensureDeferred
async def test_a_body_that_breaks_off_leaves_nothing(host: Host) -> None:
    head = f"POST {host.relay.prefix}{PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {5 * MIB}\r\n\r\n".encode()
    sender = await connected(host.port)
    write(sender, head + b"x" * (2 * MIB))
    await until(lambda: len(host.files()) == 1)
    assert sender.transport is not None
    sender.transport.loseConnection()
    await until(lambda: not host.files())
    assert list(host.api.posts) == []
    assert (await host.post(body_of(1)))[0] == 200


@pytest_twisted.ensureDeferred
async def test_when_its_own_disk_fails_it_hands_on_there_and_then(host: Host) -> None:
    (host.folder / "relay").rename(host.folder / "gone")
    for body in (body_of(1, 4), body_of(*LARGE)):
        assert await host.post(body) == (200, b"")
        assert host.api.posts[-1].digest == hashlib.sha256(body).digest()
    # The container's own answer is given: the node tries again.
    host.api.height = P - 1
    status, answer = await host.post(body_of(7))
    assert (status, answer) == (503, b'{"error":"not in PoC generate phase"}')
    assert host.relay.status()["passing"] is not None
    # What must not be handed on is not handed on this way either.
    posts = len(host.api.posts)
    assert (await host.post(body_of(1, height=P + 400)))[0] == 503
    await soon(host.api.stopService())
    assert (await host.post(body_of(7)))[0] == 502
    assert len(host.api.posts) == posts
    (host.folder / "gone").rename(host.folder / "relay")
    assert (await host.post(body_of(7)))[0] == 200
    await host.start_api()
    host.api.height = P
    await until(lambda: host.states().get("settled") == 1)


@pytest_twisted.ensureDeferred
async def test_with_a_full_database_it_hands_on_there_and_then(tmp_path: Path) -> None:
    host = Host(tmp_path)
    await host.start_api()
    await host.start(free_bytes=lambda _folder: 0)
    try:
        assert await host.post(body_of(1, 4)) == (200, b"")
        assert len(host.api.posts) == 1
        await until(lambda: not host.files())
    finally:
        await host.end()


@pytest_twisted.ensureDeferred
async def test_a_container_that_hangs_or_answers_junk_is_tried_again(host: Host) -> None:
    host.api.faults.junk_bytes = 50 * MIB
    assert (await host.post(body_of(1)))[0] == 200
    await until(lambda: "MISROUTED" in host.relay.status()["problems"]["answers"])
    host.api.faults.junk_bytes = None
    await until(lambda: host.states().get("settled") == 1)


@pytest.mark.parametrize(
    ("fault", "value"), [("chain_down", True), ("told_hangs", True), ("told_junk_bytes", 100 * MIB)]
)
@pytest_twisted.ensureDeferred
async def test_callbacks_go_on_while_the_container_tells_nothing(host: Host, fault: str, value: int) -> None:
    """It takes callbacks, and answers no question, with an error, junk or nothing: that is told."""
    await until(lambda: host.relay.knowledge.epochs is not None and host.relay.knowledge.nodes is not None)
    setattr(host.api.faults, fault, value)
    await until(lambda: "epochs" in host.relay.status()["problems"]["questions"])
    assert (await host.post(body_of(1, 4)))[0] == 200
    await until(lambda: host.states().get("taken") == 1)
    setattr(host.api.faults, fault, getattr(Faults(), fault))
    await until(lambda: host.states().get("settled") == 1)
    await until(lambda: host.relay.status()["problems"]["questions"] == {})


@pytest_twisted.ensureDeferred
async def test_a_stage_that_begins_while_the_container_tells_nothing_is_not_lost(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dapi.relay.knowledge._PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr("dapi.relay.knowledge._SHORTEST_BLOCK_SECONDS", 0.001)
    await until(lambda: host.relay.knowledge.epochs is not None)
    host.api.faults.chain_down = True
    host.api.stage, host.api.height = Stage(P + 400, DURATIONS), P + 400
    assert (await host.post(body_of(1, height=P + 400)))[0] == 200
    await until(lambda: len(host.api.posts) == 1)
    assert host.api.posts[0].status == 200
    host.api.faults.chain_down = False
    await until(lambda: host.states().get("settled") == 1)


@pytest_twisted.ensureDeferred
async def test_a_version_without_metrics_that_is_started_anew(tmp_path: Path) -> None:
    """Nothing tells of the new start, but that it was away: what was in its memory is sent again."""
    host = Host(tmp_path, has_metrics=False)
    await host.start_api()
    await host.start()
    try:
        host.api.faults.flush_fails = True
        assert (await host.post(body_of(1, 4)))[0] == 200
        await until(lambda: host.states().get("taken") == 1)
        await soon(host.api.stopService())
        assert (await host.post(body_of(7, 10)))[0] == 200
        await until(lambda: host.relay.forwarder.away is not None)
        await host.start_api()
        host.api.faults.flush_fails = False
        await until(lambda: host.stored() == 4)
        assert list(host.relay.status()["problems"]["questions"]) == ["metrics"]
    finally:
        await host.end()


@pytest_twisted.ensureDeferred
async def test_a_store_that_fails_in_silence_is_told(tmp_path: Path) -> None:
    host = Host(tmp_path, settled_seconds=0.3, line=Line.B)
    await host.start_api()
    await host.start()
    try:
        host.api.faults.store_fails = True
        assert (await host.post(body_of(1, 4)))[0] == 200
        await until(lambda: host.relay.status()["problems"]["stalled"])
        host.api.faults.store_fails = False
        await until(lambda: host.api.committed(P, MODEL) == 2)
        await until(lambda: not host.relay.status()["problems"]["stalled"])
    finally:
        await host.end()


async def two_looks(host: Host) -> None:
    """Wait until the relay has asked the container twice."""
    turns = host.relay.reconciliation._turns
    await until(lambda: host.relay.reconciliation._turns > turns + 1)


@pytest_twisted.ensureDeferred
async def test_what_a_container_threw_away_is_sent_again_as_soon_as_it_writes(tmp_path: Path) -> None:
    host = Host(tmp_path, settled_seconds=1000.0, line=Line.B)
    await host.start_api()
    await host.start()
    try:
        host.api.faults.store_fails = True
        assert (await host.post(body_of(1, 4)))[0] == 200
        await until(lambda: host.states().get("taken") == 1)
        host.api.faults.store_fails = False
        # What comes next is kept, and shows that the first one was not, however long that would be waited for.
        for number in range(2, 20):
            assert (await host.post(body_of(1 + 3 * number)))[0] == 200
            await two_looks(host)
        await until(lambda: host.stored() == 20)
        assert host.states()["sent_again"] >= 1
    finally:
        await host.end()


@pytest_twisted.ensureDeferred
async def test_a_body_that_cannot_be_read_now_is_tried_again(host: Host) -> None:
    await soon(host.api.stopService())
    assert (await host.post(body_of(1)))[0] == 200
    await until(lambda: host.relay.forwarder.away is not None)
    (host.folder / "relay").rename(host.folder / "gone")
    await host.start_api()
    await until(lambda: "UNREADABLE" in host.relay.status()["problems"]["answers"])
    (host.folder / "gone").rename(host.folder / "relay")
    await until(lambda: host.stored() == 1)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), ZeroDivisionError()])
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_loaded_at_a_start_is_told(
    host: Host, error: Exception, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    await soon(host.api.stopService())
    assert (await host.post(body_of(1)))[0] == 200
    await host.stop()
    await host.start_api()

    def fail(_folder: Path) -> list[str]:
        raise error

    monkeypatch.setattr(os, "listdir", fail)
    await host.start(is_loaded=False)
    await until(lambda: host.relay.status()["problems"]["unloaded"] is not None)
    monkeypatch.undo()
    if isinstance(error, OSError):
        # It is tried again.
        await until(lambda: host.stored() == 1)
        assert host.relay.status()["problems"]["unloaded"] is None
    else:
        # What comes now goes on all the same.
        assert (await host.post(body_of(4)))[0] == 200
        await until(lambda: host.stored() == 1)
        assert len(logged_errors.flush(ZeroDivisionError)) == 1


@pytest_twisted.ensureDeferred
async def test_a_closed_window_is_tried_rarely(host: Host) -> None:
    host.api.height = P - 1
    for number in range(20):
        assert (await host.post(body_of(1 + 3 * number)))[0] == 200
    await until(lambda: len(host.api.posts) >= 1)
    looked = host.relay.knowledge.epochs
    await until(lambda: host.relay.knowledge.epochs is not looked)
    # The first of each model may have been under way before the answer of the first one.
    assert len(host.api.posts) <= 3
    host.api.height = P
    await until(lambda: host.stored() == 20)


class Sender(Protocol):
    """Writes what a test wants, and keeps what comes."""

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(self.received)


async def connected(port: int) -> Sender:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    sender: Sender = await soon(connectProtocol(endpoint, Sender()))
    return sender


def write(sender: Sender, data: bytes) -> None:
    assert sender.transport is not None
    sender.transport.write(data)
