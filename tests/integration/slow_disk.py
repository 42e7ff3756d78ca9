"""Makes the disk of a process slow: as its ``sitecustomize``, it has each commit take ``SLOW_DISK_SECONDS``.

It writes a line to the output when an fsync begins.

A commit in the write-ahead log is one fsync; copying the log into the file, when the last connection is closed, is two.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

_connect = sqlite3.connect


class SlowConnection(sqlite3.Connection):
    """A connection whose fsyncs take long."""

    def __init__(self, path: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(path, *args, **kwargs)
        self._log = Path(f"{path}-wal")
        self._synced = 0

    def execute(self, *args: Any) -> sqlite3.Cursor:
        cursor = super().execute(*args)
        if not self.in_transaction and self.total_changes != self._synced:
            self._synced = self.total_changes
            _sync(1)
        return cursor

    def close(self) -> None:
        had_log = self._log.exists() and self._log.stat().st_size > 0
        super().close()
        if had_log and not self._log.exists():
            _sync(2)


def _sync(times: int) -> None:
    # The thread that writes waits here, as it would for the disk; nothing could tell it that a real one is done.
    # Unbuffered, so that it is in its place among the lines of the log.
    os.write(1, b"the disk syncs\n" * times)
    time.sleep(times * float(os.environ["SLOW_DISK_SECONDS"]))


if "SLOW_DISK_SECONDS" in os.environ:
    sqlite3.connect = lambda *args, **kwargs: _connect(*args, **{"factory": SlowConnection, **kwargs})
