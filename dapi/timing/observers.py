"""Functions that are called whenever something happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

from twisted.logger import Logger

P = ParamSpec("P")


class Observers(Generic[P]):
    """A list of functions; calling it calls each of them, in the order in which they were added.

    When an observer raises, that is logged, and the others are called all the same.
    """

    log = Logger()

    def __init__(self) -> None:
        self._observers: list[Callable[P, object]] = []

    def add(self, observer: Callable[P, object]) -> None:
        """Call ``observer`` from now on."""
        self._observers.append(observer)

    def remove(self, observer: Callable[P, object]) -> None:
        """Call ``observer`` no more; harmless when it was not added."""
        if observer in self._observers:
            self._observers.remove(observer)

    def __len__(self) -> int:
        return len(self._observers)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call all observers."""
        for observer in tuple(self._observers):
            try:
                observer(*args, **kwargs)
            except Exception:  # noqa: BLE001 - the other observers must hear of it all the same
                self.log.failure(
                    "an observer failed, which it never should: {observer}",
                    observer=getattr(observer, "__qualname__", type(observer).__name__),
                )
