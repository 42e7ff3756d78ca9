"""The file of the database: takes its lock, checks it before it is used, and brings it up to date."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dapi.database.schema import SCHEMA_VERSIONS
from dapi.database.to_disk import to_disk
from dapi.errors import NewerDatabaseError, StartError
from dapi.messages.sizes import MIB

APPLICATION_ID = int.from_bytes(b"dapi", "big")

AUTO_CHECKPOINT: Final = "PRAGMA wal_autocheckpoint = 256"
"""Has a commit copy the log into the file when that has so many pages."""

TO_DO_WHEN_LOST: Final = (
    "a volume may be missing or a disk may have been full; bring the file back, or start once with --new-database if "
    "dapi has to begin with a new one"
)

TO_DO_WHEN_OF_ANOTHER_USER: Final = "run dapi as the user whose files they are, or give them to this one (chown)"

_BUSY_TIMEOUT_SECONDS = 2.0
# What undoes one statement of several, and what is sorted, would otherwise be in files of /tmp, which a container need
# not have.
_NO_TEMPORARY_FILES = "PRAGMA temp_store = MEMORY"
# Looking at every page of a larger file would keep the callback port shut for too long after a restart.
_FULLY_CHECKED_BYTES = 64 * MIB


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the body of ``with`` as one transaction: all of it is committed, or nothing when it raises.

    Within another transaction it is a part of that one, and only the part is undone when the body raises.
    """
    is_part = connection.in_transaction
    connection.execute("SAVEPOINT part" if is_part else "BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("RELEASE part" if is_part else "COMMIT")
    except BaseException:
        # SQLite rolls back by itself after some errors.
        if connection.in_transaction:
            connection.execute("ROLLBACK TO part" if is_part else "ROLLBACK")
            if is_part:
                connection.execute("RELEASE part")
        raise


def take_lock(path: Path) -> int:
    """Take the lock of the owner of the file; return its descriptor. Closing the descriptor gives the lock back."""
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    give_to_owner(lock, path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StartError(
            f"the database {path} is in use by another dapi: stop that one, or give this one a path of its own"
        ) from error
    return lock


def give_to_owner(descriptor: int, path: Path) -> None:
    """Give a file that root has made beside the database to the user whose database it is, or whose folder."""
    owner = (path if path.exists() else path.parent).stat()
    if os.geteuid() == 0 and os.fstat(descriptor).st_uid != owner.st_uid:
        # In a container, root may not be allowed to.
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def open_prepared(path: Path, *, is_new_wanted: bool = False) -> sqlite3.Connection:
    """Open the connection that writes: the file is made if it is missing, checked, and brought up to date.

    An empty file, or a write-ahead log without its file, is what is left of a database that was lost: StartError,
    unless ``is_new_wanted``.
    """
    if not is_new_wanted and (lost := why_lost(path)) is not None:
        raise StartError(f"the database {path} {lost}: {TO_DO_WHEN_LOST}")
    if not path.exists() or _is_empty(path):
        _create(path)
    if not os.access(path, os.R_OK | os.W_OK):
        raise StartError(f"the database {path} cannot be read and written by this user: {TO_DO_WHEN_OF_ANOTHER_USER}")
    return _open(path)


def why_lost(path: Path) -> str | None:
    """Return in words what shows that the database at ``path`` was lost; None: there is one, or never was."""
    if path.exists():
        return "is empty" if _is_empty(path) else None
    wal = Path(f"{path}-wal")
    return "is missing, while its -wal file is there" if wal.exists() and not _is_empty(wal) else None


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def _create(path: Path) -> None:
    """Make the file whole under another name: so an empty file is never a creation that was interrupted."""
    new = Path(f"{path}.new")
    # SQLite would take an old log as the new file's.
    for old in (new, *(Path(f"{each}{suffix}") for each in (path, new) for suffix in ("-wal", "-shm"))):
        old.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    _open(new).close()
    new.replace(path)
    to_disk(path.parent)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=32
    )
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a connection that only reads."""
    uri = f"{path.as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None)
    connection.execute(_NO_TEMPORARY_FILES)
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    is_new = application_id == version == tables == 0
    if not is_new and application_id != APPLICATION_ID:
        raise StartError(f"{path} is a database of another program: give dapi a path of its own")
    if version > len(SCHEMA_VERSIONS):
        raise NewerDatabaseError(
            f"the database {path} was written by a newer dapi (its schema is {version}, this one knows "
            f"{len(SCHEMA_VERSIONS)}): install that version again, or restore a back-up from before the upgrade"
        )
    if path.stat().st_size <= _FULLY_CHECKED_BYTES:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StartError(_corrupt(path, found))
    connection.execute("PRAGMA page_size = 16384")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StartError(f"the database {path} cannot use a write-ahead log there: put it on a local disk")
    connection.executescript(f"PRAGMA synchronous = FULL; {AUTO_CHECKPOINT}; PRAGMA secure_delete = OFF;")
    # In KiB: as much as a large commit changes, or pages of it are written more than once.
    connection.execute("PRAGMA cache_size = -8000")
    connection.execute(_NO_TEMPORARY_FILES)
    if version < len(SCHEMA_VERSIONS):
        missing = "".join(SCHEMA_VERSIONS[version:])
        connection.executescript(
            f"BEGIN IMMEDIATE; {missing} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {len(SCHEMA_VERSIONS)}; COMMIT;"
        )


def _corrupt(path: Path, found: object) -> str:
    # SQLite may tell it in several lines.
    words = " ".join(str(found).split())
    return (
        f"the database {path} is corrupt ({words}): restore it from a back-up, or move it away, together with its -wal "
        "and -shm files, to begin with an empty one"
    )


def primary_code(error: sqlite3.Error) -> int:
    """Return the code of an error without its details."""
    # Errors of the module itself, which never reached SQLite, have none.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def is_for_want_of_room(path: Path, error: sqlite3.Error) -> bool:
    """Return whether something failed because the disk, or a quota of it, is full.

    SQLite reports a quota's refusal as any other failed write. To take one for the other is safe: the file keeps what
    was written before, and the failed write is rolled back. Only a failed fsync puts in doubt what was there before.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    # SQLite reports a full disk by the second code when it has no room for the index of the WAL.
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
        return True
    return code == sqlite3.SQLITE_IOERR_WRITE and is_quota_used_up(path.parent)


def is_quota_used_up(folder: Path) -> bool:
    """Return whether a quota has no room left in a folder; statvfs does not know of all quotas."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), 0, MIB)
    except OSError as error:
        return error.errno == errno.EDQUOT
    return False


def why_not_opened(path: Path, error: sqlite3.Error) -> str:
    """Return in words why the file could not be opened, and what to do."""
    match primary_code(error):
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return _corrupt(path, error)
        case _ if is_for_want_of_room(path, error):
            return f"the database {path} cannot be opened: the disk is full: make room in {path.parent}"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"the database {path} is locked by another program: close that one first"
        case _:
            return f"the database {path} cannot be opened: {error}; check the path, its permissions and its disk"


def why_not_copied(path: Path, error: sqlite3.Error) -> str:
    """Return in words why the file could not be copied into the one at ``path``, and what to do."""
    match primary_code(error):
        case sqlite3.SQLITE_FULL:
            return f"the disk of {path} is full: make room in {path.parent}, or choose another one"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return f"the database is damaged: {error}"
        case _:
            return f"{error}; look at the disk of {path}"
