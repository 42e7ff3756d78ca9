"""Trying again after a delay, for as long as it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar

from twisted.internet.task import deferLater

RETRY_MIN_SECONDS = 3.0
RETRY_MAX_SECONDS = 5.0

T = TypeVar("T")


class RetryDelay:
    """The delay before a retry: at random between two bounds, in seconds, each with the same chance."""

    def __init__(
        self, random: Random, min_seconds: float = RETRY_MIN_SECONDS, max_seconds: float = RETRY_MAX_SECONDS
    ) -> None:
        self._random = random
        self._min_seconds = min_seconds
        self._max_seconds = max_seconds

    def __call__(self) -> float:
        """Return the seconds to wait."""
        return self._random.uniform(self._min_seconds, self._max_seconds)


async def retry(
    reactor: Any,
    attempt: Callable[[], Awaitable[T]],
    *,
    errors: type[Exception] | tuple[type[Exception], ...],
    delay: Callable[[], float],
    on_error: Callable[[Exception], object],
) -> T:
    """Return the result of the first attempt that succeeds.

    After one of ``errors`` it calls ``on_error``, waits ``delay()`` seconds and tries again; any other error ends it.
    """
    while True:
        try:
            return await attempt()
        except errors as error:
            on_error(error)
        await deferLater(reactor, delay())
