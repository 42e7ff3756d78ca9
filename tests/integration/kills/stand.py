"""All processes of the test, and what their journals say together."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults

from tests.integration.kills.chain_process import SECRET, KeptChain
from tests.integration.kills.journal import Reader
from tests.integration.ports import free_port
from tests.integration.processes import WatchedProcess
from tests.integration.twistd_process import Run, Twistd, admin_port, post
from tests.integration.waiting import until

reactor: Any = global_reactor
PATIENCE_SECONDS = 120
NODES = ("node1", "node2")
_WITHOUT_WEBSOCKET = ("node2",)
# Blocks come fast while nothing is away, and about as slowly, to a process that starts, as those of the real chain.
FAST, SLOW = 0.06, 2.0
_HELD = 3600.0


class Stand:
    """A chain, two nodes and dapi, each a process; ``counts`` are the batches that nodes made and had acknowledged."""

    def __init__(self, folder: Path, twistd: Run) -> None:
        self.folder = folder
        self._twistd = twistd
        self._ports = {name: free_port() for name in (*NODES, "chain", "admin", "callbacks")}
        self._running: dict[str, WatchedProcess] = {}
        self._readers = {name: Reader(folder / name) for name in NODES}
        self.counts: Counter[str] = Counter()
        # By stage: ids of batches, and how many verdicts.
        self.acknowledged: dict[int, set[str]] = {}
        self.verdicts: Counter[int] = Counter()
        # What each node has made and not delivered in its present life.
        self.undelivered: Counter[str] = Counter()
        self.pace(_HELD)
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_text(SECRET.hex())
        self.chain: KeptChain

    # The processes.

    def pace(self, seconds: float) -> None:
        """Have a block come each so many seconds from now on."""
        new = self.folder / "pace.new"
        new.write_text(str(seconds))
        new.replace(self.folder / "pace")

    def be_quiet(self, wanted: bool) -> None:
        """Have the nodes generate nothing, or go on."""
        (self.folder / "quiet").touch() if wanted else (self.folder / "quiet").unlink(missing_ok=True)

    async def start_all(self) -> None:
        """Start the chain, the nodes and dapi, and make the nodes known."""
        await gatherResults([self.start(name) for name in ("chain", *NODES)])
        self.chain = KeptChain(reactor, self.folder, lambda: 0)
        await self.start("dapi")
        for name in NODES:
            ports = {"poc_port": self._ports[name], "inference_port": self._ports[name]}
            node = {"id": name, "host": "127.0.0.1", "models": {"simulated": {"args": []}}, **ports}
            await post(self.admin_port, "/admin/v1/nodes", node)

    @property
    def admin_port(self) -> int:
        """Where dapi's admin API is."""
        return self._ports["admin"]

    def start(self, name: str) -> Deferred[Any]:
        """Start one; the Deferred fires when it listens."""
        if name == "dapi":
            dapi = self._running[name] = self._start_dapi()
            return Deferred.fromCoroutine(admin_port(dapi))
        module = "chain_process" if name == "chain" else "node_process"
        names = () if name == "chain" else (name,)
        more = ("no-websocket",) if name in _WITHOUT_WEBSOCKET else ()
        arguments = (str(self.folder), *names, str(self._ports[name]), *more)
        process = self._running[name] = WatchedProcess()
        command = [sys.executable, "-m", f"tests.integration.kills.{module}", *arguments]
        reactor.spawnProcess(process, sys.executable, command, env=os.environ, path=os.getcwd())
        return process.when_written(r"listening on \d+")

    def _start_dapi(self) -> Twistd:
        environ = {"DAPI_CHAIN_NODE__KEY_FILE": str(self.folder / "key"), "DAPI_POC__NETWORK": "test"}
        url = f"http://127.0.0.1:{self._ports['chain']}"
        ports = {"admin_port": self._ports["admin"], "callback_port": self._ports["callbacks"]}
        return self._twistd("--chain-url", url, environ=environ, **ports)

    async def kill(self, name: str) -> None:
        """Kill one with -9."""
        assert await self._running[name].kill() == -9

    async def stop_dapi(self) -> None:
        """Have dapi stop by SIGTERM, by which twistd ends itself once all is stopped."""
        self._running["dapi"].signal("TERM")
        assert await self._running["dapi"].when_ended() == -15

    async def when_killed_itself(self, name: str) -> None:
        """Have the chain kill itself after a check and before the block, or a node while it delivers."""
        (self.folder / ("die" if name == "chain" else f"die-{name}")).touch()
        assert await self._running[name].when_ended() == -9

    async def end(self) -> None:
        """Kill all."""
        for process in self._running.values():
            await process.kill()

    # What the journals say.

    @property
    def height(self) -> int:
        """The latest block's height."""
        return self.chain.simulated.height

    def look(self) -> None:
        """Read what is new in all journals."""
        for name, reader in self._readers.items():
            for record in reader.new():
                self._note(name, record)
        self.chain.catch_up()

    def _note(self, name: str, record: dict[str, Any]) -> None:
        if record["event"] == "started":
            self.undelivered[name] = 0
            return
        self.counts[f"{record['kind']} {record['event']}"] += 1
        self.undelivered[name] += 1 if record["event"] == "made" else -1
        if record["event"] == "delivered" and record["kind"] == "generated":
            self.acknowledged.setdefault(record["height"], set()).add(record["id"])
        elif record["event"] == "delivered":
            self.verdicts[record["height"]] += 1

    def in_blocks(self, stage: int) -> set[str]:
        """Return the ids of the batches of a stage that are in blocks."""
        return {batch_id for height, _, batch_id in self.chain.simulated.state.batches if height == stage}

    def has_verdict(self, stage: int) -> bool:
        """Whether the chain has the participant's verdict on itself: there is nobody else."""
        own = self.chain.participant
        return (stage, own, own) in self.chain.simulated.state.validations

    async def when_height(self, height: int) -> None:
        """Wait until the chain has so many blocks."""
        await self.when(lambda: self.height >= height)

    async def when(self, is_so: Callable[[], bool]) -> None:
        """Wait until the journals say so."""

        def look() -> bool:
            self.look()
            return is_so()

        await until(look, PATIENCE_SECONDS)
