"""The admin API on a real socket."""

from __future__ import annotations

import json
from typing import Any

import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from dapi.broker.node_worker_commands import CommandResult
from dapi.http.listener import HttpListener
from dapi.server.admin import AdminApi
from tests.fake_broker import FakeBroker, FakeOutbox, node_fields
from tests.integration.server.http_tools import connect, parse, serving
from tests.integration.waiting import PATIENCE_SECONDS, until

BLOCK = {"block_height": 1000, "block_hash": "ABCDEF", "public_key": "02ab"}


def make() -> tuple[FakeBroker, AdminApi]:
    broker = FakeBroker()
    return broker, AdminApi(IReactorTime(reactor), broker, FakeOutbox(), lambda: {"state": "fine"})


async def ask(listener: HttpListener, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    url = f"http://localhost:{listener.port}/admin/v1{path}"
    response = await treq.request(
        method,
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers=Headers({"Content-Type": ["application/json"]} if body is not None else {}),
        agent=Agent(reactor),
        timeout=PATIENCE_SECONDS,
    )
    return response.code, await response.json()


@pytest_twisted.ensureDeferred
async def test_nodes_from_end_to_end() -> None:
    broker, admin = make()
    async with serving(admin.resource()) as listener:
        assert (await ask(listener, "POST", "/nodes", node_fields("a")))[0] == 200
        assert (await ask(listener, "POST", "/nodes/batch", [node_fields("b"), {}]))[0] == 206
        assert (await ask(listener, "POST", "/nodes/a/disable"))[0] == 200
        assert await ask(listener, "DELETE", "/nodes/b") == (200, True)
        code, nodes = await ask(listener, "GET", "/nodes")
        assert (code, [entry["node"]["id"] for entry in nodes]) == (200, ["a"])
        assert nodes[0]["state"]["enabled"] is False
        assert (await ask(listener, "GET", "/batches?limit=1"))[1]["next"] == 41
        assert await ask(listener, "GET", "/status") == (200, {"state": "fine"})
        assert listener.site.counts.answers == {206: 1, 200: 6}
        assert len(broker.nodes()) == 1


@pytest_twisted.ensureDeferred
async def test_node_commands_outlast_the_answer() -> None:
    broker, admin = make()
    admin.poc.wait_seconds = 0.1
    async with serving(admin.resource()) as listener:
        await ask(listener, "POST", "/nodes", node_fields("a"))
        code, answered = await ask(listener, "POST", "/poc/start", BLOCK)
        assert (code, answered["results"]["a"]["status"]) == (202, "pending")
        broker.end_command("a", CommandResult(True, "GENERATING"))
        code, answered = await ask(listener, "GET", "/poc")
        assert (code, answered["results"]["a"]["status"]) == (200, "GENERATING")


@pytest_twisted.ensureDeferred
async def test_client_that_leaves_does_not_cancel_a_command() -> None:
    broker, admin = make()
    async with serving(admin.resource()) as listener:
        await ask(listener, "POST", "/nodes", node_fields("a"))
        client = await connect(listener.port)
        client.transport.write(b"POST /admin/v1/poc/stop HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: broker.commands)
        client.transport.abortConnection()
        await until(lambda: not listener.site.connections)
        assert not broker.by_id["a"].commanded[-1].called
        broker.end_command("a", CommandResult(True, "STOPPED"))
        code, answered = await ask(listener, "GET", "/poc")
        assert (code, answered["progress"]["succeeded"]) == (200, 1)


@pytest_twisted.ensureDeferred
async def test_faults_of_http_are_json() -> None:
    _, admin = make()
    async with serving(admin.resource(), max_body_bytes=1000) as listener:
        for sent, code in (
            (b"nonsense\r\n\r\n", 400),
            (b"POST /admin/v1/nodes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n", 413),
            (b"POST /admin/v1/nodes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            (b"GET /admin/v1/status HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n", 403),
            (b"GET /%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
            (b"GET / HTTP/1.0\r\n\r\n", 404),
        ):
            client = await connect(listener.port)
            client.transport.write(sent)
            found, headers, body = parse(await client.when_closed())
            assert (found, headers["content-type"], list(body)) == (code, "application/json", ["error"])
