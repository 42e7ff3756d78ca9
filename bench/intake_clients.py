"""The clients that ``bench.intake`` compares: ``python -m bench.intake_clients NAME PORT FOLDER``."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed

from dapi.messages import Receipt, decode_envelope, encode_ack


class MemoryRecorder:
    """A Recorder that gives each batch a receipt, and keeps nothing."""

    def submit_poc_batch(self, batch: object, *, batch_id: str, **_details: object) -> Deferred[Receipt]:
        """Fire at once."""
        return succeed(Receipt(batch_id, 1))

    submit_poc_validation = submit_poc_batch


def run_dapi(url: str, folder: Path | None) -> None:
    """Run a WebSocketClient into a real outbox in ``folder``, or into memory."""
    from twisted.internet import reactor as global_reactor

    from dapi.database import Database
    from dapi.outbox.cosmos_message_client import CosmosMessageClient
    from dapi.outbox.outbox import Outbox
    from dapi.poc.batch_handler import BatchHandler, Recorder
    from dapi.poc.websocket_client import WebSocketClient

    reactor: Any = global_reactor
    recorder: Recorder = MemoryRecorder()
    if folder is not None:
        database = Database(reactor, str(folder / "outbox.db"), on_broken=sys.exit)
        database.startService()
        recorder = CosmosMessageClient(Outbox(reactor, database))
    sys.setswitchinterval(0.0005)
    handler = BatchHandler("node", 1, recorder)
    WebSocketClient(reactor, url, handler, node_id="node", random=random.Random()).startService()
    reactor.run()


async def run_websockets(url: str) -> None:
    """Decode and acknowledge on the ``websockets`` library."""
    from websockets.asyncio.client import connect

    async with connect(url, max_size=2**26, compression=None, ping_interval=None) as socket:
        while True:
            # As bytes: decode_envelope checks that they are UTF-8, and text would have to be encoded again for it.
            payload = await socket.recv(decode=False)
            await socket.send(encode_ack(decode_envelope(payload).id), text=True)


if __name__ == "__main__":
    name, port, where = sys.argv[1:]
    address = f"ws://127.0.0.1:{port}/api/v1/pow/ws"
    if name == "websockets":
        asyncio.run(run_websockets(address))
    else:
        run_dapi(address, Path(where) if name == "dapi" else None)
