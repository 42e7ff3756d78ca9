"""Several coroutines at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, DeferredList, FirstError, gatherResults
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


async def to_the_end(calls: Iterable[Callable[[], Coroutine[Any, Any, None]]], *, at_once: int = 1000) -> None:
    """Run the coroutines that ``calls`` make side by side, ``at_once`` at most, all of them to their end.

    Then the first error is raised, if there was one. Only a cancel ends them before.
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

    workers = [Deferred.fromCoroutine(work()) for _ in range(min(at_once, len(left)))]
    for succeeded, result in await DeferredList(workers, consumeErrors=True):
        if not succeeded:
            cast(Failure, result).raiseException()
