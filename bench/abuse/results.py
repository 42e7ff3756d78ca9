"""What the last run of all abuses came to: ``bench/abuse/results.json``, of which two documents take their tables."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.abuse.limits import Limits, broken_limits

LIMITS = Limits()


class Side(msgspec.Struct, frozen=True):
    """The good nodes without the abuse, or beside it: ack times, and what took longest of dapi and of the disk, in ms.

    ``turn_ms`` is the processor's time of the longest turn of the reactor, ``write_ms`` the longest write of the
    database. None: there was no ack, or it was not measured.
    """

    p99_ms: float | None
    acks: int | None = None
    median_ms: float | None = None
    turn_ms: float | None = None
    write_ms: float | None = None


class Run(msgspec.Struct, frozen=True):
    """One measurement of an abuse, which made so many ``connections`` and sent so many MB; dapi grew by so many."""

    without: Side
    beside: Side
    grown_mb: float
    connections: int | None = None
    sent_mb: int | None = None

    def broken(self) -> list[str]:
        """Return which limits it broke, in words."""
        return broken_limits(self.without.p99_ms, self.beside.p99_ms, self.grown_mb, LIMITS)


class Row(msgspec.Struct, frozen=True):
    """An abuse, measured once; where that broke a limit, three times.

    The 99th percentile of an abuse is its third slowest ack or so, and one pause of the machine is enough for three. So
    an abuse breaks a limit when most of its runs do.
    """

    abuse: str
    runs: Sequence[Run]

    def shown(self) -> Run:
        """Return the run with the median of the 99th percentiles."""
        by_p99 = sorted(self.runs, key=lambda run: float("inf") if run.beside.p99_ms is None else run.beside.p99_ms)
        return by_p99[len(by_p99) // 2]

    def kept(self) -> int:
        """Return how many runs broke no limit."""
        return sum(not run.broken() for run in self.runs)

    def is_within(self) -> bool:
        """Tell whether most of the runs broke no limit."""
        return 2 * self.kept() > len(self.runs)


class Results(msgspec.Struct, frozen=True):
    """All abuses in one go: when that was (UTC), of which commit, on what, and with which load before and after."""

    at: str
    commit: str
    machine: Mapping[str, Any]
    seconds: float
    nodes: int
    rows: Sequence[Row]
    load: tuple[float, float] | None = None


def path() -> Path:
    """Return where the file is: at BENCH_ABUSE_RESULTS, or in this folder."""
    return Path(os.environ.get("BENCH_ABUSE_RESULTS", Path(__file__).parent / "results.json"))


def read() -> Results:
    """Return what is in the file."""
    return msgspec.json.decode(path().read_bytes(), type=Results)


def write(results: Results) -> None:
    """Put this into the file."""
    path().write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def now() -> str:
    """Return the time, as the file has it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
