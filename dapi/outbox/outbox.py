"""Keeps messages for the chain on disk, each batch once, from the moment it comes."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.database import Database, transaction
from dapi.database.file import AUTO_CHECKPOINT
from dapi.errors import StoreBusyError, StoreError
from dapi.messages import Kind, Receipt, State, Via
from dapi.messages.sizes import MIB
from dapi.outbox import queries
from dapi.outbox.counts import Counts, by_state, count
from dapi.outbox.pages import BatchPage, page
from dapi.outbox.retries import ByKind, Retried, find_failed, retry_one, retry_some
from dapi.outbox.story import BatchStory, story
from dapi.outbox.whole import WholePage, whole_page
from dapi.timing.observers import Observers

# Of one commit. Many rows are cheap, but what comes during its fsync waits for it, and one turn of the reactor
# acknowledges all of them.
_MAX_ROWS = 1024
_MAX_BYTES = 8 * MIB
# Of one statement: the thread that writes keeps those that it used last, and a large one takes a megabyte.
_MAX_STATEMENT_ROWS = 512
# What a delivery takes in memory besides its message, until it is on disk: small ones must not be counted as nothing.
_DELIVERY_BYTES = 1024


class OutboxEntry(msgspec.Struct, frozen=True):
    """A message for the chain: ``message`` is its protobuf form, without the creator.

    ``batch_id`` is the content id that it is kept under, ``height`` the start of its PoC stage, ``nonces`` how many it
    was made of. With a ``run``, it is sent only if that is the run of its stage; with ``queries.ANY_RUN``, if there is
    its stage; with the others of ``queries``, never.
    """

    batch_id: str
    kind: Kind
    node_id: str | None
    height: int
    nonces: int
    via: Via
    message: bytes
    run: str = ""


class Outbox:
    """Keeps messages for the chain in the database, each batch once, however often it comes.

    Deliveries are written in groups: all that are pending go to disk in one statement, and then all their Deferreds
    fire. So a slow disk makes larger groups, not a longer queue.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        database: Database,
        *,
        now: Callable[[], float] = time.time,
        max_pending_bytes: int = 64 * MIB,
    ) -> None:
        self._reactor = reactor
        self._database = database
        self._now = now
        self._max_pending_bytes = max_pending_bytes
        self._pending: deque[_Delivery] = deque()
        # Of all that is not on disk yet, the group that is being written included.
        self._pending_bytes = 0
        self._is_committing = False
        self._is_stop_near = False
        # None until they were asked for, and after a failure that may have left some of its group on disk.
        self._counts: Counts | None = None
        self._observers: Observers[[]] = Observers()

    def observe(self, observer: Callable[[], object]) -> None:
        """Call ``observer`` whenever there is something new to send."""
        self._observers.add(observer)

    def put(self, entry: OutboxEntry) -> Deferred[Receipt]:
        """Keep an entry; fires with its Receipt when it is on disk.

        A batch that is kept already, be it finished, is only counted. Fails with StoreBusyError when it cannot be
        stored now (too many bytes are pending, the disk is full, the file is locked), with StoreClosedError or with
        StoreBrokenError. Cancelling the Deferred does not take the entry back.
        """
        delivery = _Delivery(entry, self._now())
        # One that is larger than all that may be pending is taken alone: it would never find more room than that.
        if self._pending_bytes and self._pending_bytes + delivery.size > self._max_pending_bytes:
            return fail(StoreBusyError(f"{self._pending_bytes} bytes wait for the disk already"))
        self._pending_bytes += delivery.size
        self._pending.append(delivery)
        if self._is_stop_near or not self._is_committing:
            # Not before the end of the reactor's turn: what it reads in this one shares the first commit.
            self._is_committing = True
            self._reactor.callLater(0, self._commit)
        return delivery.receipt

    def batches(
        self,
        *,
        node_id: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Deferred[BatchPage]:
        """List the batches that match all that is given, newest first; fires with a BatchPage.

        ``limit`` is 1 to 1000 (else ValueError), ``before`` the ``next`` of the page before. Fails with StoreError.
        """
        if not 1 <= limit <= 1000:
            raise ValueError("limit is 1 to 1000")
        return self._database.read(partial(page, node_id=node_id, kind=kind, state=state, limit=limit, before=before))

    def counts(self) -> Deferred[dict[str, int]]:
        """Count batches; fires with their number by state, every state included. Fails with StoreError."""
        return self.counts_by_kind().addCallback(by_state)

    def counts_by_kind(self) -> Deferred[Counts]:
        """Count batches by kind and state; see Counts. Fails with StoreError."""
        # By the writer: its results come in the order of its work, so no commit is counted twice or left out.
        counts = self._database.write(count) if self._counts is None else succeed(self._counts)
        return counts.addCallback(self._counted)

    def story(self, batch_id: str) -> Deferred[BatchStory]:
        """Fire with all that is known of one batch. Fails with UnknownBatchError, or with StoreError.

        The first 8 characters of its id, or more, are enough where no other id begins with them.
        """
        return self._database.read(partial(story, batch_id=batch_id))

    def whole_batches(
        self,
        *,
        node_id: str | None = None,
        kind: Kind | None = None,
        state: State | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Deferred[WholePage]:
        """List batches as ``batches`` does, each with its message; a page has 4 MiB of messages at most, or one.

        Fails with StoreError.
        """
        read = partial(whole_page, node_id=node_id, kind=kind, state=state, limit=limit, before=before)
        return self._database.read(read)

    def retry(self, batch_id: str) -> Deferred[None]:
        """Store a failed batch again, all of it, to be sent once more.

        Fires when that is on disk. Fails with UnknownBatchError when no failed batch has this id, or with StoreError.
        """
        return Deferred.fromCoroutine(self._retry(batch_id))

    async def _retry(self, batch_id: str) -> None:
        seq = await self._database.read(partial(find_failed, batch_id))
        self._retried(await self._database.write(partial(retry_one, batch_id, seq)))

    def retry_some(
        self, *, node_id: str | None = None, kind: Kind | None = None, before: int | None = None
    ) -> Deferred[Retried]:
        """Store failed batches that match again, the newest first: 256 at most, of 8 MiB at most (or a single one).

        ``before`` is the ``next`` of the call before. Fires when that is on disk. Fails with StoreError.
        """
        retrying = self._database.write(partial(retry_some, node_id=node_id, kind=kind, before=before))
        return retrying.addCallback(self._retried)

    def _retried(self, done: tuple[Retried, ByKind]) -> Retried:
        retried, by_kind = done
        for kind, number in by_kind.items():
            self.count_changes({(kind, State.FAILED): -number, (kind, State.STORED): number})
        if retried.batches:
            self._observers()
        return retried

    def count_changes(self, changes: Mapping[tuple[Kind | None, State], int]) -> None:
        """Keep the counts right after batches changed their state; ``changes`` is what each kind and state gained."""
        if self._counts is not None:
            self._counts.update(changes)

    def commit_at_once(self) -> None:
        """Hand all that is pending to the database, and from now on all that comes: a stop is near.

        Otherwise a group waits until the one before is on disk, and a stop would wait for one commit after the other.
        """
        self._is_stop_near = True
        self._commit()

    def status(self) -> dict[str, Any]:
        """Return how many deliveries are ``pending`` (not on disk yet), their bytes, and the database's status."""
        return {
            "pending": len(self._pending),
            "pending_bytes": self._pending_bytes,
            "max_pending_bytes": self._max_pending_bytes,
            "database": self._database.status(),
        }

    def _commit(self) -> None:
        if not self._pending:
            self._is_committing = False
            return
        group = self._next_group()
        stored = maybeDeferred(self._write, group)
        stored.addCallbacks(self._stored, self._not_stored, callbackArgs=(group,), errbackArgs=(group,))
        stored.addErrback(lambda failure: self.log.failure("the outbox failed, which it never should", failure))

    def _write(self, group: _Group) -> Deferred[_Stored]:
        store = _store_large if group.size > _MAX_BYTES else _store
        return self._database.write(partial(store, group.parts(), self._now()), intake=True)

    def _next_group(self) -> _Group:
        group = _Group()
        while self._pending and (self._is_stop_near or group.has_room_for(self._pending[0])):
            group.add(self._pending.popleft())
        return group

    def _stored(self, stored: _Stored, group: _Group) -> None:
        self._pending_bytes -= group.size
        if self._counts is not None:
            self._counts.update({(kind, State.STORED): number for kind, number in stored.new.items()})
        # The disk goes on before those who wait hear of it.
        self._commit()
        if group.size > _MAX_BYTES and not self._is_stop_near:
            # Behind what came meanwhile, which has waited long enough.
            self._database.write(_copy_log).addErrback(lambda failure: failure.trap(StoreError) and None)
        group.fire_receipts(stored.seen_before)
        if stored.new.total():
            self._observers()

    def _not_stored(self, failure: Failure, group: _Group) -> None:
        # What is pending behind the group would meet the same.
        refused = [*group.deliveries, *self._pending]
        self._pending.clear()
        self._pending_bytes -= sum(delivery.size for delivery in refused)
        self._is_committing = False
        self._counts = None
        for delivery in refused:
            delivery.receipt.errback(failure.value)

    def _counted(self, counts: Counts) -> Counts:
        self._counts = counts
        return counts


class _Delivery:
    """An entry that is not on disk yet."""

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
        self.deliveries: list[_Delivery] = []
        self._by_batch: dict[str, list[_Delivery]] = {}

    def has_room_for(self, delivery: _Delivery) -> bool:
        return not self.deliveries or (len(self.deliveries) < _MAX_ROWS and self.size + delivery.size <= _MAX_BYTES)

    def add(self, delivery: _Delivery) -> None:
        self.size += delivery.size
        self.deliveries.append(delivery)
        self._by_batch.setdefault(delivery.entry.batch_id, []).append(delivery)

    def parts(self) -> list[_Rows]:
        """Return its rows, as each statement stores them."""
        deliveries = list(self._by_batch.values())
        return [
            _Rows(deliveries[begin : begin + _MAX_STATEMENT_ROWS])
            for begin in range(0, len(deliveries), _MAX_STATEMENT_ROWS)
        ]

    def fire_receipts(self, seen_before: dict[str, int]) -> None:
        """Fire each Deferred with its receipt: the group is on disk."""
        seen = Counter(seen_before)
        for delivery in self.deliveries:
            batch_id = delivery.entry.batch_id
            seen[batch_id] += 1
            delivery.receipt.callback(Receipt(batch_id, seen[batch_id]))


class _Rows:
    """What one statement stores: made ready on the reactor's thread, since the writer's has to wait for that one.

    ``kept`` has of each batch its id, its height, how often it came, and how often of that by HTTP.
    """

    __slots__ = ("kept", "kinds", "statement", "values")

    def __init__(self, deliveries: Sequence[Sequence[_Delivery]]) -> None:
        self.statement = queries.STORE.format(rows=",".join([queries.STORE_ROW] * len(deliveries)))
        self.kinds = [first.entry.kind for first, *_ in deliveries]
        self.kept: list[tuple[str, int, int, int]] = []
        self.values: list[object] = []
        for each in deliveries:
            entry, received_at, times = each[0].entry, each[0].received_at, len(each)
            by_http = sum(one.entry.via is Via.HTTP for one in each)
            self.kept.append((entry.batch_id, entry.height, times, by_http))
            self.values += (entry.batch_id, entry.nonces, zlib.crc32(entry.message), entry.kind.value, entry.node_id)
            self.values += (entry.via.value, entry.height, times, by_http, received_at, received_at)
            self.values += (entry.message, entry.run)


class _Stored(NamedTuple):
    new: Counter[Kind]
    seen_before: dict[str, int]


# The writer's thread.


def _store_large(parts: Sequence[_Rows], now: float, connection: sqlite3.Connection) -> _Stored:
    """Store what is so large that to copy the log into the file takes nearly as long again; ``_copy_log`` does that."""
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    try:
        return _store(parts, now, connection)
    except BaseException:
        connection.execute(AUTO_CHECKPOINT)
        raise


def _copy_log(connection: sqlite3.Connection) -> None:
    try:
        # What fails here, fails as quietly in a commit; the next one tries again.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    finally:
        connection.execute(AUTO_CHECKPOINT)


def _store(parts: Sequence[_Rows], now: float, connection: sqlite3.Connection) -> _Stored:
    """Insert what is new and count what is not; return how many are new, and how often the others had been seen."""
    if len(parts) == 1:
        return _store_rows(parts[0], now, connection)
    new = Counter[Kind]()
    seen_before: dict[str, int] = {}
    with transaction(connection):
        for rows in parts:
            stored = _store_rows(rows, now, connection)
            new += stored.new
            seen_before |= stored.seen_before
    return _Stored(new, seen_before)


def _store_rows(rows: _Rows, now: float, connection: sqlite3.Connection) -> _Stored:
    new = connection.execute(rows.statement, rows.values).rowcount
    if new == len(rows.kept):
        return _Stored(Counter(rows.kinds), {})
    (found,) = connection.execute(queries.FIND, {"batches": _json(rows.kept)}).fetchone()
    # Those that were just inserted have the highest numbers of all.
    kept = sorted(msgspec.json.decode(found, type=list[tuple[int, str, int]]))[: len(rows.kept) - new]
    seen_before = {batch_id: seen for _, batch_id, seen in kept}
    again = _json([each for each in rows.kept if each[0] in seen_before])
    with transaction(connection):
        for see_again in queries.SEE_AGAIN:
            connection.execute(see_again, {"now": now, "batches": again})
    kinds = (kind for kind, each in zip(rows.kinds, rows.kept, strict=True) if each[0] not in seen_before)
    return _Stored(Counter(kinds), seen_before)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
