"""A file that only its owner can read, with something secret that dapi makes at its first start."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger

from dapi.database.to_disk import to_disk
from dapi.errors import StartError


class SecretFile:
    """The file at ``path``; ``what`` is in it, as errors and the log say it.

    ``exposed`` says what to do once others could read the file, which dapi ends.
    """

    log = Logger()

    def __init__(self, path: Path, what: str, *, exposed: str) -> None:
        self.path = path
        self._what = what
        self._exposed = exposed

    def read_or_make(self, make: Callable[[], bytes]) -> bytes:
        """Return what is in the file, or have it made and put there; raises StartError when neither can be done."""
        try:
            if self.path.exists():
                return self._read()
            content = make()
            self._write(content)
        except OSError as error:
            raise StartError(
                f"{self._what}, {self.path}, cannot be read or made: {error.strerror}; check the path, its permissions "
                "and the room on its disk"
            ) from error
        return content

    def _read(self) -> bytes:
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            self.path.chmod(0o600)
            text = "{path} was open to others (mode {mode}) and is not any more: see who could read it, and {exposed}"
            self.log.warn(text, path=str(self.path), mode=f"{mode:03o}", exposed=self._exposed)
        return self.path.read_bytes()

    def _write(self, content: bytes) -> None:
        """Make the file whole under another name, so that a crash leaves no half of it."""
        new = Path(f"{self.path}.new")
        new.unlink(missing_ok=True)
        new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        to_disk(self.path.parent)
