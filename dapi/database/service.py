"""The service that owns the SQLite file: one thread writes it, one reads it.

Why it is built like this, all of it measured (docs/protocol/measured.md, 'SQLite', 'Threads and the interpreter lock'
and 'A disk that fails'). WAL with ``synchronous=FULL`` loses nothing that was acknowledged when the power goes. Two
connections that write can corrupt a WAL (before SQLite 3.51.3) and lock each other out: so there is one, and a file
lock keeps a second process away. Beside a busy reactor each step of a statement waits up to 5 ms for the interpreter
lock: so functions given to ``write`` and ``read`` should make few statements, with few rows of result.

Its states::

    ok ──────▶ full ────▶ ok          there is room for the reserve, and as much again
    ok ──────▶ locked ──▶ ok          the other program has let go of the file
    locked ──▶ full
    ok, full, locked ───▶ broken      a failed fsync, a corrupt page: only a new start leads out of it
"""

from __future__ import annotations

import contextlib
import enum
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from dapi.database.commit_times import CommitTimes
from dapi.database.file import (
    is_for_want_of_room,
    open_prepared,
    open_to_read,
    primary_code,
    take_lock,
    transaction,
    why_not_opened,
)
from dapi.database.file_sizes import FileSizes, size_of
from dapi.database.lane import Lane
from dapi.database.reserve import Reserve
from dapi.errors import StartError, StoreBrokenError, StoreBusyError, StoreClosedError, StoreError
from dapi.messages.sizes import MIB
from dapi.timing.histogram import Histogram
from dapi.timing.timer import Timer
from dapi.timing.waiters import Waiters

T = TypeVar("T")

DEFAULT_RESERVE_BYTES = 16 * MIB

_PROBE_SECONDS = 1.0
# On a disk that takes longer for a commit, the log is not copied into the file at a stop: that takes two times more.
_SLOW_COMMIT_SECONDS = 0.25
# Of one thread: behind a disk that hangs, the queue must not grow without end.
_MAX_QUEUED = 1000


class DatabaseState(enum.StrEnum):
    """The states of the database, drawn at the top of the file."""

    OK = "ok"
    FULL = "full"
    LOCKED = "locked"
    BROKEN = "broken"


class _Health(msgspec.Struct, frozen=True):
    state: DatabaseState
    reason: str
    since: float


