"""dapi inside a process of your own: ``python embedded.py config.yaml``. Ctrl-C or SIGTERM end it."""

from __future__ import annotations

import sys
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

from dapi.config import Config, load_config
from dapi.errors import DapiError
from dapi.service import DapiService, make_service
from dapi.timing.clock import make_monotonic


class Reporter(Service):
    """A service of the process's own: it says every ten seconds how dapi is."""

    log = Logger()

    def __init__(self, reactor: Any, dapi: DapiService) -> None:
        self._dapi = dapi
        self._loop = LoopingCall(self._report)
        self._loop.clock = reactor

    def startService(self) -> None:
        """Begin to report."""
        super().startService()
        self._loop.start(10, now=False).addErrback(lambda failure: self.log.failure("no more reports", failure))

    def stopService(self) -> None:
        """End it."""
        super().stopService()
        self._loop.stop()

    async def _report(self) -> None:
        status = await self._dapi.status()
        self.log.info("{confirmed} are in blocks", confirmed=status["batches"]["confirmed"])
        for problem in self._dapi.problems():
            self.log.warn("{id}: {problem}. {to_do}", id=problem.id, problem=problem.problem, to_do=problem.to_do)


def make_process(reactor: Any, config: Config, end: Any) -> MultiService:
    """Return all services of the process; ``end`` is called with the reason when nothing can be stored any more."""
    process = MultiService()
    dapi = make_service(config, reactor, on_broken=end)
    dapi.setServiceParent(process)
    Reporter(reactor, dapi).setServiceParent(process)
    return process


def main() -> int:
    """Run until a signal; 1 when dapi cannot start, or when its database breaks."""
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    # Else all that waits follows the wall clock, which may be set back.
    make_monotonic(reactor)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    reasons: list[str] = []

    def end(reason: str) -> None:
        reasons.append(reason)
        reactor.stop()

    try:
        config, warnings = load_config(sys.argv[1])
        process = make_process(reactor, config, end)
        # It opens the database and the ports before it returns.
        process.startService()
    except DapiError as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    for warning in warnings:
        Reporter.log.warn("{warning}", warning=warning)
    # The reactor waits for the Deferred, which fires when everything that has come is on disk.
    reactor.addSystemEventTrigger("before", "shutdown", process.stopService)
    reactor.run()
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
