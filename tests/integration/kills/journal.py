"""A file of JSON lines that survives the kill of its writer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """Appends lines for good; what is cut short by a kill is cut off by the next writer."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        whole = path.read_bytes().rpartition(b"\n")
        self._file.truncate(len(whole[0]) + len(whole[1]))

    def write(self, **record: Any) -> None:
        """Append one line; it is the system's when this returns."""
        self._file.write(json.dumps(record).encode() + b"\n")


class Reader:
    """Reads the whole lines that are new since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> list[dict[str, Any]]:
        """Return the records that came since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().rpartition(b"\n")[0]
        if not lines:
            return []
        self._offset += len(lines) + 1
        return [json.loads(line) for line in lines.split(b"\n")]
