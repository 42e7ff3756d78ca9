"""Messages that wait, or are under way, as rows of the database: what the writer's and the reader's threads do.

Each function is given the connection, and, where it changes something, what to note the changed counts in; it runs
inside one transaction. See Submissions.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

import msgspec

from dapi.chain.transactions import BATCH_TYPE_URL, SEED_TYPE_URL, VALIDATION_TYPE_URL
from dapi.errors import StoreBusyError
from dapi.messages import Kind, State
from dapi.messages.inference_pb2 import MsgSubmitPocValidation

_TYPE_URLS = {Kind.GENERATED: BATCH_TYPE_URL, Kind.VALIDATED: VALIDATION_TYPE_URL, Kind.SEED: SEED_TYPE_URL}

# In this order they are sent, and in this order they stand in their transaction.
ORDER = "height, kind, seq"
IN = "(SELECT value FROM json_each(?))"
_OF_TRANSACTION = f"seq IN {IN} AND tx_hash = ?"
# A verdict is short, and is kept to tell later whether the chain has the same or another one.
_FINISH = (
    "INSERT INTO finished (seq, batch_id, kind, state, node_id, via, height, nonces, seen, received_at, last_seen_at,"
    " finished_at, attempts, tx_hash, included_height, reason, crc32, message)"
    " SELECT seq, batch_id, kind, ?, node_id, via, height, nonces, seen, received_at, last_seen_at,"
    " ?, iif(?, max(0, attempts - 1), attempts), nullif(?, ''), ?, ?, crc32,"
    " iif(? OR kind = 'validated', message, NULL)"
    f" FROM waiting WHERE seq IN {IN}"
)
_KINDS = ", ".join(f"'{kind.value}'" for kind in Kind)
_VERDICTS = (
    "SELECT message FROM finished WHERE height = ? AND kind = 'validated' AND state = 'confirmed'"
    " AND substr(message, 1, ?) = ?"
)
_IS_GIVEN_UP = "EXISTS (SELECT 1 FROM waiting AS whole WHERE whole.seq = waiting.parent AND whole.reason IS NOT NULL)"
_WITHOUT_PARTS = (
    f"SELECT seq, tx_hash, reason FROM waiting WHERE seq IN {IN}"
    " AND NOT EXISTS (SELECT 1 FROM waiting AS part WHERE part.parent = waiting.seq)"
)


Changes = dict[State, int]
"""What each state gained."""


class Message(msgspec.Struct, frozen=True):
    """A message that waits for the chain, or is under way; ``body`` is without creator, and left out where it is long.

    ``attempts`` counts its transactions of which the chain has said nothing: the one that it is in now, and those that
    were in no block when their time had passed.
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

    def under_way(self) -> Message:
        """Return it as it is once it is in a transaction, without its body."""
        return msgspec.structs.replace(self, body=b"", attempts=self.attempts + 1)


class Transaction(msgspec.Struct, eq=False):
    """A transaction under way, with its messages in their order.

    ``timeout_ns`` is the block time after which no block takes it. ``raw`` are its bytes, None while those of a former
    process are not made anew, and ``account_number`` is what they were signed for. ``may_be_known`` tells that a
    mempool may have it, so that only time or a block decides what became of it. ``offered_at`` is when it was last
    offered, on the reactor's clock.
    """

    hash: str
    timeout_ns: int
    messages: list[Message]
    raw: bytes | None = None
    may_be_known: bool = True
    account_number: int | None = None
    offered_at: float | None = None


def sent(connection: sqlite3.Connection, changes: Changes, *, seqs: str, tx_hash: str, timeout_ns: int) -> None:
    """Put messages into a transaction; StoreBusyError, and none is, when one of them does not wait any more."""
    moved = connection.execute(
        "UPDATE waiting SET state = 'in_flight', tx_hash = ?, tx_timeout_ns = ?, attempts = attempts + 1"
        f" WHERE seq IN {IN} AND state = 'stored' RETURNING parent",
        (tx_hash, timeout_ns, seqs),
    ).fetchall()
    if len(moved) < len(json.loads(seqs)):
        # Its window was found to be over, or another part of its batch failed: what is not noted must not be sent.
        raise StoreBusyError("a message was given up while its transaction was made")
    connection.execute(
        "INSERT INTO numbers (name, value) VALUES ('last_timeout_ns', ?1)"
        " ON CONFLICT (name) DO UPDATE SET value = max(value, ?1)",
        (timeout_ns,),
    )
    count(changes, State.STORED, State.IN_FLIGHT, _whole(moved))


