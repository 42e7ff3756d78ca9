"""The outbox as its submitter sees it: what is next, what is under way in which transaction, what became of it.

Every change is one transaction of the database. A batch of more nonces than the chain takes in one message is cut into
parts: rows of their own that point to it, under ids derived from its id, so that a part that is sent twice overwrites
itself on the chain. The batch is done when its last part is, and failed with its first part that fails.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec
from twisted.internet.defer import Deferred

from dapi.chain.outbox import Outbox
from dapi.chain.transactions import BATCH_TYPE_URL, VALIDATION_TYPE_URL
from dapi.database import Database, transaction
from dapi.messages import Kind, State
from dapi.messages.inference_pb2 import MsgSubmitPocBatch

# What a message takes in a transaction beside its own bytes: creator, type URL, lengths.
_OVERHEAD_BYTES = 256
# The most that a nonce and its distance take: a varint of 10 bytes and a double.
_NONCE_BYTES = 18
_MAX_MESSAGES = 200

_TYPE_URLS = {Kind.GENERATED: BATCH_TYPE_URL, Kind.VALIDATED: VALIDATION_TYPE_URL}

# In this order they are sent, and in this order they stand in their transaction.
_ORDER = "height, kind, seq"
_IN = "(SELECT value FROM json_each(?))"
_OF_TRANSACTION = f"seq IN {_IN} AND tx_hash = ?"
_NEXT = (
    "SELECT seq, kind, height, attempts, alone, nonces, length(message) FROM waiting"
    f" WHERE state = 'stored' AND not_before <= ? ORDER BY {_ORDER} LIMIT {_MAX_MESSAGES}"
)
_FINISH = (
    "INSERT INTO finished (seq, batch_id, kind, state, node_id, via, height, nonces, seen, received_at, last_seen_at,"
    " finished_at, attempts, tx_hash, included_height, reason, message)"
    " SELECT seq, batch_id, kind, ?, node_id, via, height, nonces, seen, received_at, last_seen_at,"
    " ?, attempts, ?, ?, ?, iif(?, message, NULL)"
    f" FROM waiting WHERE seq IN {_IN}"
)
_PART = (
    "INSERT INTO waiting (batch_id, parent, kind, state, node_id, via, height, nonces, seen, received_at, last_seen_at,"
    " message) SELECT ?, seq, kind, 'stored', node_id, via, height, ?, seen, received_at, last_seen_at, ?"
    " FROM waiting WHERE seq = ?"
)

_Changes = dict[State, int]
T = TypeVar("T")


class Message(msgspec.Struct, frozen=True):
    """A message that waits for the chain, or is under way; ``body`` is without creator, and left out where it is long.

    ``attempts`` counts the transactions that it was in before.
    """

    seq: int
    kind: Kind
    height: int
    attempts: int
    body: bytes = b""

    @property
    def type_url(self) -> str:
        """What the chain calls it."""
        return _TYPE_URLS[self.kind]

    def without_body(self) -> Message:
        """Return it as it is kept in memory while it is under way."""
        return msgspec.structs.replace(self, body=b"", attempts=self.attempts + 1)


class Submissions:
    """Takes messages out of the outbox, and tells it what became of them.

    What became of them is told with the hash of their transaction, and only changes messages that are still in that
    one: to be told twice does no harm. Every Deferred fails with StoreError.
    """

    def __init__(self, database: Database, outbox: Outbox, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._outbox = outbox
        self._now = now

    def observe(self, observer: Callable[[], None]) -> None:
        """Have ``observer`` called whenever there may be something new to send."""
        self._outbox.observe(observer)

    def next_messages(self, height: int, max_bytes: int, max_nonces: int) -> Deferred[list[Message]]:
        """Fire with the messages that belong into the next transaction, those with the oldest deadline first.

        ``height`` is the block that it can be in at the earliest, ``max_bytes`` what the messages may take together,
        ``max_nonces`` what one message may hold: larger ones are cut into parts here.
        """
        return self._change(partial(_next_messages, height=height, max_bytes=max_bytes, max_nonces=max_nonces))

    def sent(self, messages: Sequence[Message], tx_hash: str, timeout_ns: int) -> Deferred[None]:
        """Note that a transaction is about to be sent; fires when that is on disk, and only then it may be."""
        return self._change(partial(_sent, seqs=_seqs(messages), tx_hash=tx_hash, timeout_ns=timeout_ns))

    def in_flight(self) -> Deferred[list[tuple[str, int, list[Message]]]]:
        """Fire with the transactions that are under way, by hash, timeout (ns) and their messages in order."""
        return self._database.read(_in_flight)

    def bodies(self, messages: Sequence[Message]) -> Deferred[list[bytes]]:
        """Fire with the bodies of messages, in their order; one that is gone is missing."""
        return self._database.read(partial(_bodies, seqs=_seqs(messages)))

    def confirmed(self, messages: Sequence[Message], tx_hash: str, height: int) -> Deferred[None]:
        """Note that messages are on the chain, in the block ``height``."""
        finish = partial(_confirmed, seqs=_seqs(messages), tx_hash=tx_hash, height=height, now=self._now())
        return self._change(finish)

    def failed(self, messages: Sequence[Message], tx_hash: str, reason: str) -> Deferred[None]:
        """Note that the chain will never take messages; they are kept, and may be sent again."""
        fail = partial(_failed, seqs=_seqs(messages), tx_hash=tx_hash, reason=reason, now=self._now())
        return self._change(fail)

    def again(
        self, messages: Sequence[Message], tx_hash: str, reason: str, *, not_before: int = 0, alone: bool = False
    ) -> Deferred[None]:
        """Have messages sent in another transaction, not before the block ``not_before``, each ``alone`` if so."""
        again = partial(
            _again, seqs=_seqs(messages), tx_hash=tx_hash, reason=reason, not_before=not_before, alone=alone
        )
        return self._change(again)

    def last_timeout(self) -> Deferred[int]:
        """Fire with the greatest timestamp (ns) that a transaction was ever given, 0 when there was none."""
        return self._database.read(_last_timeout)

    def oldest_received_at(self) -> Deferred[float | None]:
        """Fire with the time (unix seconds) at which the oldest message that waits came, None when none waits."""
        return self._database.read(_oldest_received_at)

    def _change(self, function: Callable[[sqlite3.Connection, _Changes], T]) -> Deferred[T]:
        changes: _Changes = {}

        def change(connection: sqlite3.Connection) -> T:
            with transaction(connection):
                return function(connection, changes)

        def count(result: T) -> T:
            self._outbox.count_changes(changes)
            return result

        return self._database.write(change).addCallback(count)


def _next_messages(
    connection: sqlite3.Connection, changes: _Changes, *, height: int, max_bytes: int, max_nonces: int
) -> list[Message]:
    rows = connection.execute(_NEXT, (height,)).fetchall()
    fitting = min(max_nonces, (max_bytes - _OVERHEAD_BYTES) // _NONCE_BYTES)
    large = [seq for seq, kind, _, _, _, nonces, _ in rows if kind == Kind.GENERATED and nonces > fitting]
    if large:
        for seq in large:
            _cut(connection, changes, seq, fitting)
        rows = connection.execute(_NEXT, (height,)).fetchall()
    chosen: dict[int, Message] = {}
    for seq, kind, start, attempts, alone, _, size in rows:
        if alone and chosen:
            continue
        max_bytes -= size + _OVERHEAD_BYTES
        if max_bytes < 0 and chosen:
            break
        chosen[seq] = Message(seq, Kind(kind), start, attempts)
        if alone:
            break
    bodies = dict(_bodies_by_seq(connection, list(chosen)))
    return [msgspec.structs.replace(message, body=bodies[seq]) for seq, message in chosen.items()]


def _cut(connection: sqlite3.Connection, changes: _Changes, seq: int, size: int) -> None:
    (encoded,) = connection.execute("SELECT message FROM waiting WHERE seq = ?", (seq,)).fetchone()
    whole = MsgSubmitPocBatch.FromString(encoded)
    for first in range(0, len(whole.nonces), size):
        nonces, dist = whole.nonces[first : first + size], whole.dist[first : first + size]
        part = MsgSubmitPocBatch(
            poc_stage_start_block_height=whole.poc_stage_start_block_height,
            batch_id=f"{whole.batch_id}-{first}-{first + len(nonces) - 1}",
            nonces=nonces,
            dist=dist,
            node_id=whole.node_id,
        )
        connection.execute(_PART, (part.batch_id, len(nonces), part.SerializeToString(), seq))
    connection.execute("UPDATE waiting SET state = 'in_flight' WHERE seq = ?", (seq,))
    _count(changes, State.STORED, State.IN_FLIGHT, 1)


def _sent(connection: sqlite3.Connection, changes: _Changes, *, seqs: str, tx_hash: str, timeout_ns: int) -> None:
    moved = connection.execute(
        "UPDATE waiting SET state = 'in_flight', tx_hash = ?, tx_timeout_ns = ?, attempts = attempts + 1"
        f" WHERE seq IN {_IN} RETURNING parent",
        (tx_hash, timeout_ns, seqs),
    ).fetchall()
    connection.execute(
        "INSERT INTO numbers (name, value) VALUES ('last_timeout_ns', ?1)"
        " ON CONFLICT (name) DO UPDATE SET value = max(value, ?1)",
        (timeout_ns,),
    )
    _count(changes, State.STORED, State.IN_FLIGHT, _whole(moved))


def _again(
    connection: sqlite3.Connection,
    changes: _Changes,
    *,
    seqs: str,
    tx_hash: str,
    reason: str,
    not_before: int,
    alone: bool,
) -> None:
    moved = connection.execute(
        "UPDATE waiting SET state = 'stored', tx_hash = NULL, tx_timeout_ns = NULL, reason = ?, not_before = ?,"
        f" alone = max(alone, ?) WHERE {_OF_TRANSACTION} RETURNING parent",
        (reason, not_before, alone, seqs, tx_hash),
    ).fetchall()
    _count(changes, State.IN_FLIGHT, State.STORED, _whole(moved))


def _confirmed(
    connection: sqlite3.Connection, changes: _Changes, *, seqs: str, tx_hash: str, height: int, now: float
) -> None:
    rows = connection.execute(f"SELECT seq, parent FROM waiting WHERE {_OF_TRANSACTION}", (seqs, tx_hash)).fetchall()
    whole = [seq for seq, parent in rows if parent is None]
    parts = json.dumps([seq for seq, parent in rows if parent is not None])
    connection.execute(f"DELETE FROM waiting WHERE seq IN {_IN}", (parts,))
    left = "SELECT 1 FROM waiting WHERE parent = ? LIMIT 1"
    parents = {parent for _, parent in rows if parent is not None}
    whole += [parent for parent in parents if not connection.execute(left, (parent,)).fetchone()]
    _finish(connection, changes, whole, State.CONFIRMED, now, tx_hash, height)


def _failed(
    connection: sqlite3.Connection, changes: _Changes, *, seqs: str, tx_hash: str, reason: str, now: float
) -> None:
    query = f"SELECT coalesce(parent, seq) FROM waiting WHERE {_OF_TRANSACTION}"
    whole = [seq for (seq,) in connection.execute(query, (seqs, tx_hash))]
    connection.execute(f"DELETE FROM waiting WHERE parent IN {_IN}", (json.dumps(whole),))
    _finish(connection, changes, whole, State.FAILED, now, tx_hash, None, reason)


def _finish(
    connection: sqlite3.Connection,
    changes: _Changes,
    whole: list[int],
    state: State,
    now: float,
    tx_hash: str,
    height: int | None,
    reason: str | None = None,
) -> None:
    # Only a failed batch may be wanted again, so only its message is kept.
    keeps_message = state is State.FAILED
    seqs = json.dumps(whole)
    connection.execute(_FINISH, (state, now, tx_hash, height, reason, keeps_message, seqs))
    gone = connection.execute(f"DELETE FROM waiting WHERE seq IN {_IN} RETURNING state", (seqs,)).fetchall()
    for (before,) in gone:
        _count(changes, State(before), state, 1)


def _in_flight(connection: sqlite3.Connection) -> list[tuple[str, int, list[Message]]]:
    rows = connection.execute(
        "SELECT tx_hash, tx_timeout_ns, seq, kind, height, attempts FROM waiting"
        f" WHERE state = 'in_flight' AND tx_hash IS NOT NULL ORDER BY tx_hash, {_ORDER}"
    )
    transactions: dict[str, tuple[str, int, list[Message]]] = {}
    for tx_hash, timeout_ns, seq, kind, height, attempts in rows:
        _, _, messages = transactions.setdefault(tx_hash, (tx_hash, timeout_ns, []))
        messages.append(Message(seq, Kind(kind), height, attempts))
    return list(transactions.values())


def _bodies(connection: sqlite3.Connection, *, seqs: str) -> list[bytes]:
    bodies = dict(_bodies_by_seq(connection, json.loads(seqs)))
    return [bodies[seq] for seq in json.loads(seqs) if seq in bodies]


def _bodies_by_seq(connection: sqlite3.Connection, seqs: list[int]) -> list[tuple[int, bytes]]:
    query = f"SELECT seq, message FROM waiting WHERE seq IN {_IN}"
    return connection.execute(query, (json.dumps(seqs),)).fetchall()


def _last_timeout(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT value FROM numbers WHERE name = 'last_timeout_ns'").fetchone()
    return int(found[0]) if found else 0


def _oldest_received_at(connection: sqlite3.Connection) -> float | None:
    found = connection.execute("SELECT received_at FROM waiting ORDER BY seq LIMIT 1").fetchone()
    return float(found[0]) if found else None


def _seqs(messages: Sequence[Message]) -> str:
    return json.dumps([message.seq for message in messages])


def _whole(moved: list[tuple[int | None]]) -> int:
    return sum(parent is None for (parent,) in moved)


def _count(changes: _Changes, before: State, after: State, number: int) -> None:
    changes[before] = changes.get(before, 0) - number
    changes[after] = changes.get(after, 0) + number
