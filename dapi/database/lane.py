"""A thread that does one thing after the other, for the reactor's thread, which must never wait for a disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

T = TypeVar("T")


class DatabaseReactor(Protocol):
    """What the database needs of a reactor: Twisted's IReactorTime and IReactorFromThreads have it."""

    def callLater(  # noqa: N802 - Twisted's name
        self, delay: float, function: Callable[..., object], /, *args: object, **kwargs: object
    ) -> IDelayedCall:
        """Call later, in the reactor's thread."""

    def callFromThread(  # noqa: N802 - Twisted's name
        self, function: Callable[..., object], /, *args: object, **kwargs: object
    ) -> None:
        """Call soon, in the reactor's thread."""


class Lane:
    """A thread that runs functions one after the other; what came of each goes back to the reactor's.

    It can be started again after a stop. ``now`` tells the time in seconds, for ``busy_seconds``.
    """

    def __init__(self, reactor: DatabaseReactor, name: str, now: Callable[[], float]) -> None:
        self._reactor = reactor
        self._name = name
        self._now = now
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._busy_since: float | None = None

    @property
    def waiting(self) -> int:
        """How many functions wait, without the one that runs."""
        return self._jobs.qsize()

    @property
    def busy_seconds(self) -> float:
        """For how long the function that runs has been running; 0 while none does."""
        since = self._busy_since
        return 0.0 if since is None else max(0.0, self._now() - since)

    def start(self) -> None:
        """Start the thread."""
        # A daemon: what is queued when the interpreter exits was acknowledged to nobody.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], T]) -> Deferred[T]:
        """Run ``function`` after all that was submitted before; the Deferred has what it returned or raised."""
        outcome: Deferred[T] = Deferred()
        self._jobs.put(partial(self._do, function, outcome))
        return outcome

    def stop(self) -> Deferred[None]:
        """End the thread after all that was submitted; the Deferred fires when it is gone."""
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
            # Not to hold, until the next job comes, what this one brought.
            del job

    def _do(self, function: Callable[[], T], outcome: Deferred[T]) -> None:
        try:
            result = function()
        except BaseException:  # noqa: BLE001 - whoever has the Deferred gets it
            self._reactor.callFromThread(outcome.errback, Failure())
        else:
            self._reactor.callFromThread(outcome.callback, result)
