"""A WebSocketClient on real sockets: delivery, refusals, dead peers, limits, and what it leaves behind."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from itertools import pairwise
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from dapi.messages.sizes import MIB
from dapi.poc.websocket_client import WebSocketClient
from dapi.websocket.client import WebSocketState
from tests.integration.ports import free_port
from tests.integration.waiting import PATIENCE_SECONDS, until
from tests.integration.websocket.servers import NodeServer, RawServer, Running, flood_with_pings, reactor
from tests.unit.websocket.client_in_memory import message


async def until_in(client: WebSocketClient, state: WebSocketState) -> None:
    await until(lambda: client.status().state is state)


async def until_connected(client: WebSocketClient, connections: int) -> None:
    await until(lambda: client.status().connections == connections)


def reason_of(client: WebSocketClient) -> str:
    return client.status().reason or ""


@pytest_twisted.ensureDeferred
async def test_messages_of_all_sizes_are_acknowledged(running: Running) -> None:
    # The last one is decoded on a thread.
    counts = (1, 20, 1000, 20_000, 120_000)

    def send_all(node: Any) -> None:
        for count in counts:
            payload = message(str(count), nonces=list(range(count)), dist=[0.5] * count)
            node.sendMessage(payload, isBinary=count == 20)

    server = running.serve(NodeServer(send_all))
    client = running.connect(f"http://127.0.0.1:{server.port}")
    await until(lambda: server.connections and len(server.connections[0].received) == len(counts))
    acks = [json.loads(ack) for ack in server.connections[0].received]
    assert acks == [{"type": "ack", "id": str(count)} for count in counts]
    assert client.status().acks == len(counts)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404: no WebSocket in this node"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "403: "),
        (b"HTTP/1.0 500 Internal Server Error\r\n\r\noops", "500: "),
        (b"SSH-2.0-OpenSSH\xff\r\n\r\n", "no WebSocket answer to the upgrade"),
        (b"A" * 100_000, "no WebSocket"),
        (None, "no answer to the upgrade within 0.5 s"),
    ],
    ids=["404", "403", "500", "junk", "endless junk", "silence"],
)
@pytest_twisted.ensureDeferred
async def test_a_refused_upgrade_is_told_and_tried_again(running: Running, answer: bytes | None, word: str) -> None:
    server = running.serve(RawServer(answer if answer is None or answer[0] != 65 else b"HTTP/1.1 200" + answer))
    client = running.connect(
        f"http://127.0.0.1:{server.port}", handshake_timeout_seconds=0.5 if answer is None else PATIENCE_SECONDS
    )
    await until_in(client, WebSocketState.REFUSED)
    assert word in reason_of(client)
    await until(lambda: len(server.made_at) >= 3)


@pytest_twisted.ensureDeferred
async def test_nobody_listens(running: Running) -> None:
    client = running.connect(f"http://127.0.0.1:{free_port()}")
    await until_in(client, WebSocketState.WAITING)
    assert reason_of(client).startswith("TCP: ")


@pytest_twisted.ensureDeferred
async def test_a_name_that_does_not_exist(running: Running) -> None:
    client = running.connect("http://no-such-host.invalid:8080")
    await until_in(client, WebSocketState.WAITING)
    assert reason_of(client).startswith("DNS: ")


@pytest_twisted.ensureDeferred
async def test_stop_at_once(running: Running) -> None:
    """The name is still being looked up, on a thread of the reactor."""
    server = running.serve(NodeServer())
    client = running.connect(f"http://localhost:{server.port}")
    await client.stopService()
    assert client.status().state is WebSocketState.STOPPED
    assert server.opened == 0


@pytest_twisted.ensureDeferred
async def test_every_gap_is_within_its_bounds(running: Running) -> None:
    """Resets and 1008s, with delays of 0.5 to 1 s; how these are drawn is a matter of unit tests."""
    server = running.serve(NodeServer(lambda node: node.transport.abortConnection()))
    running.connect(f"http://127.0.0.1:{server.port}", retry_min_seconds=0.5, retry_max_seconds=1)
    await until(lambda: len(server.made_at) >= 4)
    server.on_open = lambda node: node.sendCloseFrame(1008, b"PoW is not running")
    await until(lambda: len(server.made_at) >= 8)
    # From one connection to the next: the server may see the end of one long after the client does.
    gaps = [later - earlier for earlier, later in pairwise(server.made_at)]
    # A busy machine is late.
    assert all(0.5 <= gap <= 20 for gap in gaps), gaps


@pytest_twisted.ensureDeferred
async def test_the_default_gap_is_3_to_5_seconds(running: Running) -> None:
    server = running.serve(NodeServer(lambda node: node.transport.abortConnection()))
    running.connect(f"http://127.0.0.1:{server.port}", retry_min_seconds=3, retry_max_seconds=5)
    await until(lambda: len(server.made_at) >= 2)
    assert 3 <= server.made_at[1] - server.made_at[0] <= 30


@pytest_twisted.ensureDeferred
async def test_a_half_open_peer_is_noticed(running: Running) -> None:
    def go_deaf(node: Any) -> None:
        node.is_deaf = server.opened == 1

    server = running.serve(NodeServer(go_deaf))
    times = {"ping_interval_seconds": 0.2, "ping_timeout_seconds": 3, "close_timeout_seconds": 0.3}
    client = running.connect(f"http://127.0.0.1:{server.port}", **times)
    await until_in(client, WebSocketState.WAITING)
    assert client.status().reason == "no answer to a ping within 3 s"
    await until(lambda: server.opened == 2)
    # This one answers.
    await until(lambda: server.connections and server.connections[0].pings >= 5)
    assert client.status().connections == 2


@pytest_twisted.ensureDeferred
async def test_restart_never_has_two_connections_at_once(running: Running) -> None:
    most = 0

    def count(_node: object) -> None:
        nonlocal most
        most = max(most, len(server.connections))

    server = running.serve(NodeServer(count))
    # Long delays tell a fresh start from a retry also on a busy machine.
    delays = {"retry_min_seconds": 30, "retry_max_seconds": 50, "settle_seconds": 0.5, "close_timeout_seconds": 30}
    client = running.connect(f"http://127.0.0.1:{server.port}", **delays)
    for number in range(1, 6):
        # Here, not at the server: an upgrade whose answer is still on its way is given up without a close frame.
        await until_connected(client, number)
        client.restart()
        client.restart()
    await until(lambda: server.opened == 6)
    assert most == 1
    assert server.closes == [1000] * 5
    gaps = [later - earlier for earlier, later in pairwise(server.made_at)]
    # Settled for half a second, and no retry's delay.
    assert all(0.5 <= gap < 25 for gap in gaps), gaps


@pytest_twisted.ensureDeferred
async def test_stop_closes_with_1000_and_waits_for_the_answer(running: Running) -> None:
    server = running.serve(NodeServer())
    client = running.connect(f"http://127.0.0.1:{server.port}")
    await until_in(client, WebSocketState.OPEN)
    await client.stopService()
    await until(lambda: not server.connections)
    assert server.closes == [1000]


@pytest_twisted.ensureDeferred
async def test_a_peer_that_does_not_read_is_not_sent_ever_more(running: Running) -> None:
    """It asks for pongs without reading them: then nothing more is read from it, and it is left after a while."""
    server = running.serve(NodeServer(flood_with_pings))
    server.shrink_receive_buffer()
    client = running.connect(f"http://127.0.0.1:{server.port}", ping_timeout_seconds=0.5, max_pings=10**9)
    await until(lambda: client.status().paused)
    assert client._connection is not None
    unsent = client._connection.transport
    assert len(unsent.dataBuffer) + sum(map(len, unsent._tempDataBuffer)) < MIB
    await until_in(client, WebSocketState.WAITING)
    assert client.status().reason == "the node read nothing for 0.5 s"


@pytest_twisted.ensureDeferred
async def test_stop_does_not_wait_for_a_peer_that_does_not_read(running: Running) -> None:
    server = running.serve(NodeServer(flood_with_pings))
    server.shrink_receive_buffer()
    client = running.connect(f"http://127.0.0.1:{server.port}", close_timeout_seconds=1, max_pings=10**9)
    await until(lambda: client.status().paused)
    began = reactor.seconds()
    await client.stopService()
    assert 0.9 < reactor.seconds() - began < 10


@pytest_twisted.ensureDeferred
async def test_a_slow_disk_holds_the_node_up_and_loses_nothing(running: Running) -> None:
    def send_many(node: Any) -> None:
        for number in range(300):
            node.sendMessage(message(str(number), nonces=list(range(500)), dist=[0.5] * 500))

    running.recorder.is_slow = True
    server = running.serve(NodeServer(send_many))
    client = running.connect(
        f"http://127.0.0.1:{server.port}", max_pending_messages=32, ping_interval_seconds=0.1, ping_timeout_seconds=1
    )
    while client.status().acks < 300:
        # The node's own batches outlast several pings that are not read meanwhile.
        await until(lambda: client.status().paused or len(running.recorder.taken) == 300)
        assert client.status().pending <= 32
        await deferLater(reactor, 0.3)
        running.recorder.store_all()
    assert running.recorder.taken == [str(number) for number in range(300)]
    assert client.status().connections == 1
    await until(lambda: len(server.connections[0].received) == 300)


@pytest_twisted.ensureDeferred
async def test_a_message_above_the_limit_is_refused_with_1009(running: Running) -> None:
    server = running.serve(NodeServer(lambda node: node.sendMessage(b" " * (4 * MIB + 1))))
    client = running.connect(f"http://127.0.0.1:{server.port}", max_message_bytes=4 * MIB)
    await until_in(client, WebSocketState.WAITING)
    assert client.status().reason == f"closed by us: 1009 a message above the limit of {4 * MIB} bytes"
    await until(lambda: server.closes == [1009])


@pytest_twisted.ensureDeferred
async def test_invalid_utf8_is_refused_with_1007(running: Running) -> None:
    server = running.serve(NodeServer(lambda node: node.sendMessage(b'{"type": "\xc3"}')))
    client = running.connect(f"http://127.0.0.1:{server.port}")
    await until_in(client, WebSocketState.WAITING)
    assert "1007" in reason_of(client)
    await until(lambda: server.closes == [1007])


@pytest_twisted.ensureDeferred
async def test_compression_works_when_turned_on(running: Running) -> None:
    server = running.serve(NodeServer(lambda node: node.sendMessage(message("a")), compression=True))
    running.connect(f"http://127.0.0.1:{server.port}", compression=True)
    await until(lambda: server.connections and server.connections[0].received)
    assert server.connections[0].websocket_extensions_in_use
    assert json.loads(server.connections[0].received[0])["id"] == "a"


@pytest_twisted.ensureDeferred
async def test_a_compression_bomb_costs_no_memory(running: Running) -> None:
    bomb = deflated_zeros(400 * MIB)
    assert len(bomb) < MIB

    def send_bomb(node: Any) -> None:
        # One text frame, marked as compressed.
        node.sendData(b"\xc1\x7f" + len(bomb).to_bytes(8, "big") + bomb)

    server = running.serve(NodeServer(send_bomb, compression=True))
    tracemalloc.start()
    try:
        client = running.connect(f"http://127.0.0.1:{server.port}", compression=True, max_message_bytes=4 * MIB)
        await until_in(client, WebSocketState.WAITING)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "1009" in reason_of(client)
    assert peak < 32 * MIB, f"{peak / MIB:.0f} MiB"
    await until(lambda: server.lost_at)


def deflated_zeros(size: int) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    parts = [compressor.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join(parts) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
