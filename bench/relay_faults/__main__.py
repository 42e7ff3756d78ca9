"""Runs the rounds, and says what each fault cost."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from bench.processes import folder
from bench.relay_faults import __doc__ as about
from bench.relay_faults.faults import FAULTS, FULL_CONTAINER, FULL_DAPI, Fault, can_have_small_disk
from bench.relay_faults.host import Host
from dapi.simulator.api.settings import START, ApiSettings, Line

BLOCKS = 110
# What is over by then is promised to cost nothing.
_SPARE_BLOCKS = 16
# dapi has to start on a busy machine.
_SPARE_BLOCKS_OF_DAPI = 30
_PROMISED_SECONDS = 15.0


class Result(NamedTuple):
    """What one fault cost in one stage, in artifacts; ``lost`` are those that dapi had promised."""

    made: int
    committed: int
    lost: int
    strangers: int


class Pair:
    """Two hosts that meet the same fault."""

    def __init__(self, reactor: Any, name: str, folder: Path, chance: random.Random) -> None:
        self.name = name
        self._reactor = reactor
        self._fault: Fault = FAULTS[name]
        line = Line.B if name == FULL_CONTAINER else Line.C
        api = ApiSettings(line=line, commits_first=chance.random() < 0.5)
        self.without = Host(reactor, BLOCKS, None, api)
        folder.mkdir()
        self.with_dapi = Host(reactor, BLOCKS, folder, api, has_small_disk=name == FULL_DAPI)
        self.hosts = (self.without, self.with_dapi)
        spare = _SPARE_BLOCKS_OF_DAPI if self._fault.is_dapis else _SPARE_BLOCKS
        # Half of them end in the last seconds of what is promised, where nodes alone lose most.
        last = BLOCKS - spare
        self.end = chance.uniform(20.0, last) if chance.random() < 0.5 else chance.uniform(last - 10.0, last)
        self.seconds = min(chance.uniform(1.0, self._fault.longest_seconds), self.end - 4.0)
        self.flush_after_seconds = chance.uniform(0.0, 4.0)
        self.made: dict[Host, int] = {}

    async def meet(self) -> None:
        """Let the fault happen to both."""
        await deferLater(self._reactor, self.end - self.seconds)
        acts = [Deferred.fromCoroutine(self._act(host)) for host in self.hosts]
        await gatherResults(acts)

    async def _act(self, host: Host) -> None:
        await self._fault.act(self._reactor, host, self.seconds)

    def see_block(self, height: int) -> None:
        """Have a block come."""
        for host in self.hosts:
            host.api.see_block(height)
            if height <= host.stage.end:
                # What is made later can count nothing.
                self.made[host] = host.made

    def result(self, host: Host) -> Result:
        """Return what became of the work of one of the hosts."""
        promised = host.answered_until(BLOCKS - _PROMISED_SECONDS) if host is self.with_dapi else set()
        committed = host.api.in_last_commit
        return Result(self.made[host], len(committed), len(promised - committed), host.strangers())


async def run_round(reactor: Any, names: list[str], number: int, seed: int) -> dict[str, tuple[Result, Result]]:
    """Run one stage; return by fault what it cost without dapi, and with it."""
    chance = random.Random(f"{seed} {number}")
    with folder() as path:
        pairs = [Pair(reactor, name, Path(path) / str(index), chance) for index, name in enumerate(names)]
        await gatherResults([Deferred.fromCoroutine(host.start()) for pair in pairs for host in pair.hosts])
        height = START - 1

        def block() -> None:
            nonlocal height
            height += 1
            for pair in pairs:
                pair.see_block(height)

        blocks = LoopingCall(block)
        blocks.clock = reactor
        ended = blocks.start(1.0)
        for pair in pairs:
            for host in pair.hosts:
                host.generate(pair.flush_after_seconds)
        meeting = [Deferred.fromCoroutine(pair.meet()) for pair in pairs]
        await deferLater(reactor, BLOCKS + 1.5)
        blocks.stop()
        await ended
        await gatherResults(meeting)
        results = {pair.name: (pair.result(pair.without), pair.result(pair.with_dapi)) for pair in pairs}
        for pair in pairs:
            without, with_dapi = results[pair.name]
            times = f"from {pair.end - pair.seconds:.0f} to {pair.end:.0f} s"
            mark = " BROKEN" if with_dapi.lost or with_dapi.strangers else ""
            print(f"{number:3} {pair.name:26} {times:18} {_shares(without, with_dapi)}{mark}", flush=True)
            if mark:
                print(pair.with_dapi.process.output[-4000:], flush=True)
        await gatherResults([Deferred.fromCoroutine(host.stop()) for pair in pairs for host in pair.hosts])
    return results


def _shares(without: Result, with_dapi: Result) -> str:
    shares = [100 * each.committed / max(1, each.made) for each in (without, with_dapi)]
    promises = f"of its promises lost {with_dapi.lost}"
    return f"committed without dapi {shares[0]:5.1f} %, with dapi {shares[1]:5.1f} %, {promises}"


async def run(reactor: Any, names: list[str], rounds: int, seed: int) -> int:
    """Run all rounds, print what they cost, and return the exit code."""
    everything: dict[str, list[tuple[Result, Result]]] = {name: [] for name in names}
    for number in range(1, rounds + 1):
        for name, found in (await run_round(reactor, names, number, seed)).items():
            everything[name].append(found)
    print(f"\n{'fault':26} rounds  committed without dapi: mean, least   with dapi: mean, least   promises lost")
    told: dict[str, Any] = {}
    for name, results in everything.items():
        shares = [[100 * each[side].committed / max(1, each[side].made) for each in results] for side in (0, 1)]
        lost = sum(each[1].lost for each in results)
        means = [sum(each) / len(each) for each in shares]
        columns = f"{means[0]:22.1f} %, {min(shares[0]):5.1f} % {means[1]:16.1f} %, {min(shares[1]):5.1f} %"
        print(f"{name:26} {len(results):6} {columns} {lost:10}")
        told[name] = {
            "rounds": len(results),
            "without": [round(means[0], 1), round(min(shares[0]), 1)],
            "with": [round(means[1], 1), round(min(shares[1]), 1)],
            "lost": lost,
            "strangers": sum(each[1].strangers for each in results),
        }
    print(json.dumps(told), flush=True)
    return int(any(each["lost"] or each["strangers"] for each in told.values()))


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay_faults", description=about)
    parser.add_argument("--rounds", type=int, default=1, help="how many stages, of two minutes each (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="for when the faults come (default: 1)")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only this one; may be given again")
    options = parser.parse_args()
    names = options.fault or list(FAULTS)
    if FULL_DAPI in names and not can_have_small_disk():
        names.remove(FULL_DAPI)
        print(f"left out: {FULL_DAPI}: there is no unshare or mount", flush=True)
    serious = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.critical)])
    globalLogBeginner.beginLoggingTo([serious], redirectStandardIO=False)

    def exit_with(code: int) -> None:
        raise SystemExit(code)

    react(
        lambda reactor: Deferred.fromCoroutine(run(reactor, names, options.rounds, options.seed)).addCallback(exit_with)
    )


if __name__ == "__main__":
    main()
