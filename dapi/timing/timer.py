"""A delayed call that can be started again, laid to rest and cancelled any number of times."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timer:
    """Calls ``function`` once, ``seconds`` after the last start, by the clock that it is given."""

    # Each connection has half a dozen.
    __slots__ = ("_call", "_clock", "_function", "_is_resting", "_seconds")

    def __init__(self, clock: IReactorTime, seconds: float, function: Callable[[], object]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._function = function
        self._call: IDelayedCall | None = None
        self._is_resting = False

    @property
    def is_running(self) -> bool:
        """Tell whether the call is still to come."""
        return self._call is not None and not self._is_resting

    def start(self, seconds: float | None = None) -> None:
        """Call ``seconds`` (None: those of the constructor) from now, in place of what was planned before."""
        self._is_resting = False
        delay = self._seconds if seconds is None else seconds
        if self._call is None:
            self._call = self._clock.callLater(delay, self._fire)
        else:
            self._call.reset(delay)

    def rest(self) -> None:
        """Do not call before the next start.

        The reactor keeps its delayed call meanwhile, which that start only moves: for a timer that is started and
        stopped many times a second this is several times cheaper than ``cancel``, which has to come in the end.
        """
        self._is_resting = True

    def cancel(self) -> None:
        """Do not call; harmless when no call is planned."""
        if self._call is not None:
            call, self._call = self._call, None
            call.cancel()

    def _fire(self) -> None:
        self._call = None
        if not self._is_resting:
            self._function()
