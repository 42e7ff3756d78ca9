"""Long computations, off the reactor's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.threads import deferToThreadPool

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
        is_running = True

        def end(result: T) -> T:
            nonlocal is_running
            is_running = False
            ended.fire(None)
            return result

        job = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *args).addBoth(end)
        try:
            while is_running:
                await ended.wait()
        except CancelledError:
            while is_running:
                await ended.wait()
            # Nobody wants to know any more how it went.
            job.addErrback(lambda _: None)
            raise
        return await job
