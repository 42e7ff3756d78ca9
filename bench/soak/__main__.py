"""``python -m bench.soak``: run a soak, print the account; see the package's docstring."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
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
from bench.soak.run import Soak
from bench.soak.settings import SoakSettings, parse


async def soak(reactor: Any, settings: SoakSettings, folder: Path) -> int:
    """Run it and print what came of it; return the exit code."""
    print(head(settings), flush=True)
    began = reactor.seconds()
    whole = Soak(reactor, settings, folder)
    account, measured, said = await whole.run()
    seconds = reactor.seconds() - began
    print(f"took            {seconds:.0f} s; faults {whole.faults.said}, stalled {whole.faults.stalled_seconds:.0f} s")
    measurements = (*measured_lines(measured, seconds), *growth.lines(whole.uses))
    for line in (*account.lines(), *measurements, *(f"dapi says       {line}" for line in said)):
        print(line)
    return verdict([*account.broken, *growth.grown(whole.uses)])


def verdict(broken: Sequence[str]) -> int:
    """Print which promises are broken; return the exit code."""
    for text in broken:
        print(f"BROKEN          {text}")
    print("promises broken" if broken else "all promises kept", flush=True)
    return 1 if broken else 0


def measured_lines(measured: Mapping[str, float], seconds: float) -> Iterable[str]:
    """Yield what dapi's process took, as it measured it itself."""
    cpu = measured["cpu_seconds"]
    yield f"dapi's memory   {measured['rss_kib'] / 1024:.0f} MiB at most"
    yield f"dapi's CPU      {cpu:.1f} s, {100 * cpu / seconds:.1f} % of one core"
    if "waited_seconds" in measured:
        yield f"  waited        {measured['waited_seconds']:.1f} s for a CPU that others had" + (
            ", more than it computed: this machine is too busy for a verdict"
            if measured["waited_seconds"] > cpu
            else ""
        )
    if "steps" in measured:
        yield (
            f"reactor's step  the longest computed {measured['step_cpu_ms']:.0f} ms, the longest took"
            f" {measured['step_wall_ms']:.0f} ms on this machine's clock;"
            f" {measured['steps_above_50_ms']:.0f} of {measured['steps']:.0f} computed more than 50 ms"
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
    """Run a soak; return 0, or 1 when a promise is broken or the soak failed."""
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
