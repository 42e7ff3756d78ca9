"""What each step of a batch's way costs the reactor's thread, without network and disk: ``python -m bench.steps``.

The steps are timed in turns, by the CPU time of the thread, in microseconds a batch. ``msgspec`` beside them is what it
takes to decode the same message into Python's own lists of numbers and to free them again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from bench.comparison import NONCES, spread
from bench.load import Load
from bench.receivers import decode_bare
from bench.results import Section
from dapi.messages import GeneratedMessage, Receipt, Via, content_id, decode_envelope, encode_ack
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import OutboxEntry
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.deliveries import Deliveries
from dapi.websocket.frames import TEXT, short_frame

_MASK = b"\1\2\3\4"


class _Taking:
    """An outbox that has everything on disk at once."""

    def put(self, entry: OutboxEntry) -> Deferred[Receipt]:
        return succeed(Receipt(entry.batch_id, 1))


def steps(nonces: int) -> dict[str, Callable[[], object]]:
    """Return the steps for a batch of this size."""
    load = Load(nonces)
    payload = load.message(1)
    message = decode_envelope(payload)
    assert isinstance(message, GeneratedMessage)
    batch_id = content_id(message.batch)
    taking: Any = _Taking()
    recorder = CosmosMessageClient(taking)
    counts = frozenset({Load.NODE_COUNT})
    handler = BatchHandler(
        "node", Load.NODE_NUM, recorder, Deliveries(Clock(), "node"), node_counts=lambda height: counts
    )
    batch = message.batch
    return {
        "decode": lambda: decode_envelope(payload),
        "content id": lambda: content_id(batch),
        "chain's message": lambda: recorder.submit_poc_batch(
            batch, batch_id=batch_id, node_id="node", via=Via.WEBSOCKET
        ),
        "whole handler": lambda: handler.handle_generated_batch(batch, size=len(payload)),
        "ack": lambda: short_frame(TEXT, encode_ack(message.id), _MASK),
        "msgspec": lambda: decode_bare(payload),
    }


def measure(nonces: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return the microseconds of each step."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, step in steps(nonces).items():
            step()
            begun, count = time.thread_time(), 0
            while (taken := time.thread_time() - begun) < seconds:
                for _ in range(max(1, 2_000 // nonces)):
                    step()
                    count += 1
            found.setdefault(name, []).append(1e6 * taken / count)
    return {name: spread(values) for name, values in found.items()}


def main() -> None:
    """Print a line for each step, and write them into the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.03, help="of one step in one round")
    arguments = parser.parse_args()
    section = Section("steps")
    results = {str(nonces): measure(nonces, arguments.rounds, arguments.seconds) for nonces in NONCES}
    print(f"{'us a batch of':>18} " + " ".join(f"{nonces:>10}" for nonces in results))
    for name in results[str(NONCES[0])]:
        print(f"{name:>18} " + " ".join(f"{found[name]['median']:>10.1f}" for found in results.values()))
    section.write(results)


if __name__ == "__main__":
    main()
