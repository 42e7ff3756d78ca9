"""dapi in a process of its own: ``python -m bench.soak.dapi CONFIG MEASURED``.

It runs the service that ``twistd dapi`` runs, until SIGTERM. Its log goes to stderr. At the end it writes what it
measured of itself, as JSON, to the file MEASURED.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

# The first seconds import and start everything.
_STARTING_SECONDS = 3.0
_LONG_SECONDS = 0.1


class StepMeter:
    """Takes the place of a reactor's epoll object, and measures what happens between two calls of ``poll``.

    A step is all that the reactor does from one poll to the next. ``wall`` has the seconds that the longest one took,
    ``cpu`` those that this thread computed in the longest one: other processes, and other threads that hold the
    interpreter, add to the first only.
    """

    log = Logger()

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self._began: tuple[float, float] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all steps so far."""
        self.steps = self.above_50_ms = 0
        self.wall = self.cpu = self.busy = 0.0

    def poll(self, timeout: float, maxevents: int) -> Any:
        """Poll, as the epoll object does."""
        if self._began is not None:
            wall, cpu = time.perf_counter() - self._began[0], time.thread_time() - self._began[1]
            self.steps += 1
            self.busy += cpu
            self.above_50_ms += cpu > 0.05
            if cpu > _LONG_SECONDS:
                self.log.info("a step of the reactor computed {ms:.0f} ms", ms=1000 * cpu)
            self.wall, self.cpu = max(self.wall, wall), max(self.cpu, cpu)
        try:
            return self._poller.poll(timeout, maxevents)
        finally:
            self._began = time.perf_counter(), time.thread_time()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


def seconds_waited_for_a_cpu() -> float | None:
    """Return for how long the reactor's thread was ready to run and had no CPU; None where the system does not tell."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def main(config: str, measured: str) -> None:
    """Run dapi until the process is told to end."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    from twisted.internet import reactor as installed

    from dapi.tap import Options, makeService

    reactor: Any = installed
    meter = StepMeter(reactor._poller) if hasattr(reactor, "_poller") else None
    if meter is not None:
        reactor._poller = meter
        reactor.callLater(_STARTING_SECONDS, meter.reset)
    options = Options()  # type: ignore[no-untyped-call]
    options.parseOptions(["--config", config])
    service: Any = makeService(options)

    def write() -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        facts: dict[str, float] = {"rss_kib": used.ru_maxrss, "cpu_seconds": used.ru_utime + used.ru_stime}
        if (waited := seconds_waited_for_a_cpu()) is not None:
            facts["waited_seconds"] = waited
        if meter is not None:
            facts |= {"step_wall_ms": 1000 * meter.wall, "step_cpu_ms": 1000 * meter.cpu}
            facts |= {"steps": meter.steps, "steps_above_50_ms": meter.above_50_ms, "reactor_cpu_seconds": meter.busy}
        Path(measured).write_text(json.dumps(facts))

    service.privilegedStartService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.addSystemEventTrigger("after", "shutdown", write)
    reactor.callWhenRunning(service.startService)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
