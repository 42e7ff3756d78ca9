"""The goals for dapi's rate beside others, and whether the last results reach them: ``python -m bench.goals``.

Beside each ratio stands that of the CPU time for a batch (the other's over dapi's), which a busy machine changes
little. On one, the ratio of the rates is too good: with two threads dapi gets more of the core than the others do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bench import results


class Goal(NamedTuple):
    """What dapi's rate over that of ``side`` shall be at least in a section of the results, by nonces of a batch."""

    beside: str
    section: str
    side: str
    ratios: Mapping[str, float]


def _goal(beside: str, section: str, side: str, *ratios: float) -> Goal:
    return Goal(beside, section, side, dict(zip(("20", "1000", "20000"), ratios, strict=True)))


GOALS = (
    _goal("a Go client with SQLite, acks after fsync", "go", "go", 0.8, 2.0, 4.0),
    _goal("the same Go client, keeping nothing", "go", "go_memory", 0.3, 1.6, 3.0),
    _goal("the Go client with SQLite, 1 outstanding", "go_1", "go", 0.8, 1.5, 2.5),
    _goal("PostgreSQL, 16 connections, raw bytes", "go", "postgres", 0.8, 1.0, 1.0),
    _goal("`websockets` and msgspec, keeping nothing", "intake", "websockets", 0.35, 0.5, 0.8),
    _goal("callbacks: aiohttp and msgspec, keeping nothing", "http", "aiohttp", 0.3, 0.45, 0.7),
)


class Verdict(NamedTuple):
    """A goal, and what was measured, as rates and by CPU time; None: it was not."""

    beside: str
    nonces: str
    ratio: float | None
    by_cpu: float | None
    goal: float

    @property
    def is_reached(self) -> bool:
        """Whether the rates reach it."""
        return self.ratio is not None and self.ratio >= self.goal

    @property
    def words(self) -> str:
        """Say whether it is reached."""
        if self.ratio is None:
            return "not measured"
        return "reached" if self.is_reached else "not reached"


def verdicts(found: Mapping[str, Any]) -> Iterator[Verdict]:
    """Yield a verdict for each goal and size."""
    for goal in GOALS:
        ratios = found.get("ratios", {}).get(goal.section, {})
        for nonces, wanted in goal.ratios.items():
            by_cpu = _by_cpu(found.get("rounds", {}).get(goal.section, {}).get(nonces, {}), goal.side)
            yield Verdict(goal.beside, nonces, ratios.get(nonces, {}).get(goal.side), by_cpu, wanted)


def _by_cpu(sides: Mapping[str, Any], side: str) -> float | None:
    if side not in sides:
        return None
    return float(sides[side]["cpu_us"]["median"] / sides["dapi"]["cpu_us"]["median"])


def main() -> None:
    """Print the table."""
    print(f"{'dapi beside':>50} {'nonces':>7} {'ratio':>6} {'by CPU':>6} {'goal':>5}")
    for each in verdicts(results.read()):
        print(
            f"{each.beside:>50} {each.nonces:>7} {_short(each.ratio):>6} {_short(each.by_cpu):>6} {each.goal:>5.2f}"
            f"  {each.words}"
        )


def _short(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


if __name__ == "__main__":
    main()
