"""Looks every few seconds what is wrong, so that it is known since when, and is logged where no part does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import deferLater

from dapi.diagnosis.book import ProblemBook
from dapi.diagnosis.checks import findings
from dapi.diagnosis.problem import Problem
from dapi.timing.loop import LoopService

_LOOK_SECONDS = 2.0


class ProblemWatch(LoopService):
    """Keeps ``problems`` current; ``status`` returns the states of all parts, as JSON data."""

    def __init__(self, reactor: Any, status: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(reactor)
        self.problems: list[Problem] = []
        self._status = status
        self._book = ProblemBook()

    def look(self) -> list[Problem]:
        """Look now, and return what is wrong, the gravest first."""
        changes = self._book.update(findings(self._status()), self._reactor.seconds(), time.time())
        self.problems = changes.problems
        for finding in changes.began:
            if not finding.is_logged:
                self.log.warn("{problem}: {to_do}", problem=finding.problem, to_do=finding.to_do)
        for finding in changes.over:
            if not finding.is_logged:
                self.log.info("over: {problem}", problem=finding.problem)
        return self.problems

    async def loop(self) -> None:
        """Look again and again."""
        while self.running:
            await deferLater(self._reactor, _LOOK_SECONDS)
            self.look()
