"""The two clocks: an even one for all that is waited for or measured, the wall clock for what is shown.

Twisted's reactors wait by the wall clock: when somebody sets that back by an hour, each delay and each time-out takes
an hour longer. So ``make_monotonic`` gives the reactor another clock, where dapi owns the process. ``unix_seconds``
makes a time that can be shown of a reactor's time.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python import runtime


def make_monotonic(reactor: Any) -> None:
    """Have a reactor wait by a clock that nobody sets; to be called before anything remembers the reactor's time.

    Calls that are planned already are moved to the new clock.
    """
    change = time.monotonic() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        call.time += change
        call.seconds = time.monotonic
    reactor.seconds = time.monotonic


def follows_wall_clock(reactor: Any) -> bool:
    """Tell whether a reactor waits by the wall clock, as Twisted's own do."""
    return getattr(reactor, "seconds", None) is runtime.seconds


def unix_seconds(clock: IReactorTime, at: float | None = None) -> float:
    """Return in unix seconds the time that is ``at`` on a reactor's clock, now by default.

    A clock that was not made monotonic is taken to be the wall clock itself.
    """
    seconds = clock.seconds() if at is None else at
    # Bound methods, as those of a test's clock, are never this very function.
    is_monotonic = getattr(clock, "seconds", None) is time.monotonic
    return seconds + time.time() - time.monotonic() if is_monotonic else seconds
