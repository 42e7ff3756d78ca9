"""A database for unit tests: real file and real threads, but a reactor that only turns when the test says so."""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dapi.database import Database

T = TypeVar("T")

# Of waiting for a thread; only a test that fails waits as long.
PATIENCE_SECONDS = 60

COUNT_NODES = "SELECT count(*) FROM nodes"


def add_node(name: str) -> str:
    return f"INSERT INTO nodes (id, config, enabled, removed) VALUES ('{name}', '', 1, 0)"


class ThreadClock(Clock):
    """A Clock that keeps what threads hand over until the test turns to it."""

    def __init__(self) -> None:
        super().__init__()
        self._handed_over: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def callFromThread(self, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> None:
        """Keep a call."""
        self._handed_over.put(partial(function, *args, **kwargs))

    def turn(self) -> None:
        """Make one turn of a reactor: the calls that are due, and what was handed over."""
        self.advance(0)
        while not self._handed_over.empty():
            self._handed_over.get()()

    def wait_for(self, deferred: Deferred[T]) -> T:
        """Turn until ``deferred`` has a result: return it, or raise its failure."""
        results: list[T | Failure] = []
        deferred.addBoth(results.append)
        while True:
            self.advance(0)
            if results:
                break
            try:
                self._handed_over.get(timeout=PATIENCE_SECONDS)()
            except queue.Empty:
                raise AssertionError("no thread did anything") from None
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result


class Obstacle:
    """Keeps the writer's thread busy, from when it is ``reached``, until it is removed."""

    def __init__(self, database: Database) -> None:
        self.reached = threading.Event()
        self._removed = threading.Event()
        self.passed = database.write(self._hold)

    def _hold(self, connection: sqlite3.Connection) -> None:
        self.reached.set()
        self._removed.wait(PATIENCE_SECONDS)

    def remove(self) -> None:
        """Let the writer go on."""
        self._removed.set()


class StoreTestCase(SynchronousTestCase):
    """Has a path for a database, and closes every database that it opened."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute() / "dapi.db"
        self.clock = ThreadClock()
        self.broken: list[str] = []

    def make_database(self, **settings: Any) -> Database:
        """Make a database that is not started."""
        settings = {"on_broken": self.broken.append, "reserve_bytes": 65536, "now": self.clock.seconds, **settings}
        return Database(self.clock, str(self.path), **settings)

    def open_database(self, **settings: Any) -> Database:
        """Start a database, which is closed after the test if not before."""
        database = self.make_database(**settings)
        database.startService()
        self.addCleanup(self.close_database, database)
        return database

    def close_database(self, database: Database) -> None:
        """Stop a database, and wait until it is closed."""
        self.clock.wait_for(database.stopService())

    def execute(self, database: Database, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement on the writer's connection and return its rows."""
        return self.clock.wait_for(database.write(lambda connection: connection.execute(statement, values).fetchall()))

    def look(self, query: str) -> list[tuple[Any, ...]]:
        """Return what is committed, as seen by another program."""
        connection = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()
