"""Looks every few seconds what is wrong, so that it is known since when, and says in the log what no part says there.

A problem makes one line when it begins, one when its cause changes, and one when it is over; all that lasts makes one
line an hour.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from dapi.diagnosis.book import ProblemBook
from dapi.diagnosis.catalogue import Severity
from dapi.diagnosis.checks import findings
from dapi.diagnosis.problem import Finding, Problem
from dapi.errors import StoreError
from dapi.outbox.losses import Loss
from dapi.timing.log_limits import OncePerMinute
from dapi.timing.loop import LoopService

_LOOK_SECONDS = 2.0
# With thousands of nodes, looking takes a good part of a second: then it is done less often, for 1 % of the time.
_PAUSES_A_LOOK = 100
_LOSSES_SECONDS = 10.0
_SUMMARY_SECONDS = 3600.0
_LASTING_SECONDS = 1800.0
_SHOWN = 10
_NUMBERS = re.compile(r"\d+(\.\d+)?")
_LEVELS: Final = {
    Severity.CRITICAL: LogLevel.error,
    Severity.WARNING: LogLevel.warn,
    Severity.INFO: LogLevel.info,
}


class ProblemWatch(LoopService):
    """Keeps ``problems`` current, the gravest first.

    ``status`` returns the states of all parts, as JSON data. ``ask_losses`` asks the database for ``losses``, what was
    lost in the latest stages; while it does not answer, what it said before counts. ``now`` is the time of day, in unix
    seconds, ``processor_seconds`` how long this thread has used the processor.
    """

    def __init__(
        self,
        reactor: Any,
        status: Callable[[], dict[str, Any]],
        ask_losses: Callable[[], Deferred[list[Loss]]],
        *,
        now: Callable[[], float] = time.time,
        processor_seconds: Callable[[], float] = time.thread_time,
    ) -> None:
        super().__init__(reactor)
        self.problems: list[Problem] = []
        self.losses: list[Loss] = []
        self._status = status
        self._ask_losses = ask_losses
        self._now = now
        self._processor_seconds = processor_seconds
        self._is_asking = False
        self._asked_at = float("-inf")
        self._book = ProblemBook()
        # What was logged of each problem that there is, without its numbers.
        self._told: dict[object, str] = {}
        self._log_limit = OncePerMinute(reactor)
        self._summary_at = reactor.seconds()

    def look(self, status: Mapping[str, Any] | None = None) -> list[Problem]:
        """Look now, at ``status`` if it is known already, and return what is wrong."""
        losses = msgspec.to_builtins(self.losses)
        found = findings({**(self._status() if status is None else status), "losses": losses})
        changes = self._book.update(found, self._reactor.seconds(), self._now())
        self.problems = changes.problems
        for finding in changes.over:
            if self._told.pop(finding.key, None) is not None:
                self.log.info("over: {problem}", problem=finding.problem)
        for finding in changes.counting:
            if not finding.is_logged:
                self._tell(finding)
        return self.problems

    async def loop(self) -> None:
        """Look again and again: every 2 s, or after a hundred times as long as the last look took."""
        pause = _LOOK_SECONDS
        while self.running:
            await deferLater(self._reactor, pause)
            self._refresh_losses()
            begun_at = self._processor_seconds()
            self.look()
            pause = max(_LOOK_SECONDS, _PAUSES_A_LOOK * (self._processor_seconds() - begun_at))
            self._summarize()

    def _tell(self, finding: Finding) -> None:
        """Log a problem that is new, or that has another cause than the last time; numbers are none."""
        cause, told = _NUMBERS.sub("#", finding.problem), self._told.get(finding.key)
        if cause == told or (told is not None and not self._log_limit.is_due(finding.id)):
            return
        self._told[finding.key] = cause
        level = _LEVELS[finding.severity or finding.id.severity]
        self.log.emit(level, "{problem}: {to_do}", problem=finding.problem, to_do=finding.to_do)

    def _summarize(self) -> None:
        """Say once an hour what has been wrong for half an hour and more."""
        if self._reactor.seconds() - self._summary_at < _SUMMARY_SECONDS:
            return
        self._summary_at, now = self._reactor.seconds(), self._now()
        lasting = [
            each
            for each in self.problems
            if each.severity is not Severity.INFO and now - each.since.timestamp() >= _LASTING_SECONDS
        ]
        if lasting:
            names = [f"{each.id} ({each.node_id or each.part})" for each in lasting[:_SHOWN]]
            more = f" and {len(lasting) - _SHOWN} more" if len(lasting) > _SHOWN else ""
            self.log.warn("still wrong: {names}{more}", names=", ".join(names), more=more)

    def _refresh_losses(self) -> None:
        if self._is_asking or self._reactor.seconds() - self._asked_at < _LOSSES_SECONDS:
            return
        self._is_asking, self._asked_at = True, self._reactor.seconds()
        asked = self._ask_losses().addCallbacks(self._learn_losses, self._stay_with_losses)
        asked.addErrback(lambda failure: self.log.failure("what was lost cannot be counted", failure))

    def _learn_losses(self, losses: list[Loss]) -> None:
        self._is_asking, self.losses = False, losses

    def _stay_with_losses(self, failure: Failure) -> None:
        self._is_asking = False
        # The database tells itself what is wrong with it.
        failure.trap(StoreError)
