"""The secret prefix of the relay's callbacks: whoever knows it may deliver. It is made at the first start."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from pathlib import Path

from twisted.logger import Logger

from dapi.errors import StartError

PREFIX = "/k/"
_TOKEN_BYTES = 32
_PATTERN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")


class PrefixFile:
    """A file that its owner alone can read, with the prefix in one line: an operator copies it from there.

    ``open`` reads it, or makes it. It raises StartError when it can do neither.
    """

    log = Logger()

    def __init__(self, path: str) -> None:
        self.prefix = ""
        self._path = Path(os.path.realpath(path))

    def open(self) -> None:
        """Read the prefix, or make it."""
        try:
            self.prefix = self._read() if self._path.exists() else self._make()
        except OSError as error:
            raise StartError(
                f"the relay's prefix, {self._path}, cannot be read or made: {error.strerror}; check the path, its "
                "permissions and the room on its disk"
            ) from error

    def is_before(self, target: bytes) -> bool:
        """Tell whether a request target begins with the prefix; how wrong it is does not show in the time it takes."""
        expected = f"{self.prefix}/".encode()
        return hmac.compare_digest(target[: len(expected)], expected)

    def _read(self) -> str:
        mode = stat.S_IMODE(self._path.stat().st_mode)
        if mode & 0o077:
            self._path.chmod(0o600)
            text = "{path} was open to others (mode {mode}) and is not any more: see who could read it, or delete it"
            self.log.warn(text, path=str(self._path), mode=f"{mode:03o}")
        prefix = self._path.read_text().strip()
        if _PATTERN.fullmatch(prefix) is None:
            raise StartError(
                f"{self._path} holds no prefix: restore it from a back-up, or delete it to have a new one made, which "
                "the api container has to be told then (poc_callback_url)"
            )
        return prefix

    def _make(self) -> str:
        """Make the file whole under another name, so that a crash leaves no half of it."""
        prefix = PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
        new = Path(f"{self._path}.new")
        new.unlink(missing_ok=True)
        new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{prefix}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return prefix
