"""A PostgreSQL of its own for ``bench.against_go``: a new cluster in a folder, as it is set up by default."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.processes import RECEIVERS_CORES, on

_START_SECONDS = 60.0


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None where it is not installed."""
    found = shutil.which("postgres")
    folder = Path(found).resolve().parent if found else None
    return folder if folder is not None and (folder / "initdb").exists() else None


class Postgres:
    """A server on the receivers' core, reached by a socket in its folder alone; ``with`` ends it."""

    def __init__(self, where: Path) -> None:
        installed = programs()
        if installed is None:
            raise RuntimeError("PostgreSQL is not installed")
        self._folder = where / "postgres"
        self._folder.mkdir(mode=0o700)
        # PostgreSQL refuses to run as root.
        user = "postgres" if os.getuid() == 0 else None
        if user is not None:
            shutil.chown(self._folder, user, user)
            where.chmod(0o711)
        data = self._folder / "data"
        initdb: list[str | Path] = [
            installed / "initdb",
            "--auth=trust",
            "--username=bench",
            "--encoding=UTF8",
            "--no-sync",
            data,
        ]
        subprocess.run(initdb, user=user, cwd=self._folder, check=True, capture_output=True)
        server: list[str | Path] = [installed / "postgres", "-D", data, "-k", self._folder, "-c", "listen_addresses="]
        with on(RECEIVERS_CORES), (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(server, user=user, cwd=self._folder, stdout=log, stderr=log)
        try:
            self._wait(installed)
        except BaseException:
            self._process.kill()
            raise

    @property
    def address(self) -> str:
        """What a client connects to."""
        return f"host={self._folder} user=bench dbname=postgres sslmode=disable"

    def pids(self) -> Iterable[int]:
        """Return the server's processes."""
        pid = self._process.pid
        return (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def _wait(self, installed: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        is_ready: list[str | Path] = [installed / "pg_isready", "-q", "-h", self._folder]
        while subprocess.run(is_ready, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start:\n{(self._folder / 'log').read_text()}")
            # PostgreSQL tells it only when asked: pg_ctl --wait asks again and again, too.
            time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        # Without a checkpoint: the folder is deleted.
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
