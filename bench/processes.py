"""The processes that are measured: on one core, apart from whoever measures."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.connections import CallbackConnection, Connection, WebSocketConnection

_START_SECONDS = 60.0
_HTTP_CONNECTIONS = 16
# Below those that Linux gives to connections.
_PORTS = range(20_000, 30_000)


def cores() -> frozenset[int]:
    """Return the cores that this process may use; none where the system does not tell."""
    return frozenset(os.sched_getaffinity(0)) if sys.platform == "linux" else frozenset()


_CORES = cores()
RECEIVERS_CORES = _CORES and frozenset({min(_CORES)})
SENDERS_CORES = _CORES - RECEIVERS_CORES or _CORES


@contextlib.contextmanager
def on(wanted: frozenset[int]) -> Iterator[None]:
    """Run the body of ``with``, and the processes that it starts, on these cores alone."""
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, wanted)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, all of its threads together; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0.0
    # The clock of another process, as clock_getcpuclockid makes it; /proc tells hundredths of a second only.
    return time.clock_gettime(~pid << 3 | 2)


def first_thread_seconds(pid: int) -> float:
    """Return the CPU time of a process's first thread so far, to the hundredth; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0.0
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Receiver:
    """A process that takes batches over ``connections``; ``with`` ends it."""

    def __init__(self, name: str, process: subprocess.Popen[str], connections: Sequence[Connection]) -> None:
        self.name = name
        self.connections = connections
        self._process = process
        self._working: Callable[[], Iterable[int]] = lambda: (process.pid,)

    @classmethod
    def client(cls, name: str, command: Sequence[str]) -> Receiver:
        """Start a client that connects to the WebSocket at the port in ``command``, where that says ``{port}``."""
        return cls._client(name, command, RECEIVERS_CORES)

    @classmethod
    def feeder(cls, name: str, command: Sequence[str], working: Callable[[], Iterable[int]]) -> Receiver:
        """Start a client that only hands on to the processes ``working``: it shares the sender's cores."""
        receiver = cls._client(name, command, SENDERS_CORES)
        receiver._working = working
        return receiver

    @classmethod
    def _client(cls, name: str, command: Sequence[str], cores: frozenset[int]) -> Receiver:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(_START_SECONDS)
            port = str(listening.getsockname()[1])
            process = _start([part.replace("{port}", port) for part in command], cores)
            try:
                return cls(name, process, [WebSocketConnection.accept(listening)])
            except BaseException:
                _end(process)
                raise

    @classmethod
    def server(cls, name: str, command: Sequence[str]) -> Receiver:
        """Start a server that prints the port and the path of its callbacks."""
        process = _start(command, RECEIVERS_CORES)
        try:
            assert process.stdout is not None
            port, path = process.stdout.readline().split()
            connections = [
                CallbackConnection(socket.create_connection(("127.0.0.1", int(port)), _START_SECONDS), path)
                for _ in range(_HTTP_CONNECTIONS)
            ]
        except BaseException:
            _end(process)
            raise
        return cls(name, process, connections)

    def cpu_seconds(self) -> float:
        """Return the CPU time so far of the processes that do the work."""
        return sum(map(cpu_seconds, self._working()))

    def first_thread_seconds(self) -> float:
        """Return the CPU time so far of the first thread of the process: in Python, the one with the reactor."""
        return first_thread_seconds(self._process.pid)

    def wait(self) -> None:
        """Wait until the process has ended by itself."""
        self._process.wait(_START_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        # First the process: it would complain that its connection is lost.
        _end(self._process)
        for connection in self.connections:
            connection.socket.close()


def _start(command: Sequence[str], cores: frozenset[int]) -> subprocess.Popen[str]:
    with on(cores):
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def free_port() -> int:
    """Return a port that no connection gets by chance, so that a process finds it free at each start."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("no port is free")


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """Make a folder for what is kept, on the disk of BENCH_DIR, and delete it in the end."""
    with tempfile.TemporaryDirectory(prefix="dapi-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        yield name
