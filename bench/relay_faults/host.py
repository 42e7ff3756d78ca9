"""A host: its api container, three nodes, a network that can be cut, and dapi or none."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from bench.processes import free_port
from bench.relay_faults.proxy import CutProxy
from dapi.messages.sizes import MIB
from dapi.simulator.api.api import ApiState, SimulatedApi
from dapi.simulator.api.settings import MODEL, START, ApiSettings
from dapi.simulator.api.stages import Durations, Stage
from dapi.simulator.vllm.sender import SimulatedVllm, callback_path
from dapi.simulator.vllm.settings import SenderSettings

NODES = (1, 2, 3)
ARTIFACTS_PER_SECOND = 60.0
DISK_BYTES = 64 * MIB
_TWISTD = str(Path(sys.executable).parent / "twistd")
_LISTENING = re.compile(r"callbacks: listening on")


class RecordingApi(SimulatedApi):
    """Remembers which nonces were in the last commit."""

    def __init__(self, reactor: Any, settings: ApiSettings) -> None:
        super().__init__(reactor, settings, nodes=dict.fromkeys(NODES, MODEL))
        self.in_last_commit: frozenset[int] = frozenset()

    def align(self, seconds: float) -> None:
        """Flush in so many seconds, and each 5 s after that: when the last one is makes a difference of 5 %."""
        self._reactor.callLater(seconds, self._flushing.reset)

    def flush(self) -> None:
        """Flush, and remember what a commit was made of."""
        before = self.committed(START, MODEL)
        super().flush()
        if (count := self.committed(START, MODEL)) > before:
            self.in_last_commit = frozenset(list(self.artifacts[START, MODEL].flushed)[:count])


class DapiProcess(ProcessProtocol):
    """``twistd dapi``; ``is_up`` once its callback port is open."""

    def __init__(self) -> None:
        self.output = ""
        self.is_up = False
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        """Look for the line that says that it listens."""
        self.output = (self.output + data.decode("utf-8", "replace"))[-200_000:]
        self.is_up = self.is_up or _LISTENING.search(self.output) is not None

    errReceived = outReceived  # noqa: N815

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        """Tell that it has ended."""
        self.is_up = False
        if not reason.check(ProcessDone):
            self.output += f"\nended: {reason.getErrorMessage()}"
        self.ended.callback(None)


class Host:
    """Nodes post over ``network`` to dapi, or to the container where ``folder`` is None; dapi over ``behind``.

    ``answered`` are the nonces that were answered with 200, with the time since the stage began, ``digests`` the bodies
    that nodes made. With ``has_small_disk`` dapi's folder is a file system of its own.
    """

    def __init__(
        self, reactor: Any, blocks: int, folder: Path | None, api: ApiSettings, *, has_small_disk: bool = False
    ) -> None:
        self._reactor = reactor
        self.stage = Stage(START, Durations(poc_stage_duration=blocks))
        self.api = RecordingApi(reactor, api)
        self.api.stage, self.api.height = self.stage, START - 1
        self.folder = folder
        self.has_small_disk = has_small_disk
        self.answered: list[tuple[float, Sequence[int]]] = []
        self.digests: set[bytes] = set()
        self.senders: list[SimulatedVllm] = []
        self._began = 0.0
        self._behind: list[CutProxy] = []
        self._port = 0

    async def start(self) -> None:
        """Start all but the nodes; returns when callbacks can come."""
        self.api.startService()
        urls = (self.api.callback_url, self.api.public_url, self.api.admin_url)
        ports = [int(url.rpartition(":")[2]) for url in urls]
        if self.folder is None:
            self.network = CutProxy(self._reactor, ports[0])
            self._prefix = ""
        else:
            self._behind = [CutProxy(self._reactor, port) for port in ports]
            self._port = free_port()
            self.network = CutProxy(self._reactor, self._port)
            self.spawn()
            await self.when_up()
            self._prefix = (self.dapi_folder / "outbox.db-relay.prefix").read_text().strip()
        while self.api.state is not ApiState.RUNNING:
            await deferLater(self._reactor, 0.05)

    @property
    def dapi_folder(self) -> Path:
        """Where dapi's database is, as this process sees it."""
        assert self.folder is not None
        if not self.has_small_disk:
            return self.folder
        return Path(f"/proc/{self._transport.pid}/root{self.folder}")

    def spawn(self) -> None:
        """Start dapi."""
        assert self.folder is not None
        urls = [f"http://127.0.0.1:{proxy.port}" for proxy in self._behind]
        environ = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG") if name in os.environ},
            "DAPI_POC_V2__RELAY": "true",
            "DAPI_POC_V2__API_URL": urls[0],
            "DAPI_POC_V2__API_PUBLIC_URL": urls[1],
            "DAPI_POC_V2__API_ADMIN_URL": urls[2],
            "DAPI_STORAGE__RESERVE_BYTES": str(8 * MIB),
        }
        database = str(self.folder / "outbox.db")
        command = [_TWISTD, "-n", "-l", "-", "--pidfile", "", "dapi", "--database", database]
        command += ["--callback-host", "127.0.0.1", "--callback-port", str(self._port), "--admin-port", "0"]
        if self.has_small_disk:
            mount = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && exec "$@"'
            command = ["unshare", "-rm", "sh", "-c", mount, str(self.folder), *command]
        self.process = DapiProcess()
        self._transport = self._reactor.spawnProcess(self.process, command[0], command, env=environ, path=None)

    async def when_up(self) -> None:
        """Wait until dapi's callback port is open."""
        while not self.process.is_up:
            assert not self.process.ended.called, self.process.output[-2000:]
            await deferLater(self._reactor, 0.05)

    async def kill_dapi(self) -> None:
        """Kill dapi at once, and wait until it is gone."""
        self._transport.signalProcess("KILL")
        await self.process.ended

    def generate(self, flush_after_seconds: float) -> None:
        """Have the nodes begin, and the container flush after so many seconds for the first time."""
        self._began = self._reactor.seconds()
        self.api.align(flush_after_seconds)
        base = f"http://127.0.0.1:{self.network.port}{self._prefix}"
        settings = SenderSettings(artifacts_per_second=ARTIFACTS_PER_SECOND)
        for number in NODES:
            sender = SimulatedVllm(
                self._reactor,
                base,
                node_num=number,
                node_count=len(NODES) + 1,
                model=MODEL,
                settings=settings,
                on_made=lambda body: self.digests.add(hashlib.sha256(body).digest()),
                on_delivered=lambda nonces: self.answered.append((self._reactor.seconds() - self._began, nonces)),
            )
            self.senders.append(sender)
            sender.generate(START)

    def cut(self) -> None:
        """Cut the network between dapi and the container, without dapi that between the nodes and the container."""
        for proxy in self._behind or [self.network]:
            proxy.cut()

    def mend(self) -> None:
        """Mend what ``cut`` has cut."""
        for proxy in self._behind or [self.network]:
            proxy.mend()

    @property
    def made(self) -> int:
        """How many artifacts the nodes have made."""
        return sum(sender.counts.made for sender in self.senders)

    def answered_until(self, seconds: float) -> set[int]:
        """Return the nonces that were answered with 200 by then, in seconds since the stage began."""
        return {nonce for at, nonces in self.answered if at <= seconds for nonce in nonces}

    def strangers(self) -> int:
        """Return how many posts came to the container that no node made, or below another path."""
        path = callback_path(MODEL, "generated").encode()
        return sum(post.target != path or post.digest not in self.digests for post in self.api.posts)

    async def stop(self) -> None:
        """Stop all of it."""
        await gatherResults([sender.stop() for sender in self.senders])
        if self.folder is not None and not self.process.ended.called:
            await self.kill_dapi()
        await gatherResults([proxy.close() for proxy in (self.network, *self._behind)])
        if self.api.running:
            await self.api.stopService()
