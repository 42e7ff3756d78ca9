"""Lists what the outbox keeps, newest first, at a cost that does not grow with what is finished.

Of what is unfinished, one index is read, which has all that a filter asks for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dapi.database.schema import RowState
from dapi.messages import Kind, State, Via
from dapi.outbox import queries


def _names(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


_FINISHED = (State.CONFIRMED, State.FAILED, State.EXPIRED)
_NEWEST = 2**63 - 1
_BLOCKS_AHEAD = 100
# The other kinds are no batches: they are shown to those who ask for them.
_BATCHES = (Kind.GENERATED, Kind.VALIDATED)
_IN_FLIGHT = _names(state for state in RowState if state.shown is State.IN_FLIGHT)


UnixSeconds = Annotated[float, Meta(ge=0, lt=253402300800, description="a time before the year 10000")]


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
    received_at: UnixSeconds
    last_seen_at: UnixSeconds
    finished_at: UnixSeconds | None = None
    tx_hash: str | None = None
    included_height: int | None = None
    reason: str | None = None

    @property
    def is_of_this_chain(self) -> bool:
        """Whether it is for the chain that is followed; what is set apart for one before has a negative height."""
        return self.height >= 0


class DamagedRow(msgspec.Struct, frozen=True):
    """A row that the disk has damaged: the columns that are whole, by name, and the reason why it is no BatchRow."""

    seq: int
    columns: dict[str, Any]
    reason: str


class BatchPage(msgspec.Struct, frozen=True):
    """Some batches, newest first; ``next`` is the cursor of the page after it, None on the last one.

    ``damaged`` are the rows of this page that cannot be listed as batches.
    """

    batches: list[BatchRow]
    next: int | None
    damaged: list[DamagedRow] = []


def is_ahead(row: BatchRow, height: int) -> bool:
    """Tell whether the chain as it was at a height does not show yet what a message has done."""
    # Further ahead it is in a block of another chain.
    return row.included_height is not None and height < row.included_height <= height + _BLOCKS_AHEAD


_FIELDS = msgspec.structs.fields(BatchRow)
_COLUMNS = BatchRow.__struct_fields__
_JSON = f"json_object({', '.join(f'{name!r}, {name}' for name in _COLUMNS)})"
# Of a row that is unfinished. A damaged state is shown as it is.
_EXPRESSIONS = {
    "state": f"iif(state IN ({_IN_FLIGHT}), '{State.IN_FLIGHT}', state)",
    "finished_at": "NULL",
    "included_height": "NULL",
    "reason": f"nullif({queries.REASON}, '')",
}


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
    values = {"node_id": node_id, "before": _NEWEST if before is None else before, "limit": limit + 1}
    batches, damaged = _read(connection, f"{matching(node_id, kind, state)} ORDER BY seq DESC LIMIT :limit", values)
    numbers = sorted((*(row.seq for row in batches), *(row.seq for row in damaged)), reverse=True)
    last = numbers[:limit][-1] if numbers else 0
    return BatchPage(
        sorted((row for row in batches if row.seq >= last), key=lambda row: row.seq, reverse=True),
        last if len(numbers) > limit else None,
        [row for row in damaged if row.seq >= last],
    )


def one_row(connection: sqlite3.Connection, batch_id: str) -> BatchRow | DamagedRow | None:
    """Return the row of one batch, None when there is none."""
    rows = (
        f"WITH RECURSIVE {queries.HEIGHTS}"
        f" SELECT {_columns('unfinished')} FROM unfinished WHERE batch_id = :batch_id AND parent IS NULL UNION ALL"
        f" SELECT {_columns('finished')} FROM heights CROSS JOIN finished USING (height) WHERE batch_id = :batch_id"
    )
    batches, damaged = _read(connection, rows, {"batch_id": batch_id})
    found: list[BatchRow | DamagedRow] = [*batches, *damaged]
    return found[0] if found else None


def matching(node_id: str | None, kind: Kind | None, state: State | None) -> str:
    """Return a statement that finds the rows which match; it needs an order, and the values of ``selects``."""
    return " UNION ALL ".join(f"SELECT * FROM ({select})" for select in selects(node_id, kind, state))


def _read(
    connection: sqlite3.Connection, statement: str, values: dict[str, Any]
) -> tuple[list[BatchRow], list[DamagedRow]]:
    # Only names of ours are put into the statement.
    rows = f"({statement})"
    try:
        # One row of result: the sqlite3 module waits for the interpreter lock at every row.
        (found,) = connection.execute(f"SELECT json_group_array({_JSON}) FROM {rows}", values).fetchone()
        return msgspec.json.decode(found, type=list[BatchRow]), []
    except (sqlite3.OperationalError, msgspec.DecodeError):
        # SQLite makes no JSON of a BLOB, and Python no text of what is no UTF-8.
        connection.text_factory = bytes
        return _row_by_row(connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM {rows}", values))


def _row_by_row(found: Iterable[tuple[object, ...]]) -> tuple[list[BatchRow], list[DamagedRow]]:
    """Return the rows that are whole and those that are not; texts come as bytes."""
    batches, damaged = [], []
    for row in found:
        columns: dict[str, Any] = {}
        for field, value in zip(_FIELDS, row, strict=True):
            try:
                columns[field.name] = msgspec.convert(value.decode() if isinstance(value, bytes) else value, field.type)
            except (msgspec.ValidationError, UnicodeDecodeError):
                continue
        if len(columns) == len(_FIELDS):
            batches.append(BatchRow(**columns))
        else:
            names = ", ".join(name for name in _COLUMNS if name not in columns)
            damaged.append(DamagedRow(columns["seq"], columns, f"damaged on disk: {names}"))
    return batches, damaged


def selects(node_id: str | None, kind: Kind | None, state: State | None) -> Iterator[str]:
    """Yield selects that together find all that match, each of them along one index in the order of ``seq``."""
    of_node = "node_id = :node_id AND " if node_id is not None else ""
    kinds = _BATCHES if kind is None else (kind,)
    is_all = (node_id, kind, state) == (None, None, None)
    of_kind = f"kind NOT IN ({queries.OWN_KINDS}) AND " if is_all else f"kind IN ({_names(kinds)}) AND "
    if unfinished := [each for each in RowState if state in (None, each.shown)]:
        of_state = "" if is_all else f"unfinished.state IN ({_names(unfinished)}) AND "
        # A part is no batch.
        yield _select("unfinished", queries.LISTED, f"{of_node}{of_kind}{of_state}parent IS NULL AND ")
    if is_all:
        yield _select("finished", "finished", of_kind)
        return
    for each_kind in kinds:
        for each_state in _FINISHED:
            if state in (None, each_state):
                yield _select("finished", "finished", f"{of_node}kind = '{each_kind}' AND state = '{each_state}' AND ")


def _select(table: str, source: str, condition: str) -> str:
    return f"SELECT {_columns(table)} FROM {source} WHERE {condition}seq < :before ORDER BY seq DESC LIMIT :limit"


def _columns(table: str) -> str:
    if table == "finished":
        return ", ".join(_COLUMNS)
    return ", ".join(f"{_EXPRESSIONS.get(name, name)} AS {name}" for name in _COLUMNS)
