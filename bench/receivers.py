"""What the intake benchmarks compare: ``python -m bench.receivers NAME PORT FOLDER``.

Clients, which connect to the WebSocket of a node at ``PORT``, and servers, which print the port and the path of their
callbacks (``PORT`` is 0 for them). ``FOLDER`` is for what dapi keeps.

- ``dapi``: the whole way, an ack means that the batch is on disk;
- ``memory``: the same with a recorder that keeps nothing;
- ``websockets``: a bare client on the library ``websockets``: it decodes with msgspec, acknowledges, and keeps nothing;
- ``picows``: the same on ``picows``;
- ``sink``: acknowledges what it does not decode, on a plain socket: what the sender can do;
- ``dapi-http``: a whole dapi, whose callbacks answer when the batch is on disk;
- ``aiohttp``: a bare server on ``aiohttp``: it decodes with msgspec, answers, and keeps nothing.
"""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from bench.load import Load

_MAX_MESSAGE_BYTES = 2**26
_URL = "ws://127.0.0.1:{port}/api/v1/pow/ws"


class BareBatch(msgspec.Struct):
    """A batch as whoever writes a small client with msgspec declares it."""

    public_key: str
    block_hash: str
    block_height: int
    nonces: list[int]
    dist: list[float]
    node_id: int


class BareMessage(msgspec.Struct):
    """The envelope of a batch."""

    type: str
    batch: BareBatch
    id: str


class BareAck(msgspec.Struct, tag_field="type", tag="ack"):
    """The answer to it."""

    id: str


_batches = msgspec.json.Decoder(BareBatch)
_messages = msgspec.json.Decoder(BareMessage)
_acks = msgspec.json.Encoder()


def decode_bare(payload: bytes) -> BareMessage:
    """Decode a message into lists of numbers, as a bare client does."""
    return _messages.decode(payload)


def _ack_of(payload: bytes) -> bytes:
    return _acks.encode(BareAck(decode_bare(payload).id))


def run_dapi(port: int, folder: str) -> None:
    """Run a WebSocketClient into a real outbox in ``folder``."""
    from twisted.internet import reactor as installed

    from dapi.database import Database
    from dapi.outbox.cosmos_message_client import CosmosMessageClient
    from dapi.outbox.outbox import Outbox

    reactor: Any = installed
    database = Database(reactor, str(Path(folder) / "outbox.db"), on_broken=sys.exit)
    database.startService()
    _run_client(reactor, port, CosmosMessageClient(Outbox(reactor, database)))


