"""Stores failed batches again, one or all that match, some at a time."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from typing import NamedTuple

from dapi.database import transaction
from dapi.errors import UnknownBatchError
from dapi.messages import Kind, State
from dapi.messages.sizes import MIB
from dapi.outbox import queries
from dapi.outbox.counts import kind_of
from dapi.outbox.pages import matching

# Of one transaction: what comes meanwhile waits for it.
_MAX_ROWS = 256
_MAX_BYTES = 8 * MIB
_NEWEST = 2**63 - 1


class Retried(NamedTuple):
    """How many ``batches`` were stored again; ``next`` is the cursor for those that are left, None when none is."""

    batches: int
    next: int | None


ByKind = Counter[Kind | None]
"""How many were stored again, by kind."""


def find_failed(batch_id: str, connection: sqlite3.Connection) -> int:
    """Return the number of the failed batch with this id; raises UnknownBatchError.

    It looks into each stage, so it is nothing for the thread that writes.
    """
    found = connection.execute(queries.FIND_FAILED, {"batch_id": batch_id}).fetchone()
    if found is None:
        raise UnknownBatchError(f"no failed batch has the id {batch_id!r}")
    return int(found[0])


def retry_one(batch_id: str, seq: int, connection: sqlite3.Connection) -> tuple[Retried, ByKind]:
    """Store the failed batch with this id and number again; raises UnknownBatchError."""
    by_kind = _store_again(connection, [seq])
    if not by_kind:
        raise UnknownBatchError(
            f"the batch {batch_id!r} cannot be sent again: it is sent already, or the disk has damaged its row"
        )
    return Retried(1, None), by_kind


def retry_some(
    connection: sqlite3.Connection, *, node_id: str | None, kind: Kind | None, before: int | None
) -> tuple[Retried, ByKind]:
    """Store failed batches that match again, the newest of those ``before`` a cursor; see Outbox.retry_some."""
    failed = f"SELECT seq FROM ({matching(node_id, kind, State.FAILED)}) ORDER BY seq DESC LIMIT :limit"
    values = {"node_id": node_id, "before": _NEWEST if before is None else before, "limit": _MAX_ROWS + 1}
    seqs = [seq for (seq,) in connection.execute(failed, values)]
    (lengths,) = connection.execute(queries.FAILED_LENGTHS, {"seqs": json.dumps(seqs[:_MAX_ROWS])}).fetchone()
    length_of = dict(json.loads(lengths))
    chosen: list[int] = []
    room = _MAX_BYTES
    for seq in seqs[:_MAX_ROWS]:
        room -= length_of.get(seq, 0)
        if chosen and room < 0:
            break
        chosen.append(seq)
    by_kind = _store_again(connection, chosen) if chosen else ByKind()
    return Retried(by_kind.total(), chosen[-1] if len(chosen) < len(seqs) else None), by_kind


def _store_again(connection: sqlite3.Connection, seqs: list[int]) -> ByKind:
    values = {"seqs": json.dumps(seqs)}
    with transaction(connection):
        connection.execute(queries.NOTE_FAILED, values)
        connection.execute(queries.RETRY, values)
        connection.execute(queries.COUNT_RETRIED, values)
        return ByKind(kind_of(kind) for (kind,) in connection.execute(queries.DELETE_RETRIED, values).fetchall())
