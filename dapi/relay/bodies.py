"""Bodies of callbacks as files: written in pieces while they come, read in pieces when they are handed on.

A body of at most 1 MiB stays in memory until it is kept, and is written at once. A larger one goes to its file while
it comes, and its connection is not read while more than 1 MiB of it waits for the disk. When the disk fails, the rest
stays in memory, so that the request can be handed on there and then. No file has a name that comes from outside.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, succeed

from dapi.database.lane import Lane
from dapi.messages.sizes import MIB
from dapi.relay.scan import Facts, Scan, read_whole

SMALL_BYTES = MIB
_PIECE_BYTES = 256 * 1024
# Read on the reactor's thread: a node's body in 0.7 ms at most, one that is made to take long in 4 ms.
_QUICK_BYTES = 384 * 1024
# So much is synced on the way, that the last sync does not hold others up.
_SYNC_BYTES = 4 * MIB


class FileSource:
    """A body in a file, read on a thread of its own."""

    def __init__(self, lane: Lane, path: Path, length: int) -> None:
        self.length = length
        self._lane = lane
        self._path = path

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fire with a part of it; fails with OSError."""
        return self._lane.submit(lambda: read_part(self._path, offset, size))


class IncomingBody:
    """A body that comes: ``write`` gets its parts, ``finish`` has all of it on disk.

    ``target`` is hashed with it: ``digest`` names the two together, once it is finished. ``pause`` and ``resume`` stop
    the connection. With ``is_small`` all of it is in memory, and so it is once the disk has failed (``in_memory``):
    whoever writes then has to see that there is room.
    """

    def __init__(
        self,
        lane: Lane,
        path: Path,
        target: bytes,
        length: int,
        *,
        pause: Callable[[], object],
        resume: Callable[[], object],
    ) -> None:
        self.path = path
        self.target = target
        self.is_small = length <= SMALL_BYTES
        self.length = 0
        self.error: OSError | None = None
        self._lane = lane
        self._pause, self._resume = pause, resume
        self._hash = hashlib.sha256(target + b"\0")
        self._scan = Scan()
        self._gathered = bytearray()
        # What is not on disk, in order; the first ``_on_disk`` bytes are.
        self._pieces: list[bytes] = []
        self._on_disk = 0
        self._synced = 0
        self._file: int | None = None
        self._is_paused = False
        self._is_discarded = False

    @property
    def in_memory(self) -> bool:
        """Whether what comes stays in memory."""
        return self.is_small or self.error is not None

    @property
    def digest(self) -> bytes:
        """The hash of target and body; it is whole once the body is finished."""
        return self._hash.digest()

    def write(self, data: bytes) -> None:
        """Take the next part."""
        self.length += len(data)
        self._gathered += data
        if self.is_small:
            return
        self._hash.update(data)
        if len(self._gathered) >= _PIECE_BYTES:
            self._next_piece()

    def finish(self) -> Deferred[Facts]:
        """Fire with the facts when all is in the file, and synced; fails with the OSError of the disk."""
        if not self.is_small:
            self._next_piece()
            return self._lane.submit(self._finish)
        if self.length > _QUICK_BYTES:
            return self._lane.submit(lambda: self._finish_small(read_whole(self._gathered)))
        # It holds the interpreter's lock on any thread, and those that wait for each other cost as much again.
        facts = read_whole(self._gathered)
        return self._lane.submit(lambda: self._finish_small(facts))

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fire with a part of what has come, from the file or from memory."""
        if offset < self._on_disk:
            return self._lane.submit(lambda: read_part(self.path, offset, min(size, self._on_disk - offset)))
        rest = self._gathered if self.is_small else b"".join(self._pieces)
        return succeed(bytes(rest[offset - self._on_disk :][:size]))

    def discard(self) -> None:
        """Delete the file, if there is one; the body is of no use any more."""
        if not self._is_discarded:
            self._is_discarded = True
            self._lane.submit(self._delete)

    def leave_memory(self) -> bytearray | None:
        """Have the body in its file alone from now on: it is kept. Return it, None where it was not in memory."""
        whole, self._gathered = self._gathered, bytearray()
        self._on_disk = self.length
        self._pieces.clear()
        return whole if self.is_small and whole else None

    def _next_piece(self) -> None:
        piece, self._gathered = bytes(self._gathered), bytearray()
        if not piece:
            return
        self._pieces.append(piece)
        self._lane.submit(lambda: self._write_piece(piece)).addCallback(self._wrote)
        if not self._is_paused and self.error is None and self._waiting_bytes() > SMALL_BYTES:
            self._is_paused = True
            self._pause()

    def _waiting_bytes(self) -> int:
        return sum(map(len, self._pieces))

    def _wrote(self, is_written: bool) -> None:
        if is_written:
            self._on_disk += len(self._pieces.pop(0))
        if self._is_paused and (self.error is not None or self._waiting_bytes() < SMALL_BYTES // 2):
            self._is_paused = False
            self._resume()

    # The lane's thread.

    def _write_piece(self, piece: bytes) -> bool:
        if self.error is not None or self._is_discarded:
            return False
        try:
            self._append(piece)
        except OSError as error:
            self.error = error
            return False
        return True

    def _append(self, piece: bytes | bytearray, *, is_read: bool = False) -> None:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        view = memoryview(piece)
        while view:
            view = view[os.write(self._file, view) :]
        if not is_read:
            self._scan.feed(piece)
        self._synced += len(piece)
        if self._synced >= _SYNC_BYTES:
            os.fdatasync(self._file)
            self._synced = 0

    def _finish_small(self, facts: Facts | None) -> Facts:
        self._hash.update(self._gathered)
        self._append(self._gathered, is_read=facts is not None)
        found = self._finish()
        return facts if facts is not None else found

    def _finish(self) -> Facts:
        if self.error is not None:
            raise self.error
        if self._file is None:
            self._append(b"")
        if self._file is not None:
            os.fdatasync(self._file)
        self._close()
        return self._scan.facts()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _delete(self) -> None:
        self._close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def read_part(path: Path, offset: int, size: int) -> bytes:
    """Return a part of a file; raises OSError."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def scan_file(path: Path) -> Facts:
    """Return the facts of a body that is on disk; raises OSError."""
    if path.stat().st_size <= SMALL_BYTES and (facts := read_whole(path.read_bytes())) is not None:
        return facts
    scan = Scan()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            scan.feed(piece)
    return scan.facts()
