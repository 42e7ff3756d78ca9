"""A file that keeps room on the disk, to be given back when the disk is full."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from dapi.database.file import is_quota_used_up
from dapi.messages.sizes import MIB


class Reserve:
    """The reserve file of ``size`` bytes beside the database at ``path``; ``free_bytes`` tells the room of a folder."""

    def __init__(self, path: Path, size: int, free_bytes: Callable[[str], int] | None) -> None:
        self._path = Path(f"{path}.reserve")
        self._size = size
        self.free_bytes = _free_bytes if free_bytes is None else free_bytes

    @property
    def no_room(self) -> str:
        """What to say when there is no room."""
        return f"the disk is full: {2 * self._size // MIB} MiB must be free in {self._path.parent}, within any quota"

    def give_back(self) -> bool:
        """Delete the file; return whether there was one."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True

    def make(self) -> bool:
        """Make the file, really allocated, unless it is there; False without room for it and as much again."""
        try:
            found = self._path.stat() if self._path.exists() else None
            if found is not None and found.st_size == self._size <= found.st_blocks * 512:
                return True
            if self.free_bytes(str(self._path.parent)) < 2 * self._size:
                return False
            with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as reserve:
                os.posix_fallocate(reserve.fileno(), 0, self._size)
            is_made = not is_quota_used_up(self._path.parent)
        except OSError:
            is_made = False
        if not is_made:
            with contextlib.suppress(OSError):
                self._path.unlink()
        return is_made

    def has_as_much_inside(self, connection: sqlite3.Connection) -> bool:
        """Return whether the database has the room itself: deleted rows leave theirs to the file, not to the disk."""
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        return bool(free * page_bytes >= 2 * self._size)


def _free_bytes(directory: str) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
