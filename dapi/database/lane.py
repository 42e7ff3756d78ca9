"""A thread that runs one function after the other, so that the reactor's thread never waits for a disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")


class Lane:
    """Runs functions one after the other on a thread of its own, and hands their results to the reactor's thread.

    It can be started again after a stop. ``now`` returns the time in seconds, for ``busy_seconds``.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, now: Callable[[], float]) -> None:
        self._reactor = reactor
        self._name = name
        self._now = now
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._busy_since: float | None = None

    @property
    def queued(self) -> int:
        """How many functions are queued, without the one that runs."""
        return self._jobs.qsize()

    @property
    def busy_seconds(self) -> float:
        """For how long the current function has been running; 0 while none runs."""
        since = self._busy_since
        return 0.0 if since is None else max(0.0, self._now() - since)

    def start(self) -> None:
        """Start the thread."""
        # A daemon: what is queued when the interpreter exits was acknowledged to nobody.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], T]) -> Deferred[T]:
        """Run ``function`` after all that was submitted before; fires, or fails, with what it returns or raises."""
        outcome: Deferred[T] = Deferred()
        self._jobs.put(partial(self._do, function, outcome))
        return outcome

    def stop(self) -> Deferred[None]:
        """End the thread after all that was submitted; fires when it is gone."""
        gone: Deferred[None] = Deferred()
        self._jobs.put(lambda: self._reactor.callFromThread(self._join, gone))
        self._jobs.put(None)
        return gone

    def _join(self, gone: Deferred[None]) -> None:
        self._thread.join()
        gone.callback(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._busy_since = self._now()
            job()
            self._busy_since = None
            # Otherwise what it refers to would be held until the next job comes.
            del job

    def _do(self, function: Callable[[], T], outcome: Deferred[T]) -> None:
        try:
            result = function()
        except BaseException:  # noqa: BLE001 - whoever has the Deferred gets it
            self._reactor.callFromThread(outcome.errback, Failure())
        else:
            self._reactor.callFromThread(outcome.callback, result)
