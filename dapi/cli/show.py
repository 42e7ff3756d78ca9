"""Tables and short texts for a terminal of 80 columns; colours only where a terminal shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dapi.cli.errors import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_HEX_ID = re.compile(r"[0-9a-f]{64}")
_SHORT_ID = 12
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))

# Shapes and words tell the same as the colours do.
COLOURS = {
    "critical": "bold red",
    "failed": "red",
    "expired": "red",
    "damaged": "red",
    "FAIL": "bold red",
    "no": "red",
    "warning": "yellow",
    "SKIPPED": "yellow",
    "waiting": "yellow",
    "refused": "red",
    "in_flight": "cyan",
    "confirmed": "green",
    "open": "green",
    "PASS": "green",
    "yes": "green",
    "ok": "green",
    "sound": "green",
}


def console() -> Console:
    """Return the console for what is printed."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> RenderableType:
    """Return a table; the columns whose headings are in ``right`` hold numbers. Nothing in it is cut off."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    numbers = set(right)
    for heading in headings:
        grid.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(text := cell(value), style=COLOURS.get(text, "")) for value in row))
    return grid


def facts(pairs: Iterable[tuple[str, object]]) -> RenderableType:
    """Return names with their values, one a line."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, Text(text := cell(value), style=COLOURS.get(text, "")))
    return grid


def cell(value: object) -> str:
    """Return a value as it stands in a table."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case _:
            return clean(value)


def short_id(batch_id: object) -> str:
    """Return the beginning of an id, which is enough for ``dapi batch``; one that is no digest is returned whole."""
    text = cell(batch_id)
    return text[:_SHORT_ID] if _HEX_ID.fullmatch(text) else text


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    whole = int(max(0.0, seconds))
    parts = []
    for length, unit in _UNITS:
        if whole >= length:
            parts.append(f"{whole // length}{unit}")
            whole %= length
    return " ".join([*parts, f"{whole}s"][:2])


def seconds_of(moment: object) -> float | None:
    """Return a time of the admin API, RFC 3339 or unix seconds, as unix seconds; None when it is none."""
    if isinstance(moment, int | float):
        return float(moment)
    if not isinstance(moment, str):
        return None
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def age(moment: object, now: float) -> str:
    """Return how long ago a time of the admin API is."""
    seconds = seconds_of(moment)
    return "-" if seconds is None else duration(now - seconds)


def local_time(moment: object) -> str:
    """Return a time of the admin API as people write it, in UTC."""
    seconds = seconds_of(moment)
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def size(number: float) -> str:
    """Return a number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def print_all(parts: Iterable[RenderableType]) -> None:
    """Print one part after the other."""
    out = console()
    for part in parts:
        out.print(part)


def field(value: Any, *names: str) -> Any:
    """Return what is at a path of names inside decoded JSON, None where there is nothing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
