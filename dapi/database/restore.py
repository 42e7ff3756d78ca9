"""Puts a copy of the database in the place of the database, while no dapi runs; loses nothing of what was there."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from dapi.database.file import APPLICATION_ID, give_to_owner, take_lock
from dapi.database.schema import SCHEMA_VERSIONS
from dapi.database.to_disk import to_disk
from dapi.errors import NewerDatabaseError, StartError


class FoundDatabase(NamedTuple):
    """What a file holds: its ``size`` in bytes, the ``version`` of its schema, its chain, its batches by state."""

    size: int
    version: int
    chain_id: str | None
    batches: dict[str, int]


def look_into(path: Path, *, is_copy: bool = True) -> FoundDatabase:
    """Check a file, every page of it, and tell what it holds; changes nothing.

    A copy has no files beside it, and nobody uses it. Raises StartError when it is no whole database of dapi that this
    version can read.
    """
    wal = Path(f"{path}-wal")
    if not path.is_file() or not path.stat().st_size:
        raise StartError(f"there is no database in {path}: the file is {'empty' if path.exists() else 'missing'}")
    if is_copy and wal.exists() and wal.stat().st_size:
        raise StartError(f"{path} is a database in use, and no copy: its newest rows are in {wal}; see `dapi backup`")
    how = "mode=ro&immutable=1" if is_copy else "mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)) as connection:
            return _look(connection, path)
    except sqlite3.Error as error:
        raise StartError(f"{path} is no whole database: {error}") from error


def _look(connection: sqlite3.Connection, path: Path) -> FoundDatabase:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise StartError(f"{path} is a database of another program")
    if version > len(SCHEMA_VERSIONS):
        raise NewerDatabaseError(
            f"{path} was written by a newer dapi (its schema is {version}): install that version first"
        )
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise StartError(f"{path} is damaged: {' '.join(found.split())}")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    chain = connection.execute("SELECT id FROM chain").fetchone() if "chain" in tables else None
    # Of an earlier version the table has another name.
    unfinished = "unfinished" if "unfinished" in tables else "waiting"
    # Of a batch that was finished long ago, the ledger alone knows.
    finished = "state, batches FROM ledger" if "ledger" in tables else "state, 1 FROM finished"
    batches = dict(
        connection.execute(
            f"SELECT state, sum(batches) FROM (SELECT state, 1 AS batches FROM {unfinished} WHERE parent IS NULL"
            f" UNION ALL SELECT {finished}) GROUP BY state ORDER BY state"
        ).fetchall()
    )
    return FoundDatabase(path.stat().st_size, version, chain[0] if chain else None, batches)


def restore(copy: Path, path: Path) -> Path | None:
    """Put a copy in the place of the database at ``path``; return where that is now, None when there was none.

    The copy itself stays. The database belongs to the user to whom it belonged before, or its folder does, also when
    root puts it there. Raises StartError when the copy cannot be used, or a dapi uses the database.
    """
    path = Path(os.path.realpath(path))
    look_into(copy)
    lock = take_lock(path)
    try:
        new = Path(f"{path}.restored")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with copy.open("rb") as source, os.fdopen(descriptor, "wb") as target:
            give_to_owner(target.fileno(), path)
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        before = _move_away(path)
        new.replace(path)
        to_disk(path.parent)
    except OSError as error:
        raise StartError(f"{copy} cannot be put in the place of {path}: {error}") from error
    else:
        return before
    finally:
        os.close(lock)


def _move_away(path: Path) -> Path | None:
    """Move the database away, together with the rows that are in its write-ahead log."""
    before = Path(f"{path}.before-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    if before.exists():
        raise StartError(f"{before} exists: try again in a second")
    is_there = path.exists()
    # The file first: should this be the last that happens, dapi sees a log without its file, and does not start.
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            Path(f"{path}{suffix}").rename(f"{before}{suffix}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    return before if is_there else None