def again(
    connection: sqlite3.Connection,
    changes: Changes,
    *,
    seqs: str,
    tx_hash: str,
    reason: str,
    not_before: int,
    alone: bool,
    has_vanished: bool,
    now: float,
) -> None:
    """Take messages out of their transaction, to be sent again; parts of a batch that was given up are not."""
    given_up = connection.execute(
        f"DELETE FROM waiting WHERE {_OF_TRANSACTION} AND {_IS_GIVEN_UP} RETURNING parent", (seqs, tx_hash)
    ).fetchall()
    _finish_parents(connection, changes, {parent for (parent,) in given_up}, now)
    moved = connection.execute(
        "UPDATE waiting SET state = 'stored', tx_hash = NULL, tx_timeout_ns = NULL, reason = ?, not_before = ?,"
        f" alone = max(alone, ?), attempts = attempts - ? WHERE {_OF_TRANSACTION} RETURNING parent",
        (reason, not_before, alone, not has_vanished, seqs, tx_hash),
    ).fetchall()
    count(changes, State.IN_FLIGHT, State.STORED, _whole(moved))


def confirmed(
    connection: sqlite3.Connection,
    changes: Changes,
    *,
    seqs: str,
    tx_hash: str,
    height: int,
    reason: str | None,
    now: float,
) -> None:
    """Finish messages that are on the chain, and the batches whose last part is."""
    rows = connection.execute(f"SELECT seq, parent FROM waiting WHERE {_OF_TRANSACTION}", (seqs, tx_hash)).fetchall()
    whole = [seq for seq, parent in rows if parent is None]
    _finish(connection, changes, whole, State.CONFIRMED, now, tx_hash, height, reason)
    parts = json.dumps([seq for seq, parent in rows if parent is not None])
    connection.execute(f"DELETE FROM waiting WHERE seq IN {IN}", (parts,))
    _finish_parents(connection, changes, {parent for _, parent in rows if parent is not None}, now, tx_hash, height)


def failed(
    connection: sqlite3.Connection, changes: Changes, *, seqs: str, tx_hash: str, reason: str, now: float
) -> None:
    """Finish the batches that messages, or parts, of a transaction belong to as failed."""
    query = f"SELECT coalesce(parent, seq) FROM waiting WHERE {_OF_TRANSACTION}"
    whole = {seq for (seq,) in connection.execute(query, (seqs, tx_hash))}
    give_up(connection, changes, whole, now, tx_hash, reason)


def give_up(
    connection: sqlite3.Connection, changes: Changes, whole: set[int], now: float, tx_hash: str | None, reason: str
) -> None:
    """Finish batches as failed in a transaction (it may be ``""``: in none), or without one as expired.

    One of which a part is under way in another transaction waits for the end of that.
    """
    seqs = json.dumps(list(whole))
    connection.execute(
        f"DELETE FROM waiting WHERE parent IN {IN} AND (state = 'stored' OR tx_hash = ?)", (seqs, tx_hash)
    )
    rest = connection.execute(f"SELECT DISTINCT parent FROM waiting WHERE parent IN {IN}", (seqs,)).fetchall()
    under_way = {parent for (parent,) in rest}
    connection.execute(
        f"UPDATE waiting SET tx_hash = ?, reason = ? WHERE seq IN {IN}",
        (tx_hash, reason, json.dumps(list(under_way))),
    )
    state = State.FAILED if tx_hash is not None else State.EXPIRED
    _finish(connection, changes, list(whole - under_way), state, now, tx_hash, None, reason)


def _finish_parents(
    connection: sqlite3.Connection,
    changes: Changes,
    parents: Iterable[int],
    now: float,
    tx_hash: str | None = None,
    height: int | None = None,
) -> None:
    """Finish batches of which no part is left: given up if they were, else confirmed."""
    for seq, lost_hash, reason in connection.execute(_WITHOUT_PARTS, (json.dumps(list(parents)),)).fetchall():
        if reason is not None:
            give_up(connection, changes, {seq}, now, lost_hash, reason)
        else:
            _finish(connection, changes, [seq], State.CONFIRMED, now, tx_hash, height)


def _finish(
    connection: sqlite3.Connection,
    changes: Changes,
    whole: list[int],
    state: State,
    now: float,
    tx_hash: str | None,
    height: int | None,
    reason: str | None = None,
) -> None:
    # A failed batch's last transaction is known to have done nothing.
    has_failed, is_lost = state is State.FAILED, state is not State.CONFIRMED
    seqs = json.dumps(whole)
    # What the chain does not have is kept whole: a failed batch may be wanted again, and all of it for a dispute.
    connection.execute(_FINISH, (state, now, has_failed, tx_hash, height, reason, is_lost, seqs))
    gone = connection.execute(f"DELETE FROM waiting WHERE seq IN {IN} RETURNING state", (seqs,)).fetchall()
    for (before,) in gone:
        count(changes, State(before), state, 1)


