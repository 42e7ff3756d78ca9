"""What held up the good nodes: dapi itself, in one long turn of its reactor, or the disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from dapi.database import Database

T = TypeVar("T")


class Watch:
    """Knows the longest turn of an epoll reactor, and the longest write of a database, since the last ``take``.

    A turn is measured in the processor's time, so it says what dapi takes, and not what else the machine does. Within a
    turn nobody else has one.
    """

    def __init__(self, reactor: Any, database: Database) -> None:
        self._turn = self._write = 0.0
        self._poller = reactor._poller
        self._begun = time.thread_time()
        reactor._poller = self
        write = database.write

        def timed(function: Callable[[sqlite3.Connection], T], *, intake: bool = False) -> Deferred[T]:
            return write(lambda connection: self._time(function, connection), intake=intake)

        setattr(database, "write", timed)  # noqa: B010 - mypy wants no method to be assigned

    def take(self) -> dict[str, float]:
        """Return both in milliseconds, and begin again."""
        found = {"turn_ms": round(1000 * self._turn, 1), "write_ms": round(1000 * self._write, 1)}
        self._turn = self._write = 0.0
        return found

    def poll(self, *arguments: Any) -> Any:
        """Stand for the poller of the reactor: when that is asked, a turn is over."""
        self._turn = max(self._turn, time.thread_time() - self._begun)
        found = self._poller.poll(*arguments)
        self._begun = time.thread_time()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)

    def _time(self, function: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
        begun = time.perf_counter()
        try:
            return function(connection)
        finally:
            self._write = max(self._write, time.perf_counter() - begun)
