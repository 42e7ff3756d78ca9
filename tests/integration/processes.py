"""Processes that a test starts, watches and ends."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.integration.waiting import soon

# A process of its own takes longer to start, and a demo to come to a phase.
_PATIENCE_SECONDS = 120


class WatchedProcess(ProcessProtocol):
    """A process; ``output`` and ``errors`` are what it wrote so far. ``ended`` fires with its exit code."""

    transport: Any  # an IProcessTransport, from when it is started

    def __init__(self) -> None:
        self.output = ""
        self.errors = ""
        self.ended: Deferred[int] = Deferred()
        self._waiting: list[tuple[re.Pattern[str], int, Deferred[re.Match[str]]]] = []

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()
        for wanted in list(self._waiting):
            pattern, after, fired = wanted
            if found := pattern.search(self.output, after):
                self._waiting.remove(wanted)
                fired.callback(found)

    def errReceived(self, data: bytes) -> None:
        self.errors += data.decode()

    def processEnded(self, reason: Failure) -> None:
        for *_, fired in self._waiting:
            fired.errback(AssertionError(f"ended too soon:\n{self.output}\n{self.errors}"))
        end: Any = reason.value
        self.ended.callback(-end.signal if end.exitCode is None else end.exitCode)

    def when_written(self, pattern: str, *, after: int = 0) -> Deferred[re.Match[str]]:
        """Fire with the match once the output, beyond the first ``after`` characters, has this pattern."""
        fired: Deferred[re.Match[str]] = Deferred()
        self._waiting.append((re.compile(pattern, re.MULTILINE), after, fired))
        self.outReceived(b"")
        return soon(fired, _PATIENCE_SECONDS)

    def when_ended(self) -> Deferred[int]:
        """Fire with the exit code, negative for a signal."""
        return soon(self.ended, _PATIENCE_SECONDS)

    def signal(self, name: str | int) -> None:
        """Send a signal, such as ``TERM``, or by its number."""
        self.transport.signalProcess(name)

    def kill(self) -> Deferred[int]:
        """Kill it, if it still runs; fires when it has ended."""
        if not self.ended.called:
            with suppress(ProcessExitedAlready):
                self.signal("KILL")
        return self.when_ended()