def run_memory(port: int, _folder: str) -> None:
    """Run a WebSocketClient whose batches get a receipt at once, and are not kept."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred, succeed

    from dapi.messages import Receipt

    class MemoryRecorder:
        def submit_poc_batch(self, batch: object, *, batch_id: str, **_details: object) -> Deferred[Receipt]:
            return succeed(Receipt(batch_id, 1))

        submit_poc_validation = submit_poc_batch

    _run_client(reactor, port, MemoryRecorder())


def _run_client(reactor: Any, port: int, recorder: Any) -> None:
    from dapi.poc.batch_handler import BatchHandler
    from dapi.poc.deliveries import Deliveries
    from dapi.poc.websocket_client import WebSocketClient

    counts = frozenset({Load.NODE_COUNT})
    deliveries = Deliveries(reactor, "node")
    handler = BatchHandler("node", Load.NODE_NUM, recorder, deliveries, node_counts=lambda height: counts)
    url = _URL.format(port=port)
    WebSocketClient(reactor, url, handler, node_id="node", random=random.Random()).startService()
    run_as_twistd_does(reactor)


def run_as_twistd_does(reactor: Any) -> None:
    """Run the reactor with what the plugin sets for the whole process."""
    from dapi.service.memory import save_memory
    from dapi.tap import SWITCH_INTERVAL_SECONDS

    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    save_memory()
    gc.collect()
    gc.freeze()
    reactor.run()


def run_dapi_http(_port: int, folder: str) -> None:
    """Run a whole dapi with one node; print the port of its callbacks, and the path that the node is told."""
    from twisted.internet import reactor as installed

    from dapi.broker.callback_tokens import CallbackTokens
    from dapi.broker.nodes import decode_node_config
    from dapi.config import ApiConfig, Config, StorageConfig
    from dapi.service import make_service

    reactor: Any = installed
    path = str(Path(folder) / "outbox.db")
    node = {"id": "node", "host": "127.0.0.1", "inference_port": 1, "poc_port": 1, "models": {"m": {}}}
    config = Config(
        api=ApiConfig(ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0),
        storage=StorageConfig(path=path),
        nodes=(decode_node_config(node),),
    )

    def tell() -> None:
        (node,) = service.broker.nodes()
        tokens = CallbackTokens(path)
        tokens.startService()
        token = tokens.token(node.num, node.token_num)
        print(service.callback_listener.port, f"/v1/poc-batches/{token}/generated", flush=True)

    service = make_service(config, reactor, on_registered=tell)
    service.startService()
    run_as_twistd_does(reactor)


async def run_websockets(port: int, _folder: str) -> None:
    """Decode and acknowledge on the ``websockets`` library."""
    from websockets.asyncio.client import connect

    url = _URL.format(port=port)
    async with connect(url, max_size=_MAX_MESSAGE_BYTES, compression=None, ping_interval=None) as opened:
        while True:
            # As bytes: msgspec checks the UTF-8 of what it decodes, and text would have to be encoded again for it.
            payload = await opened.recv(decode=False)
            await opened.send(_ack_of(payload), text=True)


async def run_picows(port: int, _folder: str) -> None:
    """Decode and acknowledge on ``picows``."""
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    class Listener(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.TEXT:
                transport.send(WSMsgType.TEXT, _ack_of(frame.get_payload_as_bytes()))

    url = _URL.format(port=port)
    transport, _ = await ws_connect(Listener, url, max_frame_size=_MAX_MESSAGE_BYTES)
    await transport.wait_disconnected()


def run_sink(port: int, _folder: str) -> None:
    """Acknowledge each frame by what stands at its end, without a library."""
    connected = socket.create_connection(("127.0.0.1", port))
    connected.sendall(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    inbox = bytearray()
    while b"\r\n\r\n" not in inbox:
        inbox += connected.recv(4096)
    del inbox[: inbox.index(b"\r\n\r\n") + 4]
    while data := connected.recv(2**20):
        inbox += data
        acks, place = [], 0
        while len(inbox) >= place + 10:
            begins, size = _frame(inbox, place)
            if len(inbox) < begins + size:
                break
            place = begins + size
            ack = b'{"type":"ack",' + inbox[inbox.rindex(b'"id"', begins, place) : place]
            # A mask of zeros leaves the bytes as they are.
            acks.append(bytes((0x81, 0x80 | len(ack), 0, 0, 0, 0)) + ack)
        del inbox[:place]
        connected.sendall(b"".join(acks))


def _frame(inbox: bytearray, place: int) -> tuple[int, int]:
    """Return where the payload of a server's frame begins, and its size."""
    size = inbox[place + 1]
    if size == 126:
        return place + 4, int.from_bytes(inbox[place + 2 : place + 4], "big")
    if size == 127:
        return place + 10, int.from_bytes(inbox[place + 2 : place + 10], "big")
    return place + 2, size


def run_aiohttp(_port: int, _folder: str) -> None:
    """Decode a callback with msgspec, answer, and keep nothing, on ``aiohttp``."""
    from aiohttp import web

    async def generated(request: web.Request) -> web.Response:
        _batches.decode(await request.read())
        return web.Response()

    async def serve() -> None:
        app = web.Application(client_max_size=_MAX_MESSAGE_BYTES)
        app.router.add_post("/v1/poc-batches/{token}/generated", generated)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        print(listening.getsockname()[1], "/v1/poc-batches/token/generated", flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


def _run_in_asyncio(run: Callable[[int, str], Coroutine[Any, Any, None]]) -> Callable[[int, str], None]:
    return lambda port, folder: asyncio.run(run(port, folder))


CLIENTS: dict[str, Callable[[int, str], None]] = {
    "dapi": run_dapi,
    "memory": run_memory,
    "websockets": _run_in_asyncio(run_websockets),
    "picows": _run_in_asyncio(run_picows),
    "sink": run_sink,
}
SERVERS: dict[str, Callable[[int, str], None]] = {"dapi-http": run_dapi_http, "aiohttp": run_aiohttp}


if __name__ == "__main__":
    name, port, folder = sys.argv[1:]
    (CLIENTS | SERVERS)[name](int(port), folder)
