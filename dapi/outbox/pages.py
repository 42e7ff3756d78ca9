"""Lists what the outbox keeps, newest first, at a cost that does not grow with what is kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

import msgspec

from dapi.database.schema import RowState
from dapi.messages import Kind, State, Via
from dapi.outbox.queries import SHOWN_STATE

# The states of the rows of each table, and the one in which each is listed.
_TABLES: dict[str, dict[str, State]] = {
    "unfinished": {state: state.shown for state in RowState},
    "finished": {state: state for state in (State.CONFIRMED, State.FAILED, State.EXPIRED)},
}
_NEWEST = 2**63 - 1
# The other kinds are no batches: they are shown to those who ask for them.
_BATCHES = (Kind.GENERATED, Kind.VALIDATED)
_OTHERS = ", ".join(f"'{kind}'" for kind in Kind if kind not in _BATCHES)


class BatchRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A batch as it is listed; times are unix seconds, ``via`` is the way it came first.

    The last four are there when they are known: when it was finished, its transaction, the block that has it, and why
    it is in this state.
    """

    seq: int
    batch_id: str
    node_id: str | None
    kind: Kind
    state: State
    via: Via
    seen: int
    height: int
    nonces: int
    received_at: float
    last_seen_at: float
    finished_at: float | None = None
    tx_hash: str | None = None
    included_height: int | None = None
    reason: str | None = None


class BatchPage(msgspec.Struct, frozen=True):
    """Some batches, newest first; ``next`` is the cursor of the page after it, None on the last one."""

    batches: list[BatchRow]
    next: int | None


_COLUMNS = BatchRow.__struct_fields__
_JSON = f"json_object({', '.join(f'{name!r}, {name}' for name in _COLUMNS)})"
# Of a row that is unfinished.
_EXPRESSIONS = {"state": SHOWN_STATE, "finished_at": "NULL", "included_height": "NULL"}


def page(
    connection: sqlite3.Connection,
    *,
    node_id: str | None,
    kind: Kind | None,
    state: State | None,
    limit: int,
    before: int | None,
) -> BatchPage:
    """Read one page; see Outbox.batches."""
    parts = " UNION ALL ".join(f"SELECT * FROM ({select})" for select in selects(node_id, kind, state))
    # One row of result: the sqlite3 module waits for the interpreter lock at every row. Only names of ours are put in.
    query = f"SELECT json_group_array({_JSON}) FROM ({parts} ORDER BY seq DESC LIMIT :limit)"
    values = {"node_id": node_id, "before": _NEWEST if before is None else before, "limit": limit + 1}
    (found,) = connection.execute(query, values).fetchone()
    rows = sorted(msgspec.json.decode(found, type=list[BatchRow]), key=lambda row: row.seq, reverse=True)
    batches = rows[:limit]
    return BatchPage(batches, batches[-1].seq if len(rows) > limit else None)


def selects(node_id: str | None, kind: Kind | None, state: State | None) -> Iterator[str]:
    """Yield selects that together find all that match, each of them along one index in the order of ``seq``."""
    of_node = "node_id = :node_id AND " if node_id is not None else ""
    for table, states in _TABLES.items():
        is_finished = table == "finished"
        columns = ", ".join(name if is_finished else f"{_EXPRESSIONS.get(name, name)} AS {name}" for name in _COLUMNS)
        if (node_id, kind, state) == (None, None, None):
            conditions: Iterable[str] = [f"kind NOT IN ({_OTHERS}) AND "]
        else:
            kinds = _BATCHES if kind is None else (kind,)
            conditions = [
                f"{of_node}kind = '{each_kind}' AND {table}.state = '{row_state}' AND "
                for each_kind in kinds
                for row_state, shown in states.items()
                if state in (None, shown)
            ]
        # A part is no batch.
        whole = "" if is_finished else "parent IS NULL AND "
        for condition in conditions:
            yield f"SELECT {columns} FROM {table} WHERE {condition}{whole}seq < :before ORDER BY seq DESC LIMIT :limit"
