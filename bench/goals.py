"""The goals for dapi's rate beside others, and whether the last results reach them: ``python -m bench.goals``."""

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
    """A goal, and what was measured; None: it was not."""

    beside: str
    nonces: str
    ratio: float | None
    goal: float

    @property
    def words(self) -> str:
        """Say whether it is reached."""
        if self.ratio is None:
            return "not measured"
        return "reached" if self.ratio >= self.goal else "not reached"


def verdicts(found: Mapping[str, Any]) -> Iterator[Verdict]:
    """Yield a verdict for each goal and size."""
    for goal in GOALS:
        ratios = found.get("ratios", {}).get(goal.section, {})
        for nonces, wanted in goal.ratios.items():
            yield Verdict(goal.beside, nonces, ratios.get(nonces, {}).get(goal.side), wanted)


def main() -> None:
    """Print the table."""
    print(f"{'dapi beside':>50} {'nonces':>7} {'ratio':>6} {'goal':>5}")
    for beside, nonces, ratio, goal, words in ((*each, each.words) for each in verdicts(results.read())):
        print(f"{beside:>50} {nonces:>7} {'' if ratio is None else f'{ratio:.2f}':>6} {goal:>5.2f}  {words}")


if __name__ == "__main__":
    main()
