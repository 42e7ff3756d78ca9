"""Bodies of callbacks on disk: how they get there while they come, and how they are read when they are handed on.

A body of at most 1 MiB (``SmallBody``) stays in memory until it is kept; those that are kept at the same time share a
file, and its sync. A larger one (``LargeBody``) goes to a file of its own while it comes, and its connection is not
read while more than 1 MiB of it waits for the disk. When the disk fails, the rest stays in memory, so that the request
can be handed on there and then. No file has a name that comes from outside.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred, succeed

from dapi.database.lane import Lane
from dapi.messages.sizes import MIB
from dapi.relay.facts import Facts
from dapi.relay.payload import Place
from dapi.relay.scan import Scan, read_whole

SMALL_BYTES = MIB
_PIECE_BYTES = 256 * 1024
# So much is synced on the way, that the last sync does not hold others up.
_SYNC_BYTES = 4 * MIB


class FileSource:
    """A body in a file, read on a thread of its own."""

    def __init__(self, lane: Lane, path: Path, offset: int, length: int) -> None:
        self.length = length
        self._lane = lane
        self._path = path
        self._offset = offset

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fire with a part of it; fails with OSError."""
        size = min(size, self.length - offset)
        return self._lane.submit(lambda: read_part(self._path, self._offset + offset, size))


class SmallBody:
    """A body that comes, and stays in memory. ``write_together`` sets ``place`` and ``digest``."""

    in_memory = True
    place: Place
    digest: bytes

    def __init__(self, target: bytes) -> None:
        self.target = target
        self.content = bytearray()

    @property
    def length(self) -> int:
        """How many bytes have come."""
        return len(self.content)

    def write(self, data: bytes) -> None:
        """Take the next part."""
        self.content += data

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fire with a part of what has come."""
        return succeed(bytes(self.content[offset : offset + size]))

    def discard(self) -> None:
        """Do nothing: the file, if there is one, is not its own."""


class LargeBody:
    """A body that comes, and goes to a file of its own: ``finish`` has all of it there.

    ``digest`` is whole then. ``pause`` and ``resume`` stop the connection. Once the disk has failed, what comes stays
    in memory (``in_memory``): whoever writes then has to see that there is room.
    """

    def __init__(
        self,
        lane: Lane,
        path: Path,
        target: bytes,
        *,
        pause: Callable[[], object],
        resume: Callable[[], object],
    ) -> None:
        self.place = Place(path.name, 0)
        self.target = target
        self.length = 0
        self.error: OSError | None = None
        self._lane = lane
        self._path = path
        self._pause, self._resume = pause, resume
        self._hash = _begin_hash(target)
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
        return self.error is not None

    @property
    def digest(self) -> bytes:
        """The hash of target and body; it is whole once the body is finished."""
        return self._hash.digest()

    def write(self, data: bytes) -> None:
        """Take the next part."""
        self.length += len(data)
        self._gathered += data
        self._hash.update(data)
        if len(self._gathered) >= _PIECE_BYTES:
            self._next_piece()

    def finish(self) -> Deferred[Facts]:
        """Fire with the facts when all is in the file, and synced; fails with the OSError of the disk."""
        self._next_piece()
        return self._lane.submit(self._finish)

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Fire with a part of what has come, from the file or from memory."""
        if offset < self._on_disk:
            return self._lane.submit(lambda: read_part(self._path, offset, min(size, self._on_disk - offset)))
        begin, found = offset - self._on_disk, bytearray()
        pieces: list[bytes | bytearray] = [*self._pieces, self._gathered]
        for piece in pieces:
            if begin < len(piece):
                found += piece[begin : begin + size - len(found)]
            begin = max(0, begin - len(piece))
            if len(found) >= size:
                break
        return succeed(bytes(found))

    def discard(self) -> None:
        """Delete the file, if there is one; the body is of no use any more."""
        if not self._is_discarded:
            self._is_discarded = True
            self._lane.submit(self._delete)

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

    def _append(self, piece: bytes) -> None:
        if self._file is None:
            self._file = _new_file(self._path)
        _write_all(self._file, piece)
        self._scan.feed(piece)
        self._synced += len(piece)
        if self._synced >= _SYNC_BYTES:
            os.fdatasync(self._file)
            self._synced = 0

    def _finish(self) -> Facts:
        if self.error is not None:
            raise self.error
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
        # Where that fails, the next start deletes it.
        with contextlib.suppress(OSError):
            self._path.unlink()


Body = SmallBody | LargeBody


def write_together(path: Path, bodies: Sequence[SmallBody]) -> None:
    """Bring bodies to the disk in one new file, with one sync; raises OSError, and leaves no file then."""
    file = _new_file(path)
    try:
        offset = 0
        for body in bodies:
            # An empty one takes a byte, too: no two begin at the same one.
            content = body.content or b"\n"
            _write_all(file, content)
            body.place = Place(path.name, offset)
            whole = _begin_hash(body.target)
            whole.update(body.content)
            body.digest = whole.digest()
            offset += len(content)
        os.fdatasync(file)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(file)


def read_part(path: Path, offset: int, size: int) -> bytes:
    """Return a part of a file; raises OSError."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def scan_small(content: bytes | bytearray) -> Facts:
    """Return the facts of a body that is in memory."""
    if (facts := read_whole(content)) is not None:
        return facts
    scan = Scan()
    scan.feed(content)
    return scan.facts()


def scan_part(path: Path, offset: int, size: int) -> Facts:
    """Return the facts of a body that is on disk; raises OSError."""
    if size <= SMALL_BYTES:
        return scan_small(read_part(path, offset, size))
    scan = Scan()
    with path.open("rb") as file:
        file.seek(offset)
        while size > 0 and (piece := file.read(min(size, _PIECE_BYTES))):
            scan.feed(piece)
            size -= len(piece)
    return scan.facts()


def _begin_hash(target: bytes) -> hashlib._Hash:
    """Return the hash that goes on with the body: the same body at another target is another callback."""
    return hashlib.sha256(target + b"\0")


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)


def _write_all(file: int, content: bytes | bytearray) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
