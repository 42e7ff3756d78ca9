"""Several coroutines at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError, gatherResults
from twisted.python.failure import Failure

T = TypeVar("T")


async def together(calls: Iterable[Callable[[], Coroutine[Any, Any, T]]], *, at_once: int = 1000) -> list[T]:
    """Run the coroutines that ``calls`` make side by side, ``at_once`` at most; return their results in order.

    The first error is raised at once. It, and a cancel, end all others too.
    """
    left = list(enumerate(calls))
    results: dict[int, T] = {}

    async def work() -> None:
        while left:
            place, call = left.pop(0)
            results[place] = await call()

    workers = [Deferred.fromCoroutine(work()) for _ in range(min(at_once, len(left)))]
    try:
        await gatherResults(workers, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
    finally:
        for worker in workers:
            worker.cancel()
    return [results[place] for place in sorted(results)]


# To a type checker Twisted shows this class as a function.
class _Workers(DeferredList):  # type: ignore[valid-type,misc]
    """Fires when all workers have ended; a cancel leaves them nothing to begin."""

    def __init__(self, workers: list[Deferred[None]], left: list[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        self._left = left
        self.is_cancelled = False
        super().__init__(workers, consumeErrors=True)

    def cancel(self) -> None:
        """End all of them."""
        self.is_cancelled = True
        self._left.clear()
        super().cancel()


async def to_the_end(calls: Iterable[Callable[[], Coroutine[Any, Any, None]]], *, at_once: int = 1000) -> None:
    """Run the coroutines that ``calls`` make side by side, ``at_once`` at most, all of them to their end.

    Then the first error is raised, if there was one. Only a cancel ends them before: those that have not begun are left
    out, and CancelledError is raised, also when a call has taken the cancel for an answer.
    """
    left = list(calls)

    async def work() -> None:
        error: Exception | None = None
        while left:
            try:
                await left.pop(0)()
            except Exception as raised:  # noqa: BLE001 - raised once the others have ended
                error = error or raised
        if error is not None:
            raise error

    workers = _Workers([Deferred.fromCoroutine(work()) for _ in range(min(at_once, len(left)))], left)
    for succeeded, result in await workers:
        if not succeeded:
            cast(Failure, result).raiseException()
    if workers.is_cancelled:
        raise CancelledError
