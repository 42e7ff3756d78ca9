"""A file of headers that go along with each request to a server, such as the password for a proxy before it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any, Final

from dapi.errors import ConfigError
from dapi.timing.pool_thread import PoolThread

_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e]([\t -~]*[\x21-\x7e])?)")
_MAX_BYTES = 16_384
# They say how the request is read, which is not the operator's to decide.
_REFUSED: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "cookie"}
)


class HeadersFile:
    """The headers in the file at ``path``, one ``Name: value`` a line; only its owner may read it.

    It is read for each request, so it may be replaced at any time. What is in it is never shown.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser()

    async def read_on_thread(self, reactor: Any) -> dict[str, str]:
        """Do what ``read`` does on a thread of the reactor's pool: a disk may hang."""
        return await PoolThread(reactor).run(self.read)

    def read(self) -> dict[str, str]:
        """Return the headers; raise ConfigError, which does not quote them, when they cannot be used."""
        try:
            mode = stat.S_IMODE(os.stat(self._path).st_mode)
            content = self._path.read_bytes()
        except OSError as error:
            raise ConfigError(f"headers_file {self._path} cannot be read: {error.strerror}") from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"headers_file {self._path} can be read by others: chmod 600 it")
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"headers_file {self._path} has more than {_MAX_BYTES} bytes")
        found = {}
        for number, line in enumerate(content.decode("latin-1").splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            header = _LINE.fullmatch(line.strip())
            if header is None:
                raise ConfigError(f"headers_file {self._path}: line {number} is no header: 'Name: value' is needed")
            if header[1].lower() in _REFUSED or header[1].lower().startswith("sec-websocket-"):
                raise ConfigError(f"headers_file {self._path}: line {number}: {header[1]} is set by dapi itself")
            found[header[1]] = header[2]
        return found
