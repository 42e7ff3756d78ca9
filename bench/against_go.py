"""How fast the intake is beside the same work in Go: ``python -m bench.against_go``, after ``make bench-go`` built it.

Beside dapi there are two clients of ``bench/go`` (coder/websocket, encoding/json): ``go`` keeps batches in SQLite and
acknowledges them after the fsync of their common commit, ``go_memory`` keeps nothing. Where PostgreSQL is installed,
``postgres`` has dapi's core for itself, and keeps the messages as they came, over 16 connections; a client that does
not decode them shares the sender's core. In the end ``bench.goals`` prints what dapi's rate is to be beside theirs, and
beside those that ``make bench`` has measured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench import goals
from bench.comparison import Plan, compare, own_command
from bench.postgres import Postgres, programs
from bench.processes import Receiver

PROGRAM = Path(__file__).parent.parent / "build" / "bench-go"
SIDES = ("dapi", "go", "go_memory")
SECTIONS = {"go": 16, "go_1": 1}


@contextlib.contextmanager
def start(name: str, where: str) -> Iterator[Receiver]:
    """Run a client; for ``postgres``, with a server."""
    command = [str(PROGRAM), "-url", "ws://127.0.0.1:{port}/api/v1/pow/ws"]
    with contextlib.ExitStack() as stack:
        if name == "dapi":
            receiver = Receiver.client(name, own_command(name, where, "{port}"))
        elif name == "postgres":
            server = stack.enter_context(Postgres(Path(where)))
            receiver = Receiver.feeder(name, [*command, "-postgres", server.address], server.pids)
        else:
            receiver = Receiver.client(name, [*command, "-db", f"{where}/go.db"] if name == "go" else command)
        yield stack.enter_context(receiver)


def main() -> None:
    """Compare, and print the goals."""
    plan = Plan.of_arguments(__doc__)
    has_postgres = programs() is not None
    if not has_postgres:
        print("postgres is left out: it is not installed")
    compare(SECTIONS, (*SIDES, "postgres") if has_postgres else SIDES, start, plan)
    goals.main()


if __name__ == "__main__":
    main()
