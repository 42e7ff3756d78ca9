"""After each test: nothing of it is left on the reactor, and nothing went wrong that nobody heard of.

pytest alone misses what trial catches: a pending delayed call, an open socket, a logged error, a Deferred that failed
and was dropped. A test that expects a logged error takes the fixture ``logged_errors`` and flushes it.

What was logged during a test that fails is shown with it.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

# Only a test that leaves something behind waits as long.
_SETTLE_SECONDS = 10
_TURN_SECONDS = 0.01
_SHOWN_LINES = 300


@implementer(ILogObserver)
class LoggedErrors:
    """The failures that were logged during a test."""

    def __init__(self) -> None:
        self._failures: list[Failure] = []

    def __call__(self, event: LogEvent) -> None:
        """Note one event of the log."""
        if event.get("log_failure") is not None:
            self._failures.append(event["log_failure"])

    def flush(self, *types: type[BaseException]) -> list[Failure]:
        """Return the failures of these types (of any, without an argument), and forget them."""
        # A Deferred that failed unheard is logged when it is collected.
        gc.collect()
        flushed = [failure for failure in self._failures if not types or failure.check(*types)]
        self._failures = [failure for failure in self._failures if failure not in flushed]
        return flushed


_LOGGED: deque[str] = deque(maxlen=_SHOWN_LINES)


@implementer(ILogObserver)
class Latest:
    """Keeps the latest events of the log."""

    def __call__(self, event: LogEvent) -> None:
        """Keep one event as text: an event that is kept would keep what it tells of from being collected."""
        # Twisted has a line for each request of a simulator.
        if event["log_level"] < LogLevel.warn and not event["log_namespace"].startswith("dapi."):
            return
        _LOGGED.append(eventAsText(event, includeTimestamp=True, includeSystem=True))


@pytest.fixture(autouse=True)
def latest_log() -> Iterator[None]:
    """Keep the latest events of the log, for a test that fails."""
    _LOGGED.clear()
    observer = Latest()
    globalLogPublisher.addObserver(observer)
    yield
    globalLogPublisher.removeObserver(observer)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the log of a test that failed, with its output."""
    report = yield
    if report.failed:
        report.sections.append((f"Log ({report.when})", "\n".join(_LOGGED)))
    return report


@pytest.fixture
def logged_errors() -> Iterator[LoggedErrors]:
    """The failures logged so far; what a test does not flush fails it."""
    errors = LoggedErrors()
    globalLogPublisher.addObserver(errors)
    yield errors
    globalLogPublisher.removeObserver(errors)


def _in_use() -> set[Any]:
    """What the reactor waits for, and the threads that are not its own."""
    from twisted.internet import reactor

    threads = [thread for thread in threading.enumerate() if "twisted.internet.reactor" not in thread.name]
    return {*reactor.getDelayedCalls(), *reactor.getReaders(), *reactor.getWriters(), *threads}


@pytest.fixture(autouse=True)
def clean_reactor(latest_log: None, logged_errors: LoggedErrors) -> Iterator[None]:
    """Fail a test that leaves something behind; set up before all other fixtures, it looks after they are gone."""
    from twisted.internet import reactor

    # One turn, so that the reactor's own wake-up pipes are there before the first test.
    pytest_twisted.blockon(deferLater(reactor, 0))
    before = _in_use()
    yield
    left: set[Any] = set()
    for _ in range(round(_SETTLE_SECONDS / _TURN_SECONDS)):
        # The other end of a connection that was closed hears of it one turn later.
        pytest_twisted.blockon(deferLater(reactor, _TURN_SECONDS))
        left = _in_use() - before
        if not left:
            break
    unheard = logged_errors.flush()
    description = "left behind:\n" + "\n".join(sorted(str(thing) for thing in left))
    for call in left:
        if hasattr(call, "active") and call.active():
            call.cancel()
    assert not left, description
    assert not unheard, "logged, not flushed:\n" + "\n".join(failure.getTraceback() for failure in unheard)
