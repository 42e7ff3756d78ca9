"""How fast the WebSocket intake is: batches a second and ack times, acks after fsync.

``python -m bench.intake`` compares, in turns, five clients of a busy node (``bench.receivers``): dapi, dapi without a
disk, bare clients on ``websockets`` and ``picows`` that keep nothing, and a sink, which shows what the sender can do.
Each is a process; all of them share one core. See ``bench.comparison`` for the figures.
"""

from __future__ import annotations

from bench.comparison import Plan, compare, own_command
from bench.processes import Receiver

SIDES = ("dapi", "memory", "websockets", "picows", "sink")
SECTIONS = {"intake": 16, "intake_1": 1, "intake_256": 256}


def start(name: str, where: str) -> Receiver:
    """Start a client."""
    return Receiver.client(name, own_command(name, where, "{port}"))


if __name__ == "__main__":
    compare(SECTIONS, SIDES, start, Plan.of_arguments(__doc__))
