"""Several Deferreds that wait for the same event."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Waiters(Generic[T]):
    """Hands out Deferreds and fires them all when the event comes; an event is for those that wait at that moment.

    A waiter may be cancelled at any time, also while the others are fired.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # A dictionary keeps the order, and forgets one of many at once.
        self._waiting: dict[Deferred[T], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[T]:
        """Return a Deferred that the next ``fire`` fires."""
        waiter: Deferred[T] = Deferred(lambda waiter: self._waiting.pop(waiter, None))
        self._waiting[waiter] = None
        return waiter

    def fire(self, result: T | Failure) -> None:
        """Fire all that wait, in their order, with ``result``; a Failure makes them fail."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(result)
