"""A delayed call that can be started again and cancelled any number of times."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timer:
    """Calls ``function`` once, ``seconds`` after the last start, by the clock that it is given."""

    def __init__(self, clock: IReactorTime, seconds: float, function: Callable[[], object]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._function = function
        self._call: IDelayedCall | None = None

    @property
    def is_running(self) -> bool:
        """Tell whether the call is still to come."""
        return self._call is not None

    def start(self, seconds: float | None = None) -> None:
        """Call ``seconds`` (None: those of the constructor) from now, in place of what was planned before."""
        delay = self._seconds if seconds is None else seconds
        if self._call is None:
            self._call = self._clock.callLater(delay, self._fire)
        else:
            self._call.reset(delay)

    def cancel(self) -> None:
        """Do not call; harmless when no call is planned."""
        if self._call is not None:
            call, self._call = self._call, None
            call.cancel()

    def _fire(self) -> None:
        self._call = None
        self._function()
