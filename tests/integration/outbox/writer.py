"""A process that fills an outbox as fast as it can and prints the id of each batch once it is acknowledged.

``python -m tests.integration.outbox.writer PATH FIRST`` names its batches FIRST, FIRST + 1, … for ever; every fourth
is put twice. It prints ``ready`` first, or ``refused: …`` and leaves.
"""

from __future__ import annotations

import os
import sys

from twisted.internet import reactor

from dapi.database import Database
from dapi.errors import StartError
from dapi.messages import Kind, Receipt, Via
from dapi.outbox.outbox import Outbox, OutboxEntry

OUTSTANDING = 64


def main(path: str, first: int) -> None:
    database = Database(reactor, path, on_broken=lambda reason: print(f"broken: {reason}", flush=True))
    try:
        database.startService()
    except StartError as error:
        print(f"refused: {error}", flush=True)
        return
    print("ready", flush=True)
    outbox = Outbox(reactor, database)
    numbers = iter(range(first, sys.maxsize))

    def put_next() -> None:
        number = next(numbers)
        message = str(number).encode() + bytes(number % 5000)
        entry = OutboxEntry(str(number), Kind.GENERATED, "node1", 1000, 20, Via.WEBSOCKET, message)
        if number % 4 == 0:
            outbox.put(entry)
        outbox.put(entry).addCallback(acknowledge)

    def acknowledge(receipt: Receipt) -> None:
        # Unbuffered: what was printed was acknowledged, whatever happens next.
        os.write(1, f"{receipt.batch_id}\n".encode())
        reactor.callLater(0, put_next)

    for _ in range(OUTSTANDING):
        reactor.callWhenRunning(put_next)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
