"""Waiting in integration tests: for ever is never right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

# Only a test that fails waits as long, so it is what a busy machine may need, and not what a promise says.
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.01

T = TypeVar("T")


def soon(waited: Deferred[T], patience_seconds: float = PATIENCE_SECONDS) -> Deferred[T]:
    """Have a Deferred fail with TimeoutError unless it fires within ``patience_seconds``."""
    return waited.addTimeout(patience_seconds, IReactorTime(reactor))


async def until(look: Callable[[], T], patience_seconds: float = PATIENCE_SECONDS) -> T:
    """Wait until ``look`` returns something that is true, and return it; AssertionError after ``patience_seconds``."""

    async def awaited() -> T:
        return look()

    return await until_awaited(awaited, patience_seconds)


async def until_awaited(look: Callable[[], Awaitable[T]], patience_seconds: float = PATIENCE_SECONDS) -> T:
    """Wait like ``until`` for something that ``look`` has to wait for itself."""
    clock = IReactorTime(reactor)
    deadline = clock.seconds() + patience_seconds
    while not (found := await look()):
        assert clock.seconds() < deadline, f"waited {patience_seconds:g} s in vain"
        await deferLater(clock, _LOOK_SECONDS)
    return found
