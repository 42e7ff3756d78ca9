"""Compares receivers with dapi: in turns, several rounds, each turn a short slice."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bench.load import Load
from bench.processes import SENDERS_CORES, Receiver, folder, on
from bench.results import Section
from bench.sender import Sender, Slice
from dapi.timing.histogram import percentile

NONCES = (20, 1_000, 20_000)
# More would measure the buffers of the sockets.
_MAX_NONCES_OUTSTANDING = 1_000_000

Start = Callable[[str, str], contextlib.AbstractContextManager[Receiver]]
"""Starts the receiver with a name, which may keep things in a folder."""


class Plan(msgspec.Struct, frozen=True):
    """How long is measured: so many rounds, of slices that take so many seconds each, with these sizes of a batch.

    Where batches are large, and few a second, the slices are twice as long.
    """

    rounds: int = 5
    seconds: float = 0.5
    nonces: Sequence[int] = NONCES

    def slice_seconds(self, nonces: int) -> float:
        """Return how long a turn with batches of this size takes."""
        return self.seconds * (2 if nonces >= 10_000 else 1)

    @classmethod
    def of_arguments(cls, description: str | None, arguments: Sequence[str] | None = None) -> Plan:
        """Read the command line."""
        default = cls()
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--rounds", type=int, default=default.rounds)
        parser.add_argument("--seconds", type=float, default=default.seconds, help="of one turn of one side")
        parser.add_argument("--nonces", type=int, nargs="+", default=default.nonces, help="sizes of a batch")
        return cls(**vars(parser.parse_args(arguments)))


def compare(sections: Mapping[str, int], sides: Sequence[str], start: Start, plan: Plan) -> None:
    """Measure the sides, the first of which is dapi, size by size; print each figure, and write the sections.

    ``sections`` says how many batches are outstanding in each section of the results.
    """
    written = {name: Section(name) for name in sections}
    rounds: dict[str, dict[str, Any]] = {name: {} for name in sections}
    print(f"{plan.rounds} rounds of {plan.seconds:g} s a side; medians; rates in batches/s, each with lowest-highest")
    for nonces in plan.nonces:
        wanted = {name: count for name, count in sections.items() if nonces * count <= _MAX_NONCES_OUTSTANDING}
        slices = _measure(nonces, wanted, sides, start, plan)
        for name, outstanding in wanted.items():
            figures = {side: _figures(slices[name, side], slices[name, sides[0]]) for side in sides}
            del figures[sides[0]]["ratio"]
            rounds[name][str(nonces)] = figures
            print(f"{nonces} nonces, {outstanding} outstanding:")
            for side in sides:
                print(_line(side, figures[side]), flush=True)
    for name, section in written.items():
        section.write_rounds(rounds[name])


def _measure(
    nonces: int, sections: Mapping[str, int], sides: Sequence[str], start: Start, plan: Plan
) -> dict[tuple[str, str], list[Slice]]:
    slices: dict[tuple[str, str], list[Slice]] = {(name, side): [] for name in sections for side in sides}
    seconds = plan.slice_seconds(nonces)
    with on(SENDERS_CORES), contextlib.ExitStack() as stack:
        where = stack.enter_context(folder())
        receivers = {side: stack.enter_context(start(side, where)) for side in sides}
        sender = Sender(Load(nonces), receivers.values())
        for receiver in receivers.values():
            sender.drive(receiver, seconds / 2, max(sections.values()))
        for _ in range(plan.rounds):
            for name, outstanding in sections.items():
                for side in sides:
                    slices[name, side].append(sender.drive(receivers[side], seconds, outstanding))
    return slices


def _figures(slices: Sequence[Slice], dapis: Sequence[Slice]) -> dict[str, Any]:
    waits = [sorted(each.waits) for each in slices]
    return {
        "rate": spread(each.rate for each in slices),
        "ratio": spread(dapi.rate / each.rate for dapi, each in zip(dapis, slices, strict=True) if each.rate),
        "p50_ms": spread(1000 * percentile(each, 50) for each in waits),
        "p99_ms": spread(1000 * percentile(each, 99) for each in waits),
        "cpu_us": spread(each.cpu_us for each in slices),
        "first_thread_us": spread(each.first_thread_us for each in slices),
        "receiver_share": spread(each.receiver_share for each in slices),
        "sender_share": spread(each.sender_share for each in slices),
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return the median, the lowest and the highest of some values, with four significant digits."""
    found = list(values) or [0.0]
    all_of_them = {"median": statistics.median(found), "min": min(found), "max": max(found)}
    return {name: float(f"{value:.4g}") for name, value in all_of_them.items()}


def _line(side: str, figures: Mapping[str, Any]) -> str:
    rate, ratio = figures["rate"], figures.get("ratio")
    return (
        f"{side:>12} {rate['median']:>9.0f} ({rate['min']:.0f}-{rate['max']:.0f})"
        f"  p99 {figures['p99_ms']['median']:.2f} ms, {figures['cpu_us']['median']:.0f} us of CPU a batch;"
        f" busy: it {figures['receiver_share']['median']:.0%}, sender {figures['sender_share']['median']:.0%}"
        + (f"; dapi's rate is {ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f}) of it" if ratio else "")
    )


def own_command(name: str, where: str, port: str = "0") -> list[str]:
    """Return the command of a receiver of ``bench.receivers``."""
    return [sys.executable, "-m", "bench.receivers", name, port, where]
