"""How fast the intake is beside the same work in Go: ``python -m bench.against_go``, after ``make bench-go`` built it.

Beside dapi there are two clients of ``bench/go`` (coder/websocket, encoding/json): ``go`` keeps batches in SQLite and
acknowledges them after the fsync of their common commit, ``go_memory`` keeps nothing. The goals of the project for
dapi's rate beside theirs are printed in the end, by ``bench.goals``, with those for what ``make bench`` measured.
"""

from __future__ import annotations

from pathlib import Path

from bench import goals
from bench.comparison import Plan, compare, own_command
from bench.processes import Receiver

PROGRAM = Path(__file__).parent.parent / "build" / "bench-go"
SIDES = ("dapi", "go", "go_memory")
SECTIONS = {"go": 16, "go_1": 1}


def start(name: str, where: str) -> Receiver:
    """Start a client."""
    if name == "dapi":
        return Receiver.client(name, own_command(name, where, "{port}"))
    command = [str(PROGRAM), "-url", "ws://127.0.0.1:{port}/api/v1/pow/ws"]
    return Receiver.client(name, [*command, "-db", f"{where}/go.db"] if name == "go" else command)


if __name__ == "__main__":
    compare(SECTIONS, SIDES, start, Plan.of_arguments(__doc__))
    goals.main()
