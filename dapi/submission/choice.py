"""Chooses what goes into the next transaction, and cuts batches that are too large: work of the writer's thread."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from dapi.messages import Kind, State
from dapi.messages.sizes import MIB
from dapi.outbox import queries
from dapi.outbox.counts import kind_of
from dapi.outbox.losses import DAMAGED
from dapi.submission.node_shares import NodeShares
from dapi.submission.parts import parts_of
from dapi.submission.rows import Changes, End, Message, count, lose

# What a message takes in a transaction beside its own bytes: creator, type URLs, grantee, lengths.
_OVERHEAD_BYTES = 256
# The most that a nonce and its distance take: a varint of 10 bytes and a double.
_NONCE_BYTES = 18
# What is sent first in a stage: what is small and what all else depends on, then what has the shorter window.
_KINDS_IN_ORDER = (Kind.SEED, Kind.HARDWARE, Kind.GENERATED, Kind.VALIDATED, Kind.CLAIM)

# A transaction that fails is sent again in so many, and after so many blocks each of its messages was alone.
_PIECES, _BLOCKS_THAT_ALLOW_ANY = 4, 8
_MAX_COUNTED = 10_000
# More than any row's.
_NO_ROW = 2**63 - 1


class _DamagedError(Exception):
    """Bodies are not what was stored; ``batches`` are those that they belong to."""

    def __init__(self, batches: set[int]) -> None:
        super().__init__(DAMAGED)
        self.batches = batches


class _Candidate(NamedTuple):
    seq: int
    kind: str
    height: int
    node_id: str | None
    attempts: int
    max_messages: int
    nonces: int
    size: int

    def is_large(self, max_nonces: int) -> bool:
        return self.kind == Kind.GENERATED and self.nonces > max_nonces


class Room(msgspec.Struct, frozen=True):
    """What one transaction may hold.

    ``max_bytes`` bounds all messages together, ``max_nonces`` each one; only messages of these ``kinds`` go into it.
    So many ``transactions`` may be sent now, this one included, of ``max_total_bytes`` together.
    """

    max_bytes: int
    max_nonces: int
    max_messages: int = 500
    kinds: frozenset[Kind] = frozenset(Kind)
    transactions: int = 32
    max_total_bytes: int = 4 * MIB


def next_messages(
    connection: sqlite3.Connection, changes: Changes, height: int, room: Room, shares: NodeShares, now: float
) -> tuple[list[Message], int]:
    """Choose what goes into the next transaction, with bodies; cut the first message if it is too large.

    Of nodes that have had more than others, by ``shares``, nothing goes while those have something.

    Batches that are not as they were stored fail: wrong nonces would be taken for fraud. Also returns their number.
    """
    damaged = 0
    while True:
        try:
            chosen = _choose(connection, changes, height, room, shares)
            bodies = _sound_bodies(connection, list(chosen))
        except _DamagedError as error:
            damaged += len(error.batches)
            lose(connection, changes, error.batches, End(State.FAILED, now, reason=DAMAGED))
        else:
            return [msgspec.structs.replace(message, body=bodies[seq]) for seq, message in chosen.items()], damaged


def _choose(
    connection: sqlite3.Connection, changes: Changes, height: int, room: Room, shares: NodeShares
) -> dict[int, Message]:
    kinds = json.dumps([kind for kind in _KINDS_IN_ORDER if kind in room.kinds])
    group = connection.execute(queries.NEXT_GROUP, {"height": height, "kinds": kinds}).fetchone()
    if group is None:
        return {}
    stage_height, kind, run, last = group
    limit = 1 if kind == Kind.SEED else room.max_messages
    values = {"height": height, "stage_height": stage_height, "kind": kind, "run": run, "limit": _MAX_COUNTED}
    if (near_the_end := most_near_the_end(last - height + 1)) < limit:
        (waiting,) = connection.execute(queries.COUNT_TO_SEND, values).fetchone()
        # All that wait have to find room: a later block is too late.
        limit = min(limit, max(near_the_end, 2 * waiting // room.transactions))
    fitting = max(1, min(room.max_nonces, (room.max_bytes - _OVERHEAD_BYTES) // _NONCE_BYTES))
    values["limit"] = limit
    candidates = _of_whose_turn_it_is(connection, values, shares)
    if candidates and candidates[0].is_large(fitting):
        # One at a time: what comes in meanwhile waits for this thread.
        batch = _cut(connection, changes, candidates[0].seq, fitting)
        candidates = _candidates(connection, queries.NEXT_PARTS, {"parent": batch, "limit": limit})
    chosen = _fill([each for each in candidates if not each.is_large(fitting)], room.max_bytes, limit)
    for each in candidates:
        if each.seq in chosen:
            shares.record((stage_height, kind), each.node_id, each.size + _OVERHEAD_BYTES)
    return chosen


def _of_whose_turn_it_is(
    connection: sqlite3.Connection, values: dict[str, Any], shares: NodeShares
) -> list[_Candidate]:
    group, run = (values["stage_height"], values["kind"]), values["run"]
    for waiting in shares.to_let_wait(group):
        first = shares.first(group, run, waiting)
        found = _candidates(connection, queries.NEXT, {**values, "waiting": waiting, "first": first})
        shares.found(group, run, waiting, found[0].seq if found else _NO_ROW)
        if found:
            return found
    return []


def most_near_the_end(blocks: int) -> int:
    """Return how many messages may share a transaction when so many blocks may have them before their window ends.

    One that fails takes its neighbours along, and a block names only one in each transaction. So the others are to have
    blocks enough to go again, in a quarter each time, and one block more.
    """
    return int(_PIECES ** min(max(0, blocks - 2), _BLOCKS_THAT_ALLOW_ANY))


def _fill(candidates: Iterable[_Candidate], max_bytes: int, max_messages: int) -> dict[int, Message]:
    """Take what fits; one that shares a transaction with fewer than are in it already is left for another one."""
    chosen: dict[int, Message] = {}
    for each in candidates:
        allowed = min(max_messages, each.max_messages or max_messages)
        if len(chosen) >= allowed:
            continue
        max_bytes -= each.size + _OVERHEAD_BYTES
        if max_bytes < 0 and chosen:
            break
        max_messages = allowed
        chosen[each.seq] = Message(each.seq, Kind(each.kind), each.height, each.attempts, each.max_messages)
    return chosen


def _candidates(connection: sqlite3.Connection, query: str, values: dict[str, Any]) -> list[_Candidate]:
    return [_Candidate(*row) for row in connection.execute(query, values)]


def _cut(connection: sqlite3.Connection, changes: Changes, seq: int, size: int) -> int:
    """Cut a batch, or once more a part of it when less is allowed now; return the ``seq`` of the batch."""
    for part in parts_of(_sound_bodies(connection, [seq])[seq], size):
        values = {"seq": seq, **part._asdict(), "crc32": zlib.crc32(part.message)}
        connection.execute(queries.ADD_PART, values)
    if cut_part := connection.execute(queries.DELETE_CUT_PART, {"seq": seq}).fetchone():
        return int(cut_part[0])
    (kind,) = connection.execute(queries.PUT_IN_PARTS, {"seq": seq}).fetchone()
    count(changes, kind_of(kind), State.STORED, State.IN_FLIGHT, 1)
    return seq


def _sound_bodies(connection: sqlite3.Connection, seqs: list[int]) -> dict[int, bytes]:
    """Read bodies by their messages; raise _DamagedError when one is not what was stored: SQLite does not tell."""
    rows = connection.execute(queries.BODIES, {"seqs": json.dumps(seqs)}).fetchall()
    if damaged := {batch for _, batch, crc32, message in rows if zlib.crc32(message) != crc32}:
        raise _DamagedError(damaged)
    return {seq: message for seq, _, _, message in rows}