def stages_waiting(connection: sqlite3.Connection) -> list[tuple[int, Kind]]:
    """Tell the stages and kinds of what is to be sent."""
    rows = connection.execute("SELECT DISTINCT height, kind FROM waiting WHERE state = 'stored'")
    return [(height, Kind(kind)) for height, kind in rows]


def stages_unconfirmed(connection: sqlite3.Connection, *, received_before: float) -> list[tuple[int, Kind]]:
    """Tell the stages and kinds of what came before then (unix seconds) and is under way still."""
    rows = connection.execute(
        "SELECT DISTINCT height, kind FROM waiting"
        f" WHERE kind IN ({_KINDS}) AND state = 'in_flight' AND received_at < ?",
        (received_before,),
    )
    return [(height, Kind(kind)) for height, kind in rows]


def expire(
    connection: sqlite3.Connection, changes: Changes, *, height: int, kind: Kind, reason: str, limit: int, now: float
) -> int:
    """Give up what is to be sent of a stage, at most ``limit`` batches of it; return their number."""
    query = (
        "SELECT DISTINCT coalesce(parent, seq) FROM waiting WHERE state = 'stored' AND height = ? AND kind = ? LIMIT ?"
    )
    whole = {seq for (seq,) in connection.execute(query, (height, kind, limit))}
    give_up(connection, changes, whole, now, None, reason)
    return len(whole)


def in_flight(connection: sqlite3.Connection) -> list[Transaction]:
    """Read what is under way."""
    rows = connection.execute(
        "SELECT tx_hash, tx_timeout_ns, seq, kind, height, attempts FROM waiting"
        # All kinds are named for the index. A batch that is sent in parts is in no transaction itself.
        f" WHERE kind IN ({_KINDS}) AND state = 'in_flight' AND tx_timeout_ns IS NOT NULL ORDER BY tx_hash, {ORDER}"
    )
    transactions: dict[str, Transaction] = {}
    for tx_hash, timeout_ns, seq, kind, height, attempts in rows:
        transaction = transactions.setdefault(tx_hash, Transaction(tx_hash, timeout_ns, []))
        transaction.messages.append(Message(seq, Kind(kind), height, attempts))
    return list(transactions.values())


def bodies(connection: sqlite3.Connection, *, seqs: str) -> list[bytes]:
    """Read the bodies of messages, in their order."""
    bodies = dict(connection.execute(f"SELECT seq, message FROM waiting WHERE seq IN {IN}", (seqs,)).fetchall())
    return [bodies[seq] for seq in json.loads(seqs) if seq in bodies]


def is_on_chain(connection: sqlite3.Connection, *, seq: int) -> bool | None:
    """Compare a verdict with those on the same participant that were confirmed."""
    found = connection.execute("SELECT height, message FROM waiting WHERE seq = ?", (seq,)).fetchone()
    if found is None:
        return None
    height, encoded = found
    verdict = MsgSubmitPocValidation.FromString(encoded)
    # What comes first in canonical bytes.
    begin = MsgSubmitPocValidation(participant_address=verdict.participant_address).SerializeToString()
    others = connection.execute(_VERDICTS, (height, len(begin), begin)).fetchall()
    return any(other == encoded for (other,) in others) if others else None


def last_timeout(connection: sqlite3.Connection) -> int:
    """Read the greatest timestamp (ns) that was ever given to a transaction, 0 for none."""
    found = connection.execute("SELECT value FROM numbers WHERE name = 'last_timeout_ns'").fetchone()
    return int(found[0]) if found else 0


def oldest_received_at(connection: sqlite3.Connection) -> float | None:
    """Tell when the oldest message that waits or is under way came (unix seconds)."""
    found = connection.execute("SELECT received_at FROM waiting ORDER BY seq LIMIT 1").fetchone()
    return float(found[0]) if found else None


def _whole(moved: list[tuple[int | None]]) -> int:
    return sum(parent is None for (parent,) in moved)


def count(changes: Changes, before: State, after: State, number: int) -> None:
    """Note that so many batches went from one state to another."""
    changes[before] = changes.get(before, 0) - number
    changes[after] = changes.get(after, 0) + number
