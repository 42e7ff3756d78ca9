"""wss: whom the client takes for the node, and whom it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from dapi.poc.websocket_client import WebSocketClient
from dapi.websocket.client import WebSocketState
from dapi.websocket.reasons import Cause
from tests.integration.certificates import Authority
from tests.integration.waiting import soon, until
from tests.integration.websocket.servers import NodeServer, RawServer, Running, flood_with_pings
from tests.unit.websocket.client_in_memory import message


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def ended(client: WebSocketClient) -> str:
    """Wait for the first try to fail; return why."""
    await until(lambda: client.status().reason is not None)
    return client.status().reason or ""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_the_right_certificate(running: Running, authority: Authority, tmp_path: Path, host: str) -> None:
    server = running.serve(NodeServer(lambda node: node.sendMessage(message("a")), tls=authority.options_for(host)))
    client = running.connect(f"https://{host}:{server.port}", ca_file=authority.write(tmp_path))
    await until(lambda: server.connections and server.connections[0].received)
    assert client.status().state is WebSocketState.OPEN
    await client.stopService()
    await until(lambda: server.closes == [1000])


@pytest_twisted.ensureDeferred
async def test_a_ca_file_with_several_certificates(running: Running, authority: Authority, tmp_path: Path) -> None:
    server = running.serve(NodeServer(tls=authority.options_for("localhost")))
    ca_file = authority.write(tmp_path, Authority("another"), Authority("one more"))
    client = running.connect(f"wss://localhost:{server.port}", ca_file=ca_file)
    await until(lambda: client.status().state is WebSocketState.OPEN)


@pytest.mark.parametrize(
    ("host", "certified"),
    [("localhost", "node.example"), ("127.0.0.1", "10.0.0.1"), ("127.0.0.1", "localhost")],
)
@pytest_twisted.ensureDeferred
async def test_a_certificate_for_another_host(
    running: Running, authority: Authority, tmp_path: Path, host: str, certified: str
) -> None:
    server = running.serve(NodeServer(tls=authority.options_for(certified)))
    client = running.connect(f"https://{host}:{server.port}", ca_file=authority.write(tmp_path))
    reason = await ended(client)
    assert reason == f"TLS: the certificate is not for this host name or address; it is for {certified}"
    trouble = client.status().trouble
    assert trouble is not None
    assert (trouble.cause, trouble.names) == (Cause.TLS, [certified])
    await until(lambda: len(server.made_at) >= 2)
    assert server.opened == 0


@pytest_twisted.ensureDeferred
async def test_a_certificate_of_an_authority_that_is_not_trusted(
    running: Running, authority: Authority, tmp_path: Path
) -> None:
    server = running.serve(NodeServer(tls=Authority("another").options_for("localhost")))
    client = running.connect(f"https://localhost:{server.port}", ca_file=authority.write(tmp_path))
    assert (await ended(client)).startswith("TLS: ")
    assert client.status().state is WebSocketState.WAITING
    assert server.opened == 0


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_has_ended(running: Running, authority: Authority, tmp_path: Path) -> None:
    server = running.serve(NodeServer(tls=authority.options_for("localhost", days=-1)))
    client = running.connect(f"https://localhost:{server.port}", ca_file=authority.write(tmp_path))
    assert (await ended(client)).startswith("TLS: ")
    await until(lambda: len(server.made_at) >= 2)
    assert server.opened == 0


@pytest_twisted.ensureDeferred
async def test_a_ca_file_replaces_what_the_system_trusts_and_without_one_our_own_is_unknown(
    running: Running, authority: Authority
) -> None:
    server = running.serve(NodeServer(tls=authority.options_for("localhost")))
    client = running.connect(f"https://localhost:{server.port}")
    assert (await ended(client)).startswith("TLS: ")


@pytest_twisted.ensureDeferred
async def test_a_server_that_speaks_no_tls(running: Running) -> None:
    server = running.serve(RawServer(None))
    client = running.connect(f"https://localhost:{server.port}", handshake_timeout_seconds=1)
    assert (await ended(client)) == "no answer to the upgrade within 1 s"
    await until(lambda: len(server.made_at) >= 2)


@pytest_twisted.ensureDeferred
async def test_stop_in_the_middle_of_the_tls_handshake(running: Running) -> None:
    server = running.serve(RawServer(None))
    client = running.connect(f"https://localhost:{server.port}")
    await until(lambda: server.connections and server.connections[0].received)
    await client.stopService()
    await until(lambda: not server.connections)


@pytest_twisted.ensureDeferred
async def test_stop_over_tls_does_not_wait_for_a_peer_that_is_deaf(
    running: Running, authority: Authority, tmp_path: Path
) -> None:
    server = running.serve(
        NodeServer(lambda node: node.transport.pauseProducing(), tls=authority.options_for("localhost"))
    )
    client = running.connect(
        f"https://localhost:{server.port}", ca_file=authority.write(tmp_path), close_timeout_seconds=0.3
    )
    await until(lambda: client.status().state is WebSocketState.OPEN)
    await soon(client.stopService())


@pytest_twisted.ensureDeferred
async def test_reading_pauses_over_tls_too(running: Running, authority: Authority, tmp_path: Path) -> None:
    def send_many(node: Any) -> None:
        for number in range(400):
            node.sendMessage(message(str(number), nonces=list(range(500)), dist=[0.5] * 500))

    running.recorder.is_slow = True
    server = running.serve(NodeServer(send_many, tls=authority.options_for("localhost")))
    client = running.connect(f"https://localhost:{server.port}", ca_file=authority.write(tmp_path))
    await until(lambda: client.status().paused)
    assert client.status().pending == 256
    running.recorder.is_slow = False
    running.recorder.store_all()
    await until(lambda: server.connections and len(server.connections[0].received) == 400)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_does_not_read_over_tls(running: Running, authority: Authority, tmp_path: Path) -> None:
    server = running.serve(NodeServer(flood_with_pings, tls=authority.options_for("localhost")))
    server.shrink_receive_buffer()
    client = running.connect(
        f"https://localhost:{server.port}",
        ca_file=authority.write(tmp_path),
        ping_timeout_seconds=0.5,
        max_pings=10**9,
        close_timeout_seconds=0.3,
    )
    await until(lambda: client.status().paused)
    await until(lambda: client.status().reason == "the node read nothing for 0.5 s")
    await until(lambda: client.status().paused)
    await soon(client.stopService())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_the_pinned_certificate(running: Running, host: str) -> None:
    """Nobody knows who signed it, and it is for another host."""
    options = Authority("unknown").options_for("node.example")
    server = running.serve(NodeServer(lambda node: node.sendMessage(message("a")), tls=options))
    client = running.connect(f"wss://{host}:{server.port}", fingerprint=options.sha256)
    await until(lambda: server.connections and server.connections[0].received)
    assert client.status().state is WebSocketState.OPEN


@pytest_twisted.ensureDeferred
async def test_another_certificate_than_the_pinned(running: Running, authority: Authority, tmp_path: Path) -> None:
    """It is the right one but for that: an authority is trusted that signed it, and it is for this host."""
    options = authority.options_for("localhost")
    server = running.serve(NodeServer(tls=options))
    pinned = authority.options_for("localhost").sha256
    ca_file = authority.write(tmp_path)
    client = running.connect(f"wss://localhost:{server.port}", ca_file=ca_file, fingerprint=pinned)
    reason = await ended(client)
    shown = options.sha256.replace(":", "").lower()
    assert reason == f"TLS: the certificate is another one than the pinned: the SHA-256 of this one is {shown}"
    trouble = client.status().trouble
    assert trouble is not None
    assert trouble.cause is Cause.TLS
    await until(lambda: len(server.made_at) >= 2)
    assert server.opened == 0
