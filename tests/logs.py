"""What was logged, for tests that read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer


@implementer(ILogObserver)
class Log:
    """The events that were logged since it was made, oldest first."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    def lines(self, level: LogLevel | None = None, containing: str = "") -> list[str]:
        """Return the formatted lines of this level (None: of any) that contain this text."""
        lines = [formatEvent(event) for event in self.events if level is None or event.get("log_level") is level]
        return [line for line in lines if containing in line]

    def warnings(self, containing: str = "") -> list[str]:
        """Return the lines of level warn that contain this text."""
        return self.lines(LogLevel.warn, containing)


@contextmanager
def captured_log() -> Iterator[Log]:
    """Capture what is logged while the context lasts."""
    log = Log()
    globalLogPublisher.addObserver(log)
    try:
        yield log
    finally:
        globalLogPublisher.removeObserver(log)


def log_of(test: SynchronousTestCase) -> Log:
    """Capture what is logged from here to the end of a unit test."""
    log = Log()
    globalLogPublisher.addObserver(log)
    test.addCleanup(globalLogPublisher.removeObserver, log)
    return log
