"""Which lines the log has: a level for all, and others for single rooms of dapi."""

from __future__ import annotations

import pkgutil
import re
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
)
from zope.interface import implementer

import dapi
from dapi.errors import ConfigError

LEVELS = tuple(level.name for level in LogLevel.iterconstants())
"""The names of the levels, the most talkative first."""

ROOMS = tuple(module.name for module in pkgutil.iter_modules(dapi.__path__))
"""The rooms that may have a level of their own."""

_LEVEL = f"({'|'.join(LEVELS)})"
PATTERN = rf"^{_LEVEL}(,({'|'.join(ROOMS)})={_LEVEL})*\Z"
"""What the text of levels looks like."""


@implementer(ILogFilterPredicate)
class LogLevels:
    """The levels that are let through now; they may change while the log is written.

    A text of levels is the lowest level that is written, such as ``info``; after it may come rooms with levels of their
    own, as in ``info,websocket=debug,chain=warn``. ``configured`` is the one from the start.
    """

    def __init__(self, levels: str) -> None:
        self.change(levels)
        self.configured = levels

    def change(self, levels: str) -> None:
        """Let others through from now on; raises ConfigError, and changes nothing, when it is no text of levels."""
        if not re.match(PATTERN, levels):
            raise ConfigError(
                f"level: {levels[:200]!r} is none: say {', '.join(LEVELS[:-1])} or {LEVELS[-1]}, perhaps with rooms of "
                f"dapi after it, such as info,websocket=debug; the rooms are {', '.join(ROOMS)}"
            )
        default, *rooms = levels.split(",")
        predicate = LogLevelFilterPredicate(LogLevel.levelWithName(default))
        for room in rooms:
            name, _, level = room.partition("=")
            predicate.setLogLevelForNamespace(f"dapi.{name}", LogLevel.levelWithName(level))
        self.levels = levels
        self._predicate = predicate

    def __call__(self, event: LogEvent) -> Any:
        """Tell whether an event is let through; FilteringLogObserver calls this."""
        return self._predicate(event)

    def filtered(self, observer: ILogObserver) -> FilteringLogObserver:
        """Return an observer that hands on what is let through."""
        return FilteringLogObserver(observer, [self])
