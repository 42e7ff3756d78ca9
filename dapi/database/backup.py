"""Copies the database into another file while it is used.

The states of the one copy that is made at a time::

    none ──begin──▶ running ──────▶ done
                    ▲  │  └───────▶ failed        no room, a disk that fails, a stop
                    └──┴─ begin ─── done, failed
"""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.database.file import open_to_read, why_not_copied
from dapi.database.lane import Lane
from dapi.database.to_disk import to_disk
from dapi.errors import ConfigError, NotReadyError, StoreBusyError
from dapi.messages.sizes import MIB
from dapi.timing.steps import step

# Of one step; between two steps the thread lets the disk rest for as long as the step took, but not longer than this.
_PAGES = 128
_MAX_REST_SECONDS = 0.25
# Besides what the copy takes.
_ROOM_LEFT_BYTES = 64 * MIB
_MAX_PATH_CHARACTERS = 1024
# Files that SQLite, or dapi, takes to be a part of the database.
_OWN_SUFFIXES = ("-wal", "-shm", "-journal", ".lock", ".reserve", ".new")


class BackupState(enum.StrEnum):
    """The states that are drawn above."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


TRANSITIONS = {
    BackupState.NONE: {BackupState.RUNNING},
    BackupState.RUNNING: {BackupState.DONE, BackupState.FAILED},
    BackupState.DONE: {BackupState.RUNNING},
    BackupState.FAILED: {BackupState.RUNNING},
}


class BackupStatus(msgspec.Struct, frozen=True):
    """How far the copy into the file ``path`` is; times are unix seconds, ``problem`` says why it failed.

    ``pages_done`` of ``pages`` are copied, ``bytes`` is the size of a copy that is done.
    """

    state: BackupState = BackupState.NONE
    path: str | None = None
    pages: int = 0
    pages_done: int = 0
    bytes: int = 0
    began_at: float | None = None
    ended_at: float | None = None
    problem: str | None = None


class _StoppedError(Exception):
    """dapi stops while the copy is made."""


class Backups(Service):
    """Makes a copy of the database at ``path``, one at a time, on a thread of its own.

    A copy is the database as it is at one moment, with all that was acknowledged before. It is made in a file beside
    its own (``.partial``) and gets its name when it is whole and on disk; then it is a database like any other. It is
    readable by its owner only. While a copy is made, the write-ahead log grows by what is written meanwhile.

    ``free_bytes`` tells the room of a folder, ``rest`` lets its thread sleep for some seconds. Stopping gives a copy up
    that is not done.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        path: str,
        *,
        free_bytes: Callable[[str], int] | None = None,
        now: Callable[[], float] = time.time,
        rest: Callable[[float], object] = time.sleep,
    ) -> None:
        self._path = Path(os.path.realpath(path))
        self._free_bytes = free_bytes or (lambda folder: shutil.disk_usage(folder).free)
        self._now = now
        self._rest = rest
        self._lane = Lane(reactor, "dapi database backup")
        self._is_stopping = False
        # The thread replaces it as a whole.
        self._status = BackupStatus()

    def startService(self) -> None:
        """Start the thread."""
        super().startService()  # type: ignore[no-untyped-call]
        self._is_stopping = False
        self._lane.start()

    def stopService(self) -> Deferred[None]:
        """Give up a copy that is not done; fires when the thread is gone."""
        if not self.running:
            return succeed(None)
        super().stopService()  # type: ignore[no-untyped-call]
        self._is_stopping = True
        return self._lane.stop()

    def status(self) -> BackupStatus:
        """Return how far the copy is that was begun last."""
        return self._status

    def begin(self, path: str) -> Deferred[BackupStatus]:
        """Begin a copy into a new file; fires with the status once the file is there, and before the copy is whole.

        Fails with ConfigError, which says what is wrong with ``path``, with StoreBusyError when a copy is being made
        already or there is no room for one, and with NotReadyError when dapi is stopping.
        """
        if not self.running:
            return fail(NotReadyError("dapi is starting or stopping"))
        if self._status.state is BackupState.RUNNING:
            return fail(StoreBusyError(f"a copy into {self._status.path} is being made: wait until it is done"))
        before = self._status
        self._turn(BackupStatus(BackupState.RUNNING, path, began_at=self._now()))
        preparing = self._lane.submit(partial(self._prepare, path))
        return preparing.addCallbacks(self._prepared, self._not_prepared, errbackArgs=(before,))

    def _prepared(self, target: Path) -> BackupStatus:
        copying = self._lane.submit(partial(self._copy, target))
        copying.addCallbacks(self._copied, self._not_copied)
        copying.addErrback(lambda failure: self.log.failure("the state of the backup is not right", failure))
        return self._status

    def _not_prepared(self, failure: Failure, before: BackupStatus) -> Failure:
        # Nothing was begun: what is told is the copy before.
        self._status = before
        return failure

    def _copied(self, size: int) -> None:
        found = self._status
        ended = msgspec.structs.replace(
            found, state=BackupState.DONE, pages_done=found.pages, bytes=size, ended_at=self._now()
        )
        self._turn(ended)
        self.log.info("the database is copied into {path}, {size} bytes", path=found.path, size=size)

    def _not_copied(self, failure: Failure) -> None:
        problem = str(failure.value)
        self._turn(
            msgspec.structs.replace(self._status, state=BackupState.FAILED, problem=problem, ended_at=self._now())
        )
        if failure.check(_StoppedError, sqlite3.Error, OSError) is None:
            self.log.failure("the copy into {path} broke", failure, path=self._status.path)
        else:
            text = "the database is not copied into {path}: {problem}"
            self.log.warn(text, path=self._status.path, problem=problem)

    def _turn(self, status: BackupStatus) -> None:
        step(TRANSITIONS, self._status.state, status.state, "a copy")
        self._status = status

    # The thread.

    def _prepare(self, text: str) -> Path:
        """Make the file, empty: so its name is taken. Return its path."""
        target = _checked(text, self._path)
        try:
            size = self._path.stat().st_size
            free = self._free_bytes(str(target.parent))
            if free < size + _ROOM_LEFT_BYTES:
                raise StoreBusyError(
                    f"the copy takes {_mib(size)} MiB, and {_mib(free)} MiB are free in {target.parent}: "
                    f"{_mib(_ROOM_LEFT_BYTES)} MiB have to be left; make room, or choose another disk"
                )
            os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            raise ConfigError(f"path: {target} exists: nothing is ever overwritten; choose another name") from None
        except OSError as error:
            raise ConfigError(
                f"path: {target} cannot be made: {error.strerror}; choose a folder that dapi itself may write, such as "
                f"{self._path.parent}"
            ) from error
        return target

    def _copy(self, target: Path) -> int:
        """Copy into the file; return its size in bytes."""
        partly = Path(f"{target}.partial")
        try:
            partly.unlink(missing_ok=True)
            os.close(os.open(partly, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._copy_pages(partly)
            to_disk(partly)
            partly.replace(target)
            to_disk(target.parent)
            return target.stat().st_size
        except BaseException as error:
            for left in (partly, Path(f"{partly}-journal"), target):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)
            if isinstance(error, sqlite3.Error):
                raise OSError(why_not_copied(target, error)) from error
            raise

    def _copy_pages(self, target: Path) -> None:
        began = time.monotonic()

        def step_done(_status: int, remaining: int, total: int) -> None:
            nonlocal began
            if self._is_stopping:
                raise _StoppedError("dapi was stopped")
            self._status = msgspec.structs.replace(self._status, pages=total, pages_done=total - remaining)
            # So that the commits of what comes meanwhile find the disk free half of the time.
            self._rest(min(time.monotonic() - began, _MAX_REST_SECONDS))
            began = time.monotonic()

        with (
            contextlib.closing(open_to_read(self._path)) as source,
            contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            # One moment for all steps: without this, each commit would have the copy begin anew.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(copy, pages=_PAGES, progress=step_done)


def _checked(text: str, database: Path) -> Path:
    target = Path(text)
    if not text or len(text) > _MAX_PATH_CHARACTERS or "\0" in text or not target.is_absolute():
        raise ConfigError("path: has to be the whole path of a new file, from / on, where dapi runs")
    if not target.parent.is_dir():
        raise ConfigError(f"path: there is no folder {target.parent} where dapi runs")
    if target.name in {database.name + suffix for suffix in _OWN_SUFFIXES}:
        raise ConfigError(f"path: {target.name} is a name that belongs to the database itself; choose another one")
    return target


def _mib(size: int) -> int:
    return -(-size // MIB)
