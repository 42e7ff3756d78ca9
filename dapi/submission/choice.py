"""Choosing what goes into the next transaction, and cutting what is too large for one: the writer's thread.

See ``rows`` for the rest of a message's way.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator

import msgspec

from dapi.messages import Kind, State
from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from dapi.submission.rows import IN, ORDER, Changes, Message, count, give_up

# What a message takes in a transaction beside its own bytes: creator, type URL, lengths.
_OVERHEAD_BYTES = 256
# The most that a nonce and its distance take: a varint of 10 bytes and a double.
_NONCE_BYTES = 18
_MAX_MESSAGES = 200

_CANDIDATES = "SELECT seq, kind, height, attempts, alone, nonces, length(message) FROM waiting WHERE state = 'stored'"
_NEXT = f"{_CANDIDATES} AND not_before <= ? ORDER BY {ORDER} LIMIT {_MAX_MESSAGES}"
_PARTS = f"{_CANDIDATES} AND parent = ? ORDER BY seq LIMIT {_MAX_MESSAGES}"
_PART = (
    "INSERT INTO waiting (batch_id, parent, kind, state, node_id, via, height, nonces, seen, received_at, last_seen_at,"
    " crc32, message) SELECT ?, coalesce(parent, seq), kind, 'stored', node_id, via, height, ?, seen, received_at,"
    " last_seen_at, ?, ? FROM waiting WHERE seq = ?"
)

_DAMAGED = "damaged on disk: its bytes are not those that were stored, and were not sent"
_IN_NO_TRANSACTION = ""


class _DamagedError(Exception):
    """Bodies are not what was stored; ``whole`` are the batches that they belong to."""

    def __init__(self, whole: set[int]) -> None:
        super().__init__(_DAMAGED)
        self.whole = whole


def next_messages(
    connection: sqlite3.Connection,
    changes: Changes,
    *,
    height: int,
    max_bytes: int,
    max_nonces: int,
    damaged: set[int],
    now: float,
) -> list[Message]:
    """Choose what goes into the next transaction, bodies included; cut the first if it is too large.

    What is not as it was stored fails: wrong nonces would be taken for fraud. It is noted in ``damaged``.
    """
    while True:
        try:
            chosen = _choose(connection, changes, height, max_bytes, max_nonces)
            bodies = _sound_bodies(connection, list(chosen))
        except _DamagedError as error:
            damaged |= error.whole
            give_up(connection, changes, error.whole, now, _IN_NO_TRANSACTION, _DAMAGED)
        else:
            return [msgspec.structs.replace(message, body=bodies[seq]) for seq, message in chosen.items()]


def _choose(
    connection: sqlite3.Connection, changes: Changes, height: int, max_bytes: int, max_nonces: int
) -> dict[int, Message]:
    rows = connection.execute(_NEXT, (height,)).fetchall()
    fitting = min(max_nonces, (max_bytes - _OVERHEAD_BYTES) // _NONCE_BYTES)
    if rows and _is_large(rows[0], fitting):
        # One at a time: what comes in meanwhile waits for this thread.
        whole = _cut(connection, changes, rows[0][0], fitting)
        rows = connection.execute(_PARTS, (whole,)).fetchall()
    chosen: dict[int, Message] = {}
    for row in rows:
        seq, kind, start, attempts, alone, _, size = row
        if _is_large(row, fitting) or (alone and chosen):
            continue
        max_bytes -= size + _OVERHEAD_BYTES
        if max_bytes < 0 and chosen:
            break
        chosen[seq] = Message(seq, Kind(kind), start, attempts)
        if alone:
            break
    return chosen


def _is_large(row: tuple[int, str, int, int, int, int, int], fitting: int) -> bool:
    _, kind, _, _, _, nonces, _ = row
    return kind == Kind.GENERATED and nonces > fitting


def parts_of(encoded: bytes, size: int) -> Iterator[MsgSubmitPocBatch]:
    """Cut an encoded batch into parts of ``size`` nonces, under ids that tell which of them each part has."""
    whole = MsgSubmitPocBatch.FromString(encoded)
    for first in range(0, len(whole.nonces), size):
        nonces = whole.nonces[first : first + size]
        yield MsgSubmitPocBatch(
            poc_stage_start_block_height=whole.poc_stage_start_block_height,
            batch_id=f"{whole.batch_id}-{first}-{first + len(nonces) - 1}",
            nonces=nonces,
            dist=whole.dist[first : first + size],
            node_id=whole.node_id,
        )


def _cut(connection: sqlite3.Connection, changes: Changes, seq: int, size: int) -> int:
    """Cut a batch into parts, or a part that was cut when more was allowed; return the batch."""
    encoded = _sound_bodies(connection, [seq])[seq]
    (parent,) = connection.execute("SELECT parent FROM waiting WHERE seq = ?", (seq,)).fetchone()
    for part in parts_of(encoded, size):
        message = part.SerializeToString()
        connection.execute(_PART, (part.batch_id, len(part.nonces), zlib.crc32(message), message, seq))
    if parent is not None:
        connection.execute("DELETE FROM waiting WHERE seq = ?", (seq,))
        return int(parent)
    connection.execute("UPDATE waiting SET state = 'in_flight', reason = NULL WHERE seq = ?", (seq,))
    count(changes, State.STORED, State.IN_FLIGHT, 1)
    return seq


def _sound_bodies(connection: sqlite3.Connection, seqs: list[int]) -> dict[int, bytes]:
    """Read bodies by their messages; raise _DamagedError when one is not what was stored: SQLite does not tell."""
    query = f"SELECT seq, coalesce(parent, seq), crc32, message FROM waiting WHERE seq IN {IN}"
    rows = connection.execute(query, (json.dumps(seqs),)).fetchall()
    if damaged := {whole for _, whole, crc32, message in rows if zlib.crc32(message) != crc32}:
        raise _DamagedError(damaged)
    return {seq: message for seq, _, _, message in rows}
