"""The callback server on real sockets: bounds, clients that misbehave, and an orderly stop."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.web.client import Agent

from dapi.database import Database
from dapi.errors import StartError, UnknownNodeError
from dapi.http.listener import HttpListener
from dapi.http.site import JsonSite
from dapi.messages import ProofBatch, Receipt, ValidatedBatch, Via
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import Outbox
from dapi.poc.batch_handler import BatchHandler, Recorder
from dapi.poc.large_batches import LARGE_BYTES, LargeBatches
from dapi.server.callbacks import Callbacks
from dapi.timing.waiters import Waiters
from tests.batches import generated_fields, validated_fields
from tests.doors import Nodes, make_door
from tests.integration.server.http_tools import connect, parse, serving
from tests.integration.waiting import PATIENCE_SECONDS, until

GENERATED = "/v1/poc-batches/generated"
reactor: Any = global_reactor


class Disk(Recorder):
    """A recorder whose storing the test ends; it counts what is cancelled."""

    def __init__(self) -> None:
        self.storing: list[Deferred[Receipt]] = []
        self.cancelled = 0
        self.is_fast = True
        self._asked: Waiters[None] = Waiters()

    def submit_poc_batch(
        self, batch: ProofBatch, *, batch_id: str, node_id: str, via: Via, **_details: Any
    ) -> Deferred[Receipt]:
        return self._store(batch_id)

    def submit_poc_validation(
        self, batch: ValidatedBatch, *, batch_id: str, node_id: str | None, via: Via
    ) -> Deferred[Receipt]:
        return self._store(batch_id)

    def _store(self, batch_id: str) -> Deferred[Receipt]:
        storing: Deferred[Receipt] = Deferred(self._cancel)
        self.storing.append(storing)
        if self.is_fast:
            storing.callback(Receipt(batch_id, 1))
        self._asked.fire(None)
        return storing

    def _cancel(self, storing: Deferred[Receipt]) -> None:
        self.cancelled += 1

    def when_asked(self) -> Deferred[None]:
        """Fire when the next batch is to be stored."""
        return self._asked.wait().addTimeout(PATIENCE_SECONDS, reactor)


def make_callbacks(recorder: Recorder, large_batches: LargeBatches | None = None) -> Callbacks:
    """The callbacks of one node, number 1."""
    handler = BatchHandler("node1", 1, recorder)

    def handler_by_num(num: int) -> BatchHandler:
        if num != 1:
            raise UnknownNodeError(f"no node has the number {num}")
        return handler

    unnamed = BatchHandler(None, None, recorder)
    door = make_door(reactor, Nodes())
    return Callbacks(reactor, door, handler_by_num, unnamed, large_batches=large_batches)


def make() -> tuple[Disk, Callbacks]:
    disk = Disk()
    return disk, make_callbacks(disk)


def post_of(fields: dict[str, Any], path: str = GENERATED) -> bytes:
    body = json.dumps(fields).encode()
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def send_all_then_read(port: int, size: int) -> bytes:
    """Do as most HTTP clients do: look for an answer only when the whole body is sent."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as client:
        client.sendall(f"POST {GENERATED} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
        client.sendall(b"x" * size)
        return client.makefile("rb").read()


@pytest_twisted.ensureDeferred
async def test_batches_of_all_sizes_and_routes() -> None:
    disk, callbacks = make()
    async with serving(callbacks.resource()) as listener:
        agent = Agent(reactor)
        for base in ("/v1/poc-batches", "/mlnode/v1/poc-batches"):
            for path, fields in (("generated", generated_fields), ("validated", validated_fields)):
                for count in (1, 100_000):
                    lists = {"nonces": list(range(count)), "dist": [0.5] * count}
                    if path == "validated":
                        lists["received_dist"] = [0.5] * count
                    body = json.dumps(fields(**lists)).encode()
                    url = f"http://127.0.0.1:{listener.port}{base}/{path}"
                    response = await treq.post(url, body, agent=agent, timeout=PATIENCE_SECONDS)
                    assert (response.code, await response.content()) == (200, b"")
        assert len(disk.storing) == 8
        assert (callbacks.counts.generated, callbacks.counts.validated) == (4, 4)
        assert listener.site.counts.answers == {200: 8}
        assert listener.site.buffered_bytes == 0


@pytest_twisted.ensureDeferred
async def test_a_large_body_is_taken_while_all_threads_of_the_pool_hang() -> None:
    """As they do while names of nodes are looked up in vain."""
    large_batches = LargeBatches(reactor)
    large_batches.startService()
    disk, go_on = Disk(), threading.Event()
    hanging = [deferToThread(go_on.wait) for _ in range(reactor.getThreadPool().max)]
    try:
        async with serving(make_callbacks(disk, large_batches).resource()) as listener:
            request = post_of(generated_fields(nonces=list(range(100_000)), dist=[0.5] * 100_000))
            assert len(request) > LARGE_BYTES
            client = await connect(listener.port)
            client.transport.write(request)
            await client.when_received(b"\r\n\r\n")
            assert client.received.startswith(b"HTTP/1.1 200 OK")
    finally:
        go_on.set()
        await DeferredList(hanging)
        await large_batches.stopService()


@pytest_twisted.ensureDeferred
async def test_too_large_is_refused_before_the_body() -> None:
    _, callbacks = make()
    async with serving(callbacks.resource()) as listener:
        client = await connect(listener.port)
        client.transport.write(
            f"POST {GENERATED} HTTP/1.1\r\nHost: a\r\nContent-Length: {32 * 2**20 + 1}\r\n\r\n".encode()
        )
        await client.when_received(b"}")
        status, headers, body = parse(client.received)
        assert (status, headers["connection"]) == (413, "close")
        assert body == {"error": "the body has 33554433 bytes, at most 33554432 are taken"}
        client.transport.loseConnection()
        await client.when_closed()
        assert listener.site.counts.answers == {413: 1}


@pytest_twisted.ensureDeferred
async def test_too_large_is_read_by_a_client_that_sends_first() -> None:
    """A server that closed at once would have the connection reset, and its answer lost."""
    _, callbacks = make()
    async with serving(callbacks.resource(), max_body_bytes=1000) as listener:
        answer = await deferToThread(send_all_then_read, listener.port, 20 * 2**20)
        assert parse(answer)[0] == 413
        assert listener.site.buffered_bytes == 0


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked", id="chunked"),
        pytest.param("HTTP/1.1\r\nHost: a\r\nConnection: close", id="none"),
        pytest.param("HTTP/1.0", id="until the connection ends"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_no_declared_length(head: str) -> None:
    disk, callbacks = make()
    async with serving(callbacks.resource()) as listener:
        client = await connect(listener.port)
        client.transport.write(f"POST {GENERATED} {head}\r\n\r\n".encode())
        status, _, body = parse(await client.when_closed())
        assert (status, list(body)) == (411, ["error"])
        assert "Content-Length" in body["error"]
        assert disk.storing == []


@pytest.mark.parametrize(
    ("start", "dripped"),
    [
        pytest.param(b"", b"x", id="request line"),
        pytest.param(b"POST / HTTP/1.1\r\n", b"A: b\r\n", id="headers"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", b"x", id="body"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_slow_request(start: bytes, dripped: bytes) -> None:
    _, callbacks = make()
    async with serving(callbacks.resource(), deadline_seconds=0.5, linger_seconds=0.2) as listener:
        began = time.monotonic()
        client = await connect(listener.port)
        client.transport.write(start)
        client.drip(dripped, 0.02)
        await client.when_received(b"}")
        assert time.monotonic() - began > 0.4
        assert parse(client.received)[0] == 408
        await client.when_closed()
        assert listener.site.counts.answers == {408: 1}


@pytest_twisted.ensureDeferred
async def test_slow_disk_is_answered_and_goes_on() -> None:
    disk, callbacks = make()
    callbacks.answer_seconds = 0.2
    disk.is_fast = False
    async with serving(callbacks.resource()) as listener:
        client = await connect(listener.port)
        client.transport.write(post_of(generated_fields()))
        await client.when_received(b"}")
        status, headers, _ = parse(client.received)
        assert (status, headers["retry-after"]) == (503, "5")
        disk.storing[0].callback(Receipt("id", 1))
        assert disk.cancelled == 0
        # The same connection goes on being used.
        disk.is_fast = True
        client.received = b""
        client.transport.write(post_of(generated_fields()))
        await client.when_received(b"\r\n\r\n")
        assert parse(client.received)[0] == 200


@pytest_twisted.ensureDeferred
async def test_a_disk_that_hangs_costs_no_answer_and_no_batch(tmp_path: Path) -> None:
    database = Database(reactor, str(tmp_path / "a.db"), on_broken=pytest.fail, reserve_bytes=2**16)
    database.startService()
    outbox = Outbox(reactor, database)
    recorder = CosmosMessageClient(outbox)
    callbacks = make_callbacks(recorder)
    callbacks.answer_seconds = 0.2
    back = threading.Event()
    hung = database.write(lambda connection: back.wait(PATIENCE_SECONDS))
    try:
        async with serving(callbacks.resource()) as listener:
            clients = [await connect(listener.port) for _ in range(20)]
            for number, client in enumerate(clients):
                client.transport.write(post_of(generated_fields(nonces=[number // 2], dist=[0.5])))
            for client in clients:
                await client.when_received(b"}")
                assert parse(client.received)[0] == 503
            assert callbacks.counts.generated == 0
            # From here on the disk may be slow.
            callbacks.answer_seconds = PATIENCE_SECONDS
            back.set()
            await hung
            # Every one of them comes again, for no answer said that it was stored.
            for number in range(10):
                client = await connect(listener.port)
                client.transport.write(post_of(generated_fields(nonces=[number], dist=[0.5])))
                await client.when_received(b"\r\n\r\n")
                assert parse(client.received)[0] == 200
        page = await outbox.batches()
        assert [row.seen for row in page.batches] == [3] * 10
    finally:
        back.set()
        await database.stopService()


@pytest_twisted.ensureDeferred
async def test_deadline_of_the_whole_request_beats_a_slow_disk() -> None:
    disk, callbacks = make()
    disk.is_fast = False
    async with serving(callbacks.resource(), deadline_seconds=0.3) as listener:
        client = await connect(listener.port)
        client.transport.write(post_of(generated_fields()))
        status, headers, _ = parse(await client.when_closed())
        assert (status, headers["retry-after"]) == (503, "5")
        disk.storing[0].callback(Receipt("id", 1))
        assert disk.cancelled == 0
        assert callbacks.counts.gone == 1


@pytest_twisted.ensureDeferred
async def test_client_that_leaves_does_not_cancel_the_storing() -> None:
    disk, callbacks = make()
    disk.is_fast = False
    async with serving(callbacks.resource()) as listener:
        for end in ("loseConnection", "abortConnection"):
            asked = disk.when_asked()
            client = await connect(listener.port)
            client.transport.write(post_of(generated_fields()))
            await asked
            gone = callbacks.counts.gone
            getattr(client.transport, end)()
            await client.when_closed()
            while callbacks.counts.gone == gone:
                await deferLater(reactor, 0.01)
            assert disk.cancelled == 0
            assert not disk.storing[-1].called
            disk.storing[-1].callback(Receipt("id", 1))
        assert listener.site.connections == 0


@pytest_twisted.ensureDeferred
async def test_connection_limit() -> None:
    _, callbacks = make()
    async with serving(callbacks.resource(), max_connections=4) as listener:
        first, second = await connect(listener.port), await connect(listener.port)
        third = await connect(listener.port)
        assert await third.when_closed() == b""
        assert listener.site.counts.connections_refused == 1
        first.transport.loseConnection()
        await first.when_closed()
        while listener.site.connections == 2:
            await deferLater(reactor, 0.01)
        fourth = await connect(listener.port)
        for client in (second, fourth):
            client.transport.write(post_of(generated_fields()))
            await client.when_received(b"\r\n\r\n")
            assert parse(client.received)[0] == 200


@pytest_twisted.ensureDeferred
async def test_busy_port() -> None:
    _, callbacks = make()
    async with serving(callbacks.resource()) as listener:
        second = HttpListener(reactor, "callbacks", JsonSite(reactor, callbacks.resource()), listener.port, "127.0.0.1")
        with pytest.raises(
            StartError, match=rf"callbacks: cannot listen on 127\.0\.0\.1 port {listener.port} .*choose"
        ):
            second.startService()
        assert not second.running
        await second.stopService()


@pytest_twisted.ensureDeferred
async def test_stop_answers_what_is_under_way_and_closes_the_rest() -> None:
    disk, callbacks = make()
    disk.is_fast = False
    async with serving(callbacks.resource(), linger_seconds=0.2, drain_seconds=3) as listener:
        port = listener.port
        quiet, busy, stuck, slow = [await connect(port) for _ in range(4)]
        slow.transport.write(b"POST / HTT")
        for client in (busy, stuck):
            asked = disk.when_asked()
            client.transport.write(post_of(generated_fields()))
            await asked
        stopped = listener.stopService()
        assert await quiet.when_closed() == b""
        with pytest.raises(ConnectError):
            await connect(port)
        assert not stopped.called
        disk.storing[0].callback(Receipt("id", 1))
        assert parse(await busy.when_closed())[0] == 200
        assert not stopped.called
        await stopped.addTimeout(PATIENCE_SECONDS, reactor)
        assert (await stuck.when_closed(), await slow.when_closed()) == (b"", b"")
        assert listener.site.connections == 0
        assert disk.cancelled == 0
        disk.storing[1].callback(Receipt("id", 1))


@pytest_twisted.ensureDeferred
async def test_stop_twice_and_start_again() -> None:
    disk, callbacks = make()
    async with serving(callbacks.resource()) as listener:
        quiet = await connect(listener.port)
        first, second = listener.stopService(), listener.stopService()
        await first
        await second
        await quiet.when_closed()
        listener.startService()
        client = await connect(listener.port)
        client.transport.write(post_of(generated_fields()) * 2)
        await client.when_received(b"\r\n\r\n")
        await until(lambda: len(disk.storing) >= 2)
        assert not client.closed.called


def test_importing_the_server_installs_no_reactor() -> None:
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, dapi.server.callbacks, dapi.http.listener;"
            "sys.exit('twisted.internet.reactor' in sys.modules or 'klein' in sys.modules)",
        ],
        check=True,
    )
