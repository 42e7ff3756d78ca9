"""A node behind a proxy that wants a password, over HTTP and for the WebSocket; and its pinned certificate."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Factory, Protocol

from dapi.broker.nodes import decode_node_config
from dapi.errors import MLNodeError
from dapi.mlnode.client import MLNodeClient, MLNodeState
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.websocket_client import WebSocketClient
from dapi.poc.websocket_settings import WebSocketSettings
from tests.integration.certificates import Authority
from tests.integration.waiting import soon, until
from tests.unit.websocket.client_in_memory import PendingRecorder

reactor: Any = global_reactor
PASSWORD = "Basic b3Blbi1zZXNhbWU="
STATE = b'{"state": "STOPPED"}'


class Proxy(Protocol):
    """Answers a request for the state to whoever has the password, and 401 to all others and to upgrades."""

    transport: Any
    factory: Any

    def __init__(self) -> None:
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if not self._received.endswith(b"\r\n\r\n"):
            return
        heads = self.factory.heads
        heads.append(self._received.decode())
        has_password = f"\r\nAuthorization: {PASSWORD}\r\n" in heads[-1]
        is_taken = has_password and "Upgrade" not in heads[-1]
        status, body = (b"200 OK", STATE) if is_taken else (b"401 Unauthorized", b"")
        self.transport.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        self.transport.loseConnection()


class ProxyFactory(Factory):
    protocol = Proxy
    noisy = False

    def __init__(self) -> None:
        self.heads: list[str] = []


class Behind:
    """A proxy over TLS, and the configuration of the node behind it."""

    def __init__(self, folder: Path) -> None:
        self.factory = ProxyFactory()
        options = Authority("unknown").options_for("node.example")
        self.port = reactor.listenSSL(0, self.factory, options, interface="127.0.0.1")
        self.headers = folder / "headers"
        self.write(PASSWORD)
        self.config = decode_node_config(
            {
                "id": "node1",
                "host": "https://127.0.0.1",
                "poc_port": self.port.getHost().port,
                "inference_port": 1,
                "models": {"m": {}},
                "tls_fingerprint": options.sha256,
                "headers_file": str(self.headers),
            }
        )
        self.access = self.config.access(None)._asdict()

    def write(self, password: str) -> None:
        self.headers.write_text(f"Authorization: {password}\n")
        self.headers.chmod(0o600)


@pytest_twisted.async_yield_fixture
async def behind(tmp_path: Path) -> AsyncIterator[Behind]:
    made = Behind(tmp_path)
    yield made
    await made.port.stopListening()


@pytest_twisted.ensureDeferred
async def test_calls_carry_the_headers(behind: Behind) -> None:
    client = MLNodeClient(reactor, behind.config.poc_url, node_id="node1", **behind.access)
    assert await soon(client.state()) is MLNodeState.STOPPED
    behind.write("Basic wrong")
    with pytest.raises(MLNodeError, match="401"):
        await soon(client.state())
    behind.headers.unlink()
    with pytest.raises(MLNodeError, match=r"headers_file .* cannot be read: No such file") as caught:
        await soon(client.state())
    assert PASSWORD not in str(caught.value)
    behind.write(PASSWORD)
    assert await soon(client.state()) is MLNodeState.STOPPED
    await soon(client.close())


@pytest_twisted.ensureDeferred
async def test_another_certificate_gets_no_password(behind: Behind) -> None:
    other = {**behind.access, "fingerprint": "ab" * 32}
    client = MLNodeClient(reactor, behind.config.poc_url, node_id="node1", **other)
    with pytest.raises(MLNodeError, match="another one than the pinned"):
        await soon(client.state())
    assert behind.factory.heads == []
    await soon(client.close())


@pytest_twisted.ensureDeferred
async def test_upgrades_carry_the_headers(behind: Behind) -> None:
    client = WebSocketClient(
        reactor,
        behind.config.poc_url,
        BatchHandler("node1", 1, PendingRecorder()),
        node_id="node1",
        random=random.Random(1),
        settings=WebSocketSettings(
            retry_min_seconds=0.01, retry_max_seconds=0.02, settle_seconds=0.01, **behind.access
        ),
    )
    client.startService()
    await until(lambda: (client.status().reason or "").startswith("401"))
    assert f"\r\nAuthorization: {PASSWORD}\r\n" in behind.factory.heads[0]
    behind.headers.chmod(0o644)
    await until(lambda: "can be read by others" in (client.status().reason or ""))
    assert PASSWORD not in str(client.status())
    behind.headers.chmod(0o600)
    await until(lambda: (client.status().reason or "").startswith("401"))
    await soon(client.stopService())
