"""How many batches are kept, by kind and state."""

from __future__ import annotations

import sqlite3
from collections import Counter

import msgspec

from dapi.messages import Kind, State
from dapi.outbox import queries

Counts = Counter[tuple[Kind | None, State]]
"""How many batches there are, or are more, by kind and state; None is a kind that the disk has damaged."""

_KINDS = frozenset(map(str, Kind))


def kind_of(column: object) -> Kind | None:
    """Return the kind in a column, None where the disk has damaged it."""
    return Kind(column) if column in _KINDS else None


def count(connection: sqlite3.Connection) -> Counts:
    """Count all batches."""
    (found,) = connection.execute(queries.COUNT).fetchone()
    counts = msgspec.json.decode(found, type=list[tuple[Kind | None, State, int]])
    return Counter({(kind, state): number for kind, state, number in counts})


def by_state(counts: Counts) -> dict[str, int]:
    """Return the counts of each state, all kinds together."""
    numbers = dict.fromkeys(map(str, State), 0)
    for (_, state), number in counts.items():
        numbers[state] += number
    return numbers
