"""``python -m bench.soak``: run a soak, print the account; see the package's docstring."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

import bench.soak
from bench.soak import growth
from bench.soak.dapi import seconds_waited_for_a_cpu
from bench.soak.run import Soak
from bench.soak.settings import SoakSettings, parse


async def soak(reactor: Any, settings: SoakSettings, folder: Path) -> int:
    """Run it and print what came of it; return the exit code."""
    print(head(settings), flush=True)
    began, cpu_began = reactor.seconds(), time.process_time()
    whole = Soak(reactor, settings, folder)
    account, measured, said = await whole.run()
    seconds = reactor.seconds() - began
    print(f"took            {seconds:.0f} s; faults {whole.faults.said}, stalled {whole.faults.stalled_seconds:.0f} s")
    own = {"cpu_seconds": time.process_time() - cpu_began}
    if (waited := seconds_waited_for_a_cpu()) is not None:
        own["waited_seconds"] = waited
    own_lines = cpu_lines("the simulators'", own, seconds)
    measurements = (*measured_lines(measured, seconds), *own_lines, *growth.lines(whole.uses))
    for line in (*account.lines(), *measurements, *(f"dapi says       {line}" for line in said)):
        print(line)
    excused = [*account.late, *growth.files_grown(whole.uses)] if waits_too_long(measured, own) else []
    return verdict([*account.broken, *growth.grown(whole.uses)], excused)


def verdict(broken: Sequence[str], excused: Collection[str] = ()) -> int:
    """Print which promises are broken; return the exit code: 2 when all of these are ``excused``."""
    for text in broken:
        print(f"BROKEN          {text}")
    if broken and set(broken) <= set(excused):
        print("no verdict: this machine was too busy, see above; run it again while less else runs", flush=True)
        return 2
    print("promises broken" if broken else "all promises kept", flush=True)
    return 1 if broken else 0


def waits_too_long(*measured: Mapping[str, float]) -> bool:
    """Whether dapi or the simulators waited longer for a CPU than they computed."""
    return any(each.get("waited_seconds", 0.0) > each["cpu_seconds"] for each in measured)


def measured_lines(measured: Mapping[str, float], seconds: float) -> Iterable[str]:
    """Yield what dapi's process took, as it measured it itself."""
    yield f"dapi's memory   {measured['rss_kib'] / 1024:.0f} MiB at most"
    yield from cpu_lines("dapi's", measured, seconds)
    if "steps" in measured:
        yield (
            f"reactor's step  the longest computed {measured['step_cpu_ms']:.0f} ms, the longest took"
            f" {measured['step_wall_ms']:.0f} ms on this machine's clock;"
            f" {measured['steps_above_50_ms']:.0f} of {measured['steps']:.0f} computed more than 50 ms"
        )


def cpu_lines(whose: str, measured: Mapping[str, float], seconds: float) -> Iterable[str]:
    """Yield what a process has computed, and for how long it waited to."""
    cpu = measured["cpu_seconds"]
    yield f"{whose + ' CPU':15} {cpu:.1f} s, {100 * cpu / seconds:.1f} % of one core"
    if "waited_seconds" in measured:
        too_long = ", more than it computed: this machine is too busy for a verdict"
        yield (
            f"  waited        {measured['waited_seconds']:.1f} s for a CPU that others had"
            f"{too_long if waits_too_long(measured) else ''}"
        )


def head(settings: SoakSettings) -> str:
    """Say what is run."""
    return (
        f"{settings.nodes} nodes ({settings.http_nodes} without WebSocket), {settings.epochs} epochs and a stage,"
        f" blocks of {settings.block_seconds:.2f} s, from each node {settings.nonces} nonces each"
        f" {settings.batch_seconds:.2f} s, about {settings.expected_seconds:.0f} s\n"
        f"faults {sorted(settings.faults)}, grant missing in the first third of each {settings.grant_by},"
        f" index {'off' if settings.is_index_off else 'on'}, seed {settings.seed}\n"
        f"a window allowed a batch: after its ack, {settings.chances} blocks of it or more found the grant"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak; return 0, 1 when a promise is broken or the soak failed, 2 for no verdict."""
    settings, keep = parse(arguments, bench.soak.__doc__)
    from twisted.internet import reactor as installed

    reactor: Any = installed
    serious = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.error)])
    globalLogBeginner.beginLoggingTo([serious], redirectStandardIO=False)
    codes: list[int] = []

    def over(result: int | Failure) -> None:
        if isinstance(result, Failure):
            print(f"the soak failed: {result.getErrorMessage()}\n{result.getBriefTraceback()}", file=sys.stderr)
        codes.append(1 if isinstance(result, Failure) else result)
        reactor.stop()

    with ExitStack() as stack:
        folder = Path(keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="dapi-soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        reactor.callWhenRunning(lambda: Deferred.fromCoroutine(soak(reactor, settings, folder)).addBoth(over))
        reactor.run()
    return codes[0] if codes else 1


if __name__ == "__main__":
    sys.exit(main())
