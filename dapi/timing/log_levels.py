"""Which lines the log has: a level for all, and others for single rooms of dapi."""

from __future__ import annotations

import pkgutil

from twisted.logger import FilteringLogObserver, ILogObserver, LogLevel, LogLevelFilterPredicate

import dapi

LEVELS = tuple(level.name for level in LogLevel.iterconstants())
"""The names of the levels, the most talkative first."""

ROOMS = tuple(module.name for module in pkgutil.iter_modules(dapi.__path__))
"""The rooms that may have a level of their own."""

_LEVEL = f"({'|'.join(LEVELS)})"
PATTERN = rf"^{_LEVEL}(,({'|'.join(ROOMS)})={_LEVEL})*\Z"
"""What the text of ``filtered`` looks like."""


def filtered(observer: ILogObserver, levels: str) -> FilteringLogObserver:
    """Return an observer that hands on what ``levels`` lets through.

    ``levels`` is the lowest level that is written, such as ``info``; after it may come rooms with levels of their own,
    as in ``info,websocket=debug,chain=warn``.
    """
    default, *rooms = levels.split(",")
    predicate = LogLevelFilterPredicate(LogLevel.levelWithName(default))
    for room in rooms:
        name, _, level = room.partition("=")
        predicate.setLogLevelForNamespace(f"dapi.{name}", LogLevel.levelWithName(level))
    return FilteringLogObserver(observer, [predicate])
