"""What has to reach the chain, from the moment it came: kept on disk, each batch once."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.database import Database, transaction
from dapi.errors import StoreBusyError, UnknownBatchError
from dapi.messages import Kind, Receipt, State, Via
from dapi.messages.sizes import MIB
from dapi.outbox.pages import BatchPage, page

# Of one commit. A statement of many rows is cheap, but what comes during its fsync waits for it.
_MAX_ROWS = 512
_MAX_BYTES = 8 * MIB
# What a delivery takes in memory besides its message, until it is on disk: small ones must not be counted as nothing.
_DELIVERY_BYTES = 1024

_ROW = "(?,?,?,?,?,?,?,?,?,?,?)"
# One statement for the whole group: each further one waits for the interpreter lock beside a busy reactor.
_INSERT = (
    "INSERT INTO waiting"
    " (batch_id, kind, state, node_id, via, height, nonces, seen, received_at, last_seen_at, crc32, message)"
    " SELECT column1, column2, 'stored', column3, column4, column5, column6, column7, column8, column9, column10,"
    " column11"
    " FROM (VALUES {rows}) WHERE NOT EXISTS (SELECT 1 FROM finished WHERE batch_id = column1)"
    " ON CONFLICT (batch_id) DO NOTHING"
)
_FIND = (
    "SELECT json_group_array(json_array(seq, batch_id, seen)) FROM ("
    "SELECT seq, batch_id, seen FROM waiting WHERE batch_id IN (SELECT value FROM json_each(?1))"
    " UNION ALL SELECT seq, batch_id, seen FROM finished WHERE batch_id IN (SELECT value FROM json_each(?1)))"
)
_SEE_AGAIN = (
    "UPDATE {table} SET seen = seen + again.value, last_seen_at = ?1"
    " FROM json_each(?2) AS again WHERE batch_id = again.key"
)
_RETRY = (
    "INSERT INTO waiting (seq, batch_id, kind, state, node_id, via, height, nonces, seen, received_at, last_seen_at,"
    " attempts, crc32, message)"
    " SELECT seq, batch_id, kind, 'stored', node_id, via, height, nonces, seen, received_at, last_seen_at,"
    " attempts, crc32, message FROM finished WHERE batch_id = ? AND state = 'failed' AND message IS NOT NULL"
)
_COUNT = (
    "SELECT json_group_object(state, number) FROM (SELECT state, sum(number) AS number FROM ("
    "SELECT state, count(*) - count(parent) AS number FROM waiting GROUP BY kind, state"
    " UNION ALL SELECT state, count(*) FROM finished GROUP BY kind, state) GROUP BY state)"
)


class OutboxEntry(msgspec.Struct, frozen=True):
    """A message for the chain: ``message`` is its protobuf form, without the creator.

    ``batch_id`` is the content id that it is kept under, ``height`` the start of its PoC stage, ``nonces`` how many it
    was made of.
    """

    batch_id: str
    kind: Kind
    node_id: str | None
    height: int
    nonces: int
    via: Via
    message: bytes


class Outbox:
    """Keeps messages for the chain in the database, each batch once, however often it comes.

    Entries are written in groups: all that waits goes to disk in one statement, and then all their Deferreds fire.
    So a slow disk makes larger groups, not a longer queue.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        database: Database,
        *,
        now: Callable[[], float] = time.time,
        max_waiting_bytes: int = 64 * MIB,
    ) -> None:
        self._reactor = reactor
        self._database = database
        self._now = now
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: deque[_Put] = deque()
        # Of all that is not on disk yet, the group that is being written included.
        self._waiting_bytes = 0
        self._is_committing = False
        # None until they were asked for, and after a failure that may have left some of its group on disk.
        self._counts: Counter[str] | None = None
        self._observers: list[Callable[[], None]] = []

    def observe(self, observer: Callable[[], None]) -> None:
        """Have ``observer`` called whenever there is something new to send."""
        self._observers.append(observer)

    def announce(self) -> None:
        """Tell the observers that there is something to send."""
        for observer in self._observers:
            observer()

    def put(self, entry: OutboxEntry) -> Deferred[Receipt]:
        """Keep an entry; fires with its Receipt when it is on disk.

        A batch that is kept already, be it finished, is only counted. Fails with StoreBusyError when it cannot be
        stored now (too many bytes wait, the disk is full, the file is locked) or with StoreBrokenError. Cancelling
        the Deferred does not take the entry back.
        """
        put = _Put(entry, self._now())
        # One that is larger than all that may wait is taken alone: it would never find more room than that.
        if self._waiting_bytes and self._waiting_bytes + put.size > self._max_waiting_bytes:
            return fail(StoreBusyError(f"{self._waiting_bytes} bytes wait for the disk already"))
        self._waiting_bytes += put.size
        self._waiting.append(put)
        if not self._is_committing:
            # Not before the end of the reactor's turn: what it reads in this one shares the first commit.
            self._is_committing = True
            self._reactor.callLater(0, self._commit)
        return put.receipt

    def batches(
        self,
        *,
        node_id: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Deferred[BatchPage]:
        """List batches, newest first, those that match all that is given; fires with a BatchPage.

        ``limit`` is 1 to 1000 (else ValueError), ``before`` the ``next`` of the page before. Fails with StoreError.
        """
        if not 1 <= limit <= 1000:
            raise ValueError("limit is 1 to 1000")
        return self._database.read(partial(page, node_id=node_id, kind=kind, state=state, limit=limit, before=before))

    def counts(self) -> Deferred[dict[str, int]]:
        """Count batches; fires with their number by state, every state included. Fails with StoreError."""
        if self._counts is not None:
            return succeed(self._counts_by_state(self._counts))
        # By the writer: its results come in the order of its work, so no commit is counted twice or left out.
        return self._database.write(_count).addCallback(self._counted)

    def retry(self, batch_id: str) -> Deferred[None]:
        """Have a failed batch sent again, all of it.

        Fires when that is on disk. Fails with UnknownBatchError when no failed batch has this id, or with StoreError.
        """
        return self._database.write(partial(_retry, batch_id)).addCallback(self._retried)

    def _retried(self, _result: None) -> None:
        self.count_changes({State.FAILED: -1, State.STORED: 1})
        self.announce()

    def count_changes(self, changes: Mapping[State, int]) -> None:
        """Keep the counts right after batches changed their state; ``changes`` is what each state gained."""
        if self._counts is not None:
            self._counts.update(changes)

    def status(self) -> dict[str, object]:
        """Tell what waits for the disk (``waiting``, ``waiting_bytes``) and how the ``database`` is."""
        return {
            "waiting": len(self._waiting),
            "waiting_bytes": self._waiting_bytes,
            "max_waiting_bytes": self._max_waiting_bytes,
            "database": self._database.status(),
        }

    def _commit(self) -> None:
        if not self._waiting:
            self._is_committing = False
            return
        group = self._next_group()
        stored = self._database.write(partial(_store, group.rows(), self._now()), intake=True)
        stored.addCallbacks(self._stored, self._not_stored, callbackArgs=(group,), errbackArgs=(group,))
        stored.addErrback(lambda failure: self.log.failure("an observer of the outbox failed", failure))

    def _next_group(self) -> _Group:
        group = _Group()
        while self._waiting and group.has_room_for(self._waiting[0]):
            group.add(self._waiting.popleft())
        return group

    def _stored(self, stored: _Stored, group: _Group) -> None:
        self._waiting_bytes -= group.size
        if self._counts is not None:
            self._counts[State.STORED] += stored.new
        # The disk goes on before those who wait hear of it.
        self._commit()
        group.tell(stored.seen_before)
        if stored.new:
            self.announce()

    def _not_stored(self, failure: Failure, group: _Group) -> None:
        # What waits behind the group would meet the same.
        refused = [*group.puts, *self._waiting]
        self._waiting.clear()
        self._waiting_bytes = 0
        self._is_committing = False
        self._counts = None
        for put in refused:
            put.receipt.errback(failure.value)

    def _counted(self, counts: Counter[str]) -> dict[str, int]:
        self._counts = counts
        return self._counts_by_state(counts)

    def _counts_by_state(self, counts: Counter[str]) -> dict[str, int]:
        return {state.value: counts[state] for state in State}


class _Put:
    """One delivery that waits for the disk."""

    __slots__ = ("entry", "receipt", "received_at", "size")

    def __init__(self, entry: OutboxEntry, received_at: float) -> None:
        self.entry = entry
        self.size = len(entry.message) + _DELIVERY_BYTES
        self.received_at = received_at
        self.receipt: Deferred[Receipt] = Deferred()


class _Group:
    """The deliveries of one commit; those of one batch share a row."""

    def __init__(self) -> None:
        self.size = 0
        self.puts: list[_Put] = []
        self._first: dict[str, _Put] = {}
        self._times: Counter[str] = Counter()

    def has_room_for(self, put: _Put) -> bool:
        return not self.puts or (len(self.puts) < _MAX_ROWS and self.size + put.size <= _MAX_BYTES)

    def add(self, put: _Put) -> None:
        self.size += put.size
        self.puts.append(put)
        self._first.setdefault(put.entry.batch_id, put)
        self._times[put.entry.batch_id] += 1

    def rows(self) -> list[_Row]:
        return [_Row(put.entry, self._times[batch_id], put.received_at) for batch_id, put in self._first.items()]

    def tell(self, seen_before: dict[str, int]) -> None:
        """Fire each Deferred with its receipt: the group is on disk."""
        seen = Counter(seen_before)
        for put in self.puts:
            batch_id = put.entry.batch_id
            seen[batch_id] += 1
            put.receipt.callback(Receipt(batch_id, seen[batch_id]))


class _Row(NamedTuple):
    entry: OutboxEntry
    times: int
    received_at: float


class _Stored(NamedTuple):
    new: int
    seen_before: dict[str, int]


# The writer's thread.


def _store(rows: list[_Row], now: float, connection: sqlite3.Connection) -> _Stored:
    """Insert what is new and count what is not; tell how many were new, and how often the others had been seen."""
    values: list[object] = []
    for entry, times, received_at in rows:
        values += (entry.batch_id, entry.kind.value, entry.node_id, entry.via.value, entry.height, entry.nonces)
        values += (times, received_at, received_at, zlib.crc32(entry.message), entry.message)
    new = connection.execute(_INSERT.format(rows=",".join([_ROW] * len(rows))), values).rowcount
    if new == len(rows):
        return _Stored(new, {})
    (found,) = connection.execute(_FIND, (_json([row.entry.batch_id for row in rows]),)).fetchone()
    # Those that were just inserted have the highest numbers of all.
    kept = sorted(msgspec.json.decode(found, type=list[tuple[int, str, int]]))[: len(rows) - new]
    seen_before = {batch_id: seen for _, batch_id, seen in kept}
    again = _json({row.entry.batch_id: row.times for row in rows if row.entry.batch_id in seen_before})
    with transaction(connection):
        for table in ("waiting", "finished"):
            connection.execute(_SEE_AGAIN.format(table=table), (now, again))
    return _Stored(new, seen_before)


def _retry(batch_id: str, connection: sqlite3.Connection) -> None:
    with transaction(connection):
        if not connection.execute(_RETRY, (batch_id,)).rowcount:
            raise UnknownBatchError(f"no failed batch has the id {batch_id!r}")
        connection.execute("DELETE FROM finished WHERE batch_id = ?", (batch_id,))


def _count(connection: sqlite3.Connection) -> Counter[str]:
    (found,) = connection.execute(_COUNT).fetchone()
    return Counter(msgspec.json.decode(found, type=dict[str, int]))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
