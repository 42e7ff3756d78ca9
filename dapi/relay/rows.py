"""The payloads' rows in the database; the bodies are in files. Each function runs on a thread of the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dapi.database import transaction
from dapi.relay.bodies import Body
from dapi.relay.facts import Facts, Target
from dapi.relay.payload import FINISHED, Payload, PayloadState, Place

_COLUMNS = "seq, name, offset, target, headers, size, received_at, model, kind, height, node_num, spaced, state, reason"


class NewRow(NamedTuple):
    """What is known of a callback before it has a row; its body is on disk."""

    body: Body
    headers: tuple[tuple[bytes, bytes], ...]
    received_at: float
    peer: str
    said: Target
    facts: Facts


def insert(connection: sqlite3.Connection, rows: Sequence[NewRow]) -> list[int | None]:
    """Insert rows with one commit; return the number of each, None where the same body is there already."""
    with transaction(connection):
        return [_insert(connection, row) for row in rows]


def _insert(connection: sqlite3.Connection, row: NewRow) -> int | None:
    headers = json.dumps([[name.decode("latin-1"), value.decode("latin-1")] for name, value in row.headers])
    body = row.body
    values = (
        *(body.digest, *body.place, body.target, headers, body.length, row.received_at, row.peer, row.said.model),
        *(row.said.kind, _sqlite_int(row.facts.height), _sqlite_int(row.facts.node_num), _spaced(row.facts.nonces)),
    )
    seq, seen = connection.execute(
        "INSERT INTO relay (digest, name, offset, target, headers, size, received_at, peer, model, kind, height,"
        " node_num, spaced) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (digest) DO UPDATE SET seen = seen + 1 RETURNING seq, seen",
        values,
    ).fetchone()
    return seq if seen == 1 else None


def finish(connection: sqlite3.Connection, ended: Iterable[tuple[int, PayloadState, str | None]]) -> None:
    """Record that payloads are settled, set aside or late, or (settled ones) that they wait again; one commit."""
    with transaction(connection):
        connection.executemany(
            "UPDATE relay SET state = ?2, reason = ?3 WHERE seq = ?1",
            [(seq, str(state), reason) for seq, state, reason in ended],
        )


def forget_before(connection: sqlite3.Connection, height: int, before: float) -> list[Place]:
    """Delete the rows of finished payloads of stages before ``height``, or of no stage and before a time.

    Return where their bodies are, or were.
    """
    deleted = connection.execute(
        "DELETE FROM relay WHERE state IN (?, ?, ?) AND (height < ? OR (height IS NULL AND received_at < ?))"
        " RETURNING name, offset",
        (*map(str, sorted(FINISHED)), height, before),
    ).fetchall()
    return [Place(*row) for row in deleted]


def load(connection: sqlite3.Connection) -> list[Payload]:
    """Return all payloads, the oldest first."""
    return [_payload(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM relay ORDER BY seq")]


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Return how many payloads are in each state."""
    return dict(connection.execute("SELECT state, count(*) FROM relay GROUP BY state"))


def _payload(row: tuple) -> Payload:  # type: ignore[type-arg]
    seq, name, offset, target, headers, size, received_at, model, kind, height, node_num, spaced, state, reason = row
    return Payload(
        seq=seq,
        place=Place(name, offset),
        target=target,
        headers=tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(headers)),
        size=size,
        received_at=received_at,
        said=Target(model, kind),
        facts=Facts(height, node_num, range(*json.loads(spaced)) if spaced else ()),
        state=PayloadState(state),
        reason=reason,
    )


def _spaced(nonces: Sequence[int]) -> str | None:
    return json.dumps([nonces.start, nonces.stop, nonces.step]) if isinstance(nonces, range) else None


def _sqlite_int(number: int | None) -> int | None:
    """Return a number that fits into a column; one that does not is kept as the largest, which is held all the same."""
    return None if number is None else max(-(2**63), min(number, 2**63 - 1))
