"""How fast the HTTP callbacks are: callbacks a second over 16 connections, answered after fsync.

``python -m bench.http`` compares, in turns, a whole dapi and a bare server on ``aiohttp`` that keeps nothing
(``bench.receivers``). Each is a process; both share one core. See ``bench.comparison`` for the figures.
"""

from __future__ import annotations

from bench.comparison import Plan, compare, own_command
from bench.processes import Receiver

SIDES = ("dapi", "aiohttp")


def start(name: str, where: str) -> Receiver:
    """Start a server."""
    return Receiver.server(name, own_command("dapi-http" if name == "dapi" else name, where))


if __name__ == "__main__":
    compare({"http": 16}, SIDES, start, Plan.of_arguments(__doc__))