class Database(Service):
    """The SQLite file at ``path``, for the owners of its tables.

    ``startService`` opens it before it returns, and raises StartError when it must not be used: in use by another
    process (or service), corrupt, foreign, of a newer version, not to be written, or empty, because it was lost. With
    ``is_new_wanted`` a new database takes the place of an empty one, and of no other. ``stopService`` finishes what was
    queued, and its Deferred fires when the file is closed, the threads are gone and the lock is free. It can be started
    again after that.

    When the disk, or a quota, is full, nothing is lost and nothing new is taken. A reserve file (``path`` +
    ``.reserve``) is deleted then, so that messages can still be finished. Writes of ``intake`` are refused until the
    reserve could be made again, or until finished messages have left twice its room inside the file.

    When the database breaks (a failed fsync, a corrupt page), everything is refused and nothing is tried again: the
    page cache need not say what is on disk. ``on_broken`` is called once, with the reason; the process should stop and
    recover from the file. The promise ends at the disk's own honesty; a file above 64 MiB is not checked at start.

    ``commit_seconds`` has how long its commits took.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        path: str,
        *,
        on_broken: Callable[[str], object],
        reserve_bytes: int = DEFAULT_RESERVE_BYTES,
        is_new_wanted: bool = False,
        free_bytes: Callable[[str], int] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        # SQLite follows a link, too: the lock belongs beside the file, the reserve on the disk of the file.
        self._path = Path(os.path.realpath(path))
        self._on_broken = on_broken
        self._reserve = Reserve(self._path, reserve_bytes, free_bytes)
        self._is_new_wanted = is_new_wanted
        self._now = now
        self._writer = Lane(reactor, "dapi database writer")
        self._reader = Lane(reactor, "dapi database reader")
        # Of the writes that changed something.
        self.commit_seconds = Histogram()
        self._commit_times = CommitTimes(reactor, self.commit_seconds)
        # The threads replace it as a whole, and the reactor's thread logs it.
        self._health = _Health(DatabaseState.OK, "", self._now())
        self._was_broken = False
        self._is_stopping = False
        self._sizes = FileSizes(reactor, self._path)
        self._next_probe = Timer(reactor, _PROBE_SECONDS, self._probe)
        self._stop_waiters: Waiters[None] = Waiters()

    def startService(self) -> None:
        """Open the file, or raise StartError with a message that says what to do."""
        with contextlib.ExitStack() as undo:
            try:
                self._lock = take_lock(self._path)
                undo.callback(os.close, self._lock)
                self._connection = self._open()
            except sqlite3.Error as error:
                raise StartError(why_not_opened(self._path, error)) from error
            except OSError as error:
                raise StartError(
                    f"the database {self._path} cannot be opened: {error}; check the path and its permissions"
                ) from error
            undo.pop_all()
        self._health = _Health(DatabaseState.OK, "", self._now())
        self._was_broken = False
        self._sizes.look()
        super().startService()  # type: ignore[no-untyped-call]
        self._writer.start()
        self._reader.start()
        if not self._reserve.make():
            self._turn(DatabaseState.FULL, self._reserve.no_room)

    def _open(self) -> sqlite3.Connection:
        if self._is_new_wanted and size_of(self._path):
            self.log.warn("{path}: has content and is used as it is: leave --new-database out", path=self._path)
        try:
            return open_prepared(self._path, is_new_wanted=self._is_new_wanted)
        except sqlite3.Error as error:
            # Others filled the disk meanwhile. The room of the reserve is enough to open the file.
            if not (is_for_want_of_room(self._path, error) and self._reserve.give_back()):
                raise
        return open_prepared(self._path, is_new_wanted=self._is_new_wanted)

    def stopService(self) -> Deferred[None]:
        """Finish what is queued and close; fires with None when nothing is left."""
        if self.running:
            super().stopService()  # type: ignore[no-untyped-call]
            self._next_probe.cancel()
            stopping = Deferred.fromCoroutine(self._stop())
            stopping.addErrback(
                lambda failure: self.log.failure("{path}: not closed properly", failure, path=self._path)
            )
            self._is_stopping = True
            stopping.addCallback(self._stopped)
        return self._stop_waiters.wait() if self._is_stopping else succeed(None)

    def write(self, function: Callable[[sqlite3.Connection], T], *, intake: bool = False) -> Deferred[T]:
        """Run ``function`` with the connection (in autocommit mode), after all functions that were given before.

        It runs on the writer's thread, so it must not use the reactor. The Deferred fires with what it returns, or
        fails with what it raises; SQLite's own errors become StoreBusyError (full, locked: it heals by itself) or
        StoreBrokenError (for good). Fails with StoreClosedError when the database is not open. Cancelling the Deferred
        does not cancel the write. ``intake`` says that the write adds something new: a full disk refuses it.
        """
        return self._submit(self._writer, partial(self._write, function, intake))

    def read(self, function: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        """Run ``function`` on the reader's thread, with a connection that only reads; the Deferred is like ``write``'s.

        It sees all that was committed before.
        """
        return self._submit(self._reader, partial(self._read, function))

    def free_bytes(self) -> Deferred[int]:
        """Fire with the bytes that are free on the disk of the file, the reserve not counted; fails with StoreError."""
        return self._submit(self._reader, lambda: self._reserve.free_bytes(str(self._path.parent)))

    def commit_together(self) -> None:
        """Commit all writes that are queued at once from now on, not each by itself: a stop is near.

        One that raises is undone alone. When the commit fails, all of them fail.
        """
        self._writer.run_together(self._one_commit)

    def status(self) -> dict[str, Any]:
        """Return its ``state``, a DatabaseState, with the ``reason``, and ``since`` when (unix seconds).

        ``writing_seconds`` is for how long the current write has been running (many: the disk hangs), 0 without one;
        99 of 100 commits of the last five minutes took ``commit_p99_seconds`` at most (None: there were few). ``bytes``
        and ``wal_bytes`` are the sizes on disk.
        """
        health = self._health
        size, wal_size = self._sizes.found
        return {
            "state": health.state,
            "reason": health.reason,
            "since": health.since,
            "writing_seconds": round(self._writer.busy_seconds, 3),
            "commit_p99_seconds": self._commit_times.p99_seconds(),
            "path": str(self._path),
            "bytes": size,
            "wal_bytes": wal_size,
        }

    def _submit(self, lane: Lane, function: Callable[[], T]) -> Deferred[T]:
        if not self.running:
            return fail(StoreClosedError(f"{self._path} is not open"))
        if lane.queued >= _MAX_QUEUED:
            return fail(StoreBusyError(f"{self._path}: {lane.queued} calls wait for the disk already"))
        return lane.submit(function)

    # The writer's and the reader's threads.

    def _write(self, function: Callable[[sqlite3.Connection], T], intake: bool) -> T:
        self._refuse_if_broken()
        if (
            intake
            and self._health.state is DatabaseState.FULL
            and not self._reserve.has_as_much_inside(self._connection)
        ):
            raise StoreBusyError(self._health.reason)
        changes = self._connection.total_changes
        # The transaction of several writes.
        is_part = self._connection.in_transaction
        try:
            with (
                self._commit_times.timed(self._connection),
                transaction(self._connection) if is_part else contextlib.nullcontext(),
            ):
                result = function(self._connection)
                if not is_part:
                    self._refuse_open_transaction()
        except BaseException as error:
            if not is_part:
                self._roll_back()
            self._judge(error)
            raise
        finally:
            self._sizes.look()
        if self._health.state is DatabaseState.LOCKED and self._connection.total_changes != changes:
            self._turn(DatabaseState.OK, "")
        return result

    @contextlib.contextmanager
    def _one_commit(self) -> Iterator[None]:
        self._refuse_if_broken()
        try:
            # A checkpoint would make the commit take three times as long.
            self._connection.execute("PRAGMA wal_autocheckpoint = 0")
            with self._commit_times.timed(self._connection), transaction(self._connection):
                yield
                self._refuse_lost_transaction()
        except BaseException as error:
            self._judge(error)
            raise

    def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        self._refuse_if_broken()
        try:
            with contextlib.closing(open_to_read(self._path)) as connection:
                return function(connection)
        except sqlite3.Error as error:
            # This connection refuses to write, which says nothing about the database.
            if primary_code(error) != sqlite3.SQLITE_READONLY:
                self._judge(error)
            raise

    def _refuse_if_broken(self) -> None:
        if self._health.state is DatabaseState.BROKEN:
            raise StoreBrokenError(self._health.reason)

    def _refuse_open_transaction(self) -> None:
        if self._connection.in_transaction:
            raise RuntimeError("a function given to write() left its transaction open")

    def _refuse_lost_transaction(self) -> None:
        # SQLite rolls back all of it after some errors of one write.
        if not self._connection.in_transaction:
            raise StoreBusyError(f"{self._path}: writes that were to be committed together were rolled back")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # The error that led here is the one to raise.
                self._connection.rollback()

    def _judge(self, error: BaseException) -> None:
        """Raise what an error of SQLite means for the database; return when it says nothing about the database."""
        if not isinstance(error, sqlite3.Error):
            return
        text = f"{self._path}: {error}"
        match primary_code(error):
            case _ if is_for_want_of_room(self._path, error):
                self._reserve.give_back()
                self._turn(DatabaseState.FULL, self._reserve.no_room)
                raise StoreBusyError(self._health.reason) from error
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
                if self._health.state is DatabaseState.OK:
                    self._turn(DatabaseState.LOCKED, f"{text}: another program holds it")
                raise StoreBusyError(text) from error
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_READONLY:
                self._turn(DatabaseState.BROKEN, f"{text} ({error.sqlite_errorname})")
                raise StoreBrokenError(self._health.reason) from error
            case sqlite3.SQLITE_CANTOPEN:
                raise StoreBusyError(text) from error

    def _turn(self, state: DatabaseState, reason: str) -> None:
        if self._health.state not in (state, DatabaseState.BROKEN):
            self._health = _Health(state, reason, self._now())
            self._reactor.callFromThread(self._turned, self._health)

    def _heal(self, connection: sqlite3.Connection) -> None:
        if self._health.state is DatabaseState.FULL:
            if self._reserve.make():
                self._turn(DatabaseState.OK, "")
        else:
            # An empty transaction needs the lock: when it passes, the other program has let go.
            with transaction(connection):
                pass
            self._turn(DatabaseState.OK, "")

    def _close(self) -> None:
        # Closing the last connection copies the WAL into the file and deletes it; on a full disk the WAL stays for the
        # next start. In a broken database that would try again what failed, and on a slow disk it would take long, so
        # another connection, which only reads, is open meanwhile. Where even that cannot be opened, there is no
        # database left to spoil.
        with contextlib.ExitStack() as after:
            if self._health.state is DatabaseState.BROKEN or self._commit_times.last_seconds > _SLOW_COMMIT_SECONDS:
                with contextlib.suppress(sqlite3.Error):
                    other = after.enter_context(contextlib.closing(open_to_read(self._path)))
                    other.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self._connection.close()

    # The reactor's thread.

    def _turned(self, health: _Health) -> None:
        if health.state is DatabaseState.OK:
            self.log.info("{path}: works again", path=self._path)
        elif health.state is not DatabaseState.BROKEN:
            self.log.error("{path}: {state}: {reason}", path=self._path, state=health.state, reason=health.reason)
            self._probe_later()
        elif not self._was_broken:
            # Both threads may find out at the same moment.
            self._was_broken = True
            self.log.critical("{path}: nothing can be stored any more: {reason}", path=self._path, reason=health.reason)
            self._on_broken(health.reason)

    def _probe_later(self) -> None:
        if self.running and self._health.state in (DatabaseState.FULL, DatabaseState.LOCKED):
            self._next_probe.start()

    def _probe(self) -> None:
        probed = self.write(self._heal)
        probed.addErrback(lambda failure: failure.trap(StoreError) and None)
        probed.addErrback(lambda failure: self.log.failure("{path}: probe failed", failure, path=self._path))
        probed.addCallback(lambda _: self._probe_later())

    async def _stop(self) -> None:
        await self._reader.stop()
        try:
            await self._writer.stop(self._close)
        finally:
            os.close(self._lock)

    def _stopped(self, _result: None) -> None:
        self._is_stopping = False
        self._stop_waiters.fire(None)
