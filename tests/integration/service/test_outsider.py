"""An outsider on the callback port, with the default settings: can neither store, nor starve, nor learn anything."""

from __future__ import annotations

import http.client
import json
import random
import resource
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.threads import deferToThread

from dapi.broker.nodes import decode_node_configs
from dapi.config import ApiConfig, Config, StorageConfig
from dapi.service import DapiService, make_service
from tests.batches import generated_fields, validated_fields
from tests.integration.waiting import PATIENCE_SECONDS, soon, until

reactor: Any = global_reactor
T = TypeVar("T")
NODES = ("secret-name-one", "secret-name-two")
BASES = ("/v1/poc-batches", "/mlnode/v1/poc-batches")
# Of a network of the outsider's; dapi shares 1,024 connections among addresses.
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 8)]
CONNECTIONS_EACH = 200


def on_thread(function: Callable[..., T], *arguments: Any) -> Any:
    return soon(deferToThread(function, *arguments))


def ask(
    port: int, method: str, path: str, body: str | None = None, address: str = ADDRESSES[0]
) -> tuple[int, str, Any]:
    """Ask over a connection of its own; return status, body and headers."""
    opened = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS, source_address=(address, 0))
    try:
        opened.request(method, path, body)
        answer = opened.getresponse()
        return answer.status, answer.read().decode(), answer.getheaders()
    finally:
        opened.close()


class Dapi:
    """A dapi with two nodes, and as few settings as a test can have."""

    def __init__(self, folder: Path) -> None:
        nodes = [
            {"id": name, "host": f"10.0.0.{number}", "poc_port": 8080, "inference_port": 5000, "models": {"m": {}}}
            for number, name in enumerate(NODES, start=1)
        ]
        self.config = Config(
            api=ApiConfig(ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0),
            storage=StorageConfig(path=str(folder / "outbox.db")),
            nodes=tuple(decode_node_configs(nodes)),
        )
        self.service: DapiService = make_service(self.config, reactor, random=random.Random(1))

    @property
    def port(self) -> int:
        return self.service.callback_listener.port

    def base_of(self, name: str) -> str:
        """The path of a node's own base."""
        node = self.service.broker.worker(name).node
        return f"{BASES[0]}/{self.service._parts.callback_tokens.token(node.num, node.token_num)}"


@pytest_twisted.async_yield_fixture
async def dapi(tmp_path: Path) -> AsyncIterator[Dapi]:
    made = Dapi(tmp_path)
    made.service.startService()
    await until(lambda: made.service.broker.is_loaded and len(list(made.service.broker.workers())) == len(NODES))
    yield made
    await soon(made.service.stopService())


def tokens_that_are_wrong(right: str) -> list[str]:
    """What an outsider may try who knows how a token looks."""
    name, count, proof = right.split("-", 3)[1:4]
    changed = proof[:-2] + ("A" if proof[-2] != "A" else "B") + proof[-1]
    return [
        f"cb-{name}-{count}-{changed}",
        f"cb-{name}-{count}-{proof[:-1]}",
        f"cb-{name}-{count}-",
        f"cb-2-{count}-{proof}",
        f"cb-{name}-2-{proof}",
        f"cb-{name}-0-{proof}",
        f"cb-999-1-{proof}",
        "cb-1-1-" + "A" * 43,
        "%63b-" + right[3:] + "x",
        "..",
        "x",
    ]


@pytest_twisted.ensureDeferred
async def test_stores_nothing(dapi: Dapi) -> None:
    right = dapi.base_of(NODES[0]).rpartition("/")[2]
    generated, validated = json.dumps(generated_fields(node_id=1)), json.dumps(validated_fields())
    for base in BASES:
        for token in ("", *(f"/{each}" for each in tokens_that_are_wrong(right))):
            for kind, body in (("generated", generated), ("validated", validated)):
                status, said, _ = await on_thread(ask, dapi.port, "POST", f"{base}{token}/{kind}", body)
                assert status in (403, 404), (token, status, said)
    assert sum((await soon(dapi.service.outbox.counts())).values()) == 0
    # The same bytes with the right one.
    status, _, _ = await on_thread(ask, dapi.port, "POST", f"{dapi.base_of(NODES[0])}/generated", generated)
    assert status == 200
    assert (await soon(dapi.service.outbox.counts()))["stored"] == 1


@pytest_twisted.ensureDeferred
async def test_learns_nothing(dapi: Dapi) -> None:
    right = dapi.base_of(NODES[0]).rpartition("/")[2]
    said = []
    for method, path in (
        *(("GET", path) for path in ("/", "/admin/v1/status", "/admin/v1/nodes", "/metrics", "/events", "/login")),
        *(("GET", path) for path in ("/healthz", "/readyz", "/openapi.json", f"{BASES[0]}/generated")),
        *(("POST", f"{BASES[0]}/{token}/generated") for token in tokens_that_are_wrong(right)),
        ("POST", f"{BASES[0]}/generated"),
        ("OPTIONS", "*"),
        ("TRACE", "/healthz"),
    ):
        status, body, headers = await on_thread(ask, dapi.port, method, path, None if method == "GET" else "{}")
        assert status != 200 or path in ("/healthz", "/readyz", "/openapi.json"), (method, path)
        said.append(f"{body} {headers}")
    everything = "\n".join(said)
    for secret in (*NODES, right, right.split("-", 3)[3], "10.0.0.1", "outbox.db"):
        assert secret not in everything, secret
    # A number that a node has looks like one that none has.
    tries = [
        (await on_thread(ask, dapi.port, "POST", f"{BASES[0]}/cb-{number}-1-{'A' * 43}/generated", "{}"))[:2]
        for number in (1, 2, 3, 999)
    ]
    assert len(set(tries)) == 1, tries


class Crowd:
    """The connections of an outsider: some say nothing, some begin a request, some a body with an invented token."""

    BEGINNINGS = (
        b"",
        b"POST /v1/poc-ba",
        b"POST /v1/poc-batches/generated HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n",
        b"POST /v1/poc-batches/cb-1-1-" + b"A" * 43 + b"/generated HTTP/1.1\r\nContent-Length: 9999\r\n\r\n{",
    )

    def __init__(self, port: int) -> None:
        self.sockets: list[socket.socket] = []
        for number in range(CONNECTIONS_EACH):
            for address in ADDRESSES:
                try:
                    opened = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS, (address, 0))
                    self.sockets.append(opened)
                    opened.sendall(self.BEGINNINGS[number % len(self.BEGINNINGS)])
                except OSError:
                    # dapi closes those that are too many.
                    continue

    def close(self) -> None:
        for each in self.sockets:
            each.close()


@pytest_twisted.ensureDeferred
async def test_starves_nobody(dapi: Dapi) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * len(ADDRESSES) * CONNECTIONS_EACH
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[1], max(limits[0], wanted)), limits[1]))
    crowd = await on_thread(Crowd, dapi.port)
    try:
        site = dapi.service.callback_listener.site
        await until(lambda: site.counts.connections_refused > 0)
        for number, name in enumerate((*NODES, *NODES)):
            body = json.dumps(generated_fields(block_hash=f"{number}"))
            status, said, _ = await on_thread(
                ask, dapi.port, "POST", f"{dapi.base_of(name)}/generated", body, "127.0.0.1"
            )
            assert status == 200, said
        assert (await soon(dapi.service.outbox.counts()))["stored"] == 4
    finally:
        await on_thread(crowd.close)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    await until(lambda: site.connections == 0)
