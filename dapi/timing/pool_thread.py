"""Long computations, off the reactor's thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from dapi.timing.waiters import Waiters

T = TypeVar("T")


class PoolThread:
    """Runs functions on threads of the reactor's pool; whoever awaits one after the other has them run in that order.

    A function should take a few milliseconds at most between two steps of Python: the interpreter runs one thread at a
    time, and no other one during a single call into C.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Return what ``function`` returns, or raise what it raises.

        A cancel cannot end the function: CancelledError is raised when the function has ended, so that nothing of it
        is left then.
        """
        ended: Waiters[None] = Waiters()
        # Empty while it runs.
        outcome: list[T | Failure] = []

        def end(result: T | Failure) -> None:
            outcome.append(result)
            ended.fire(None)

        self._begin(function, *args).addBoth(end)
        try:
            while not outcome:
                await ended.wait()
        except CancelledError:
            while not outcome:
                await ended.wait()
            raise
        (result,) = outcome
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def _begin(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *args)


class MeasuredThread(PoolThread):
    """Runs functions by ``submit``, and knows how much of the processor they have used: ``used_seconds``.

    ``cpu_seconds`` tells what the calling thread has used.
    """

    def __init__(
        self, submit: Callable[[Callable[[], Any]], Deferred[Any]], cpu_seconds: Callable[[], float] = time.thread_time
    ) -> None:
        self.used_seconds = 0.0
        self._submit = submit
        self._cpu_seconds = cpu_seconds

    def _begin(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        def measured() -> T:
            begun = self._cpu_seconds()
            try:
                return function(*args)
            finally:
                self.used_seconds += self._cpu_seconds() - begun

        return self._submit(measured)
