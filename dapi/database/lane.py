"""A thread that runs one function after the other, so that the reactor's thread never waits for a disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Lane:
    """Runs functions one after the other on a thread of its own, and hands their results to the reactor's thread.

    It can be started again after a stop.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._name = name
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._together: Callable[[], AbstractContextManager[None]] | None = None
        self._busy_since: float | None = None

    @property
    def queued(self) -> int:
        """How many functions are queued, without the one that runs."""
        return self._jobs.qsize()

    @property
    def busy_seconds(self) -> float:
        """For how long the current function has been running; 0 while none runs."""
        since = self._busy_since
        return 0.0 if since is None else max(0.0, self._reactor.seconds() - since)

    def start(self) -> None:
        """Start the thread."""
        self._together = None
        # A daemon: what is queued when the interpreter exits was acknowledged to nobody.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], T]) -> Deferred[T]:
        """Run ``function`` after all that was submitted before; fires, or fails, with what it returns or raises."""
        job = _Job(function)
        self._jobs.put(job)
        return job.outcome

    def run_together(self, together: Callable[[], AbstractContextManager[None]]) -> None:
        """Run all that is queued within one ``with together():`` from now on, until the stop.

        Each Deferred fires after the end of it. When ``together`` raises, all of them fail with that.
        """
        self._together = together

    def stop(self, last: Callable[[], None] = lambda: None) -> Deferred[None]:
        """End the thread after all that was submitted; ``last`` runs then, alone.

        Fires when the thread is gone, or fails with what ``last`` raised.
        """
        self._last = _Job(last)
        self._jobs.put(None)
        return self._last.outcome

    def _join(self) -> None:
        self._thread.join()
        self._last.tell()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._busy_since = self._reactor.seconds()
            jobs = [job]
            if self._together is None:
                job.run()
            else:
                self._run_together(jobs, self._together)
            for each in jobs:
                self._reactor.callFromThread(each.tell)
            self._busy_since = None
            # Otherwise what they refer to would be held until the next job comes.
            del job, jobs, each
        self._last.run()
        self._reactor.callFromThread(self._join)

    def _run_together(self, jobs: list[_Job[Any]], together: Callable[[], AbstractContextManager[None]]) -> None:
        """Run the first of ``jobs`` and all that are queued, which are added to it."""
        for _ in range(self._jobs.qsize()):
            if (job := self._jobs.get()) is None:
                # The stop comes behind all others.
                self._jobs.put(None)
                break
            jobs.append(job)
        try:
            with together():
                for job in jobs:
                    job.run()
        except BaseException:  # noqa: BLE001 - whoever has the Deferreds gets it
            failure = Failure()
            for job in jobs:
                job.result = failure


class _Job(Generic[T]):
    """A function, and the Deferred of its result."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.outcome: Deferred[T] = Deferred()
        self.result: T | Failure

    def run(self) -> None:
        try:
            self.result = self._function()
        except BaseException:  # noqa: BLE001 - whoever has the Deferred gets it
            self.result = Failure()

    def tell(self) -> None:
        self.outcome.callback(self.result)
