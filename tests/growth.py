"""How much objects of dapi hold, for tests that see that nothing grows."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from twisted.internet.defer import DeferredLock

_SIZED = (list, dict, set, deque, bytearray)


def sizes(*roots: object) -> dict[str, int]:
    """Return the length of every container that the roots hold, themselves or by other objects of dapi."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    pending = [(type(root).__name__, root) for root in roots]
    while pending:
        path, each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, queue.SimpleQueue):
            found[path] = each.qsize()
        elif isinstance(each, DeferredLock):
            found[path] = len(each.waiting)
        elif isinstance(each, deque) and each.maxlen is not None:
            # It forgets what is older.
            continue
        elif isinstance(each, _SIZED):
            found[path] = len(each)
            # Of a table only the number of its rows counts here: what each of them holds is its own affair.
            pending += ((f"{path}[]", value) for value in _values(each))
        elif type(each).__module__.startswith("dapi."):
            pending += ((f"{path}.{name}", value) for name, value in _fields(each))
    return found


def _values(container: Any) -> Iterable[object]:
    values = container.values() if isinstance(container, dict) else container
    return [value for value in values if type(value).__module__.startswith("dapi.")]


def _fields(each: object) -> Iterator[tuple[str, object]]:
    names = list(getattr(each, "__dict__", ()))
    for kind in type(each).__mro__:
        names += getattr(kind, "__slots__", ())
    for name in names:
        if hasattr(each, name):
            yield name, getattr(each, name)
