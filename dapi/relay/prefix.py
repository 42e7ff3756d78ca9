"""The secret prefix of the relay's callbacks: whoever knows it may deliver. It is made at the first start."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from pathlib import Path

from dapi.database.secret_file import SecretFile
from dapi.errors import StartError

PREFIX = "/k/"
_TOKEN_BYTES = 32
_PATTERN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")


def has_prefix(url: str) -> bool:
    """Tell whether a callback URL ends with a prefix."""
    return re.search(rf"{_PATTERN.pattern}/?$", url) is not None


def without_prefix(url: str) -> str:
    """Return a callback URL without a prefix at its end: dapi's own callbacks of PoC v1 have none."""
    return re.sub(rf"{_PATTERN.pattern}/?$", "", url)


class PrefixFile:
    """A file that its owner alone can read, with the prefix in one line: an operator copies it from there.

    ``open`` reads it, or makes it. It raises StartError when it can do neither.
    """

    def __init__(self, path: str) -> None:
        self.prefix = ""
        self._file = SecretFile(Path(os.path.realpath(path)), "the relay's prefix", exposed="delete it")

    def open(self) -> None:
        """Read the prefix, or make it."""
        content = self._file.read_or_make(lambda: f"{PREFIX}{secrets.token_urlsafe(_TOKEN_BYTES)}\n".encode())
        prefix = content.decode("latin-1").strip()
        if _PATTERN.fullmatch(prefix) is None:
            raise StartError(
                f"{self._file.path} holds no prefix: restore it from a back-up, or delete it to have a new one made, "
                "which the api container has to be told then (poc_callback_url)"
            )
        self.prefix = prefix

    def is_before(self, target: bytes) -> bool:
        """Tell whether a request target begins with the prefix; how wrong it is does not show in the time it takes."""
        expected = f"{self.prefix}/".encode()
        return hmac.compare_digest(target[: len(expected)], expected)
