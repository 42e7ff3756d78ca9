"""Looks every few seconds what is wrong, so that it is known since when, and is logged where no part does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import deferLater

from dapi.service.warnings import WarningBook, findings
from dapi.timing.loop import LoopService

_LOOK_SECONDS = 2.0


class WarningWatch(LoopService):
    """``status`` returns the states of all parts, as JSON data."""

    def __init__(self, reactor: Any, status: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(reactor)
        self._status = status
        self._book = WarningBook()

    def look(self) -> list[dict[str, Any]]:
        """Return what is wrong now: each with ``problem``, ``since`` (RFC 3339) and ``to_do``."""
        found = findings(self._status())
        warnings, new = self._book.update(found, self._reactor.seconds(), time.time())
        for finding in new:
            if not finding.is_logged:
                self.log.warn("{problem}: {to_do}", problem=finding.problem, to_do=finding.to_do)
        return warnings

    async def loop(self) -> None:
        """Look again and again."""
        while self.running:
            await deferLater(self._reactor, _LOOK_SECONDS)
            self.look()
