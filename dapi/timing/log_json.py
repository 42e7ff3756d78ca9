"""A line of the log as one JSON object, for whoever collects logs."""

from __future__ import annotations

from datetime import UTC, datetime
from string import Formatter
from typing import Any

import msgspec
from twisted.logger import LogEvent, formatEvent


def json_line(event: LogEvent) -> str | None:
    """Return an event as a JSON object and the end of a line; None when it says nothing.

    ``time`` is RFC 3339 in UTC; ``level``, ``logger`` (a class of dapi) and ``message`` are texts; ``fields`` has those
    values inside the message that are texts or numbers, such as ``node_id``, so that nobody has to parse it;
    ``traceback`` is there where something broke. What is not in the message is not here either.
    """
    message, failure = formatEvent(event), event.get("log_failure")
    if not message and failure is None:
        return None
    level = event.get("log_level")
    seconds = event.get("log_time")
    line = {
        "time": None if seconds is None else _rfc3339(seconds),
        "level": None if level is None else level.name,
        "logger": event.get("log_namespace"),
        "message": message,
        "fields": _fields(event),
    }
    if failure is not None:
        line["traceback"] = failure.getTraceback()
    return msgspec.json.encode(line).decode() + "\n"


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(event: LogEvent) -> dict[str, Any]:
    try:
        names = [name for _, name, *_ in Formatter().parse(event.get("log_format") or "") if name]
    except ValueError:
        return {}
    values = {name: event.get(name) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}
