"""How large the database's files are."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.interfaces import IReactorTime

# A look costs as much as a small write: both wait for the interpreter lock.
_SECONDS = 1.0


class FileSizes:
    """The sizes in bytes of the file at ``path`` and of its WAL, as they were at the latest look.

    One thread looks, since the reactor's thread must not wait for a disk that hangs; any other may ask.
    """

    def __init__(self, clock: IReactorTime, path: Path) -> None:
        self._clock = clock
        self._path = path
        self._looked_at = float("-inf")
        # Replaced as a whole.
        self.found = (0, 0)

    def look(self) -> None:
        """Look at the files, unless that was done within the last second."""
        now = self._clock.seconds()
        if now >= self._looked_at + _SECONDS:
            self._looked_at = now
            self.found = size_of(self._path), size_of(Path(f"{self._path}-wal"))


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 when it is missing."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
