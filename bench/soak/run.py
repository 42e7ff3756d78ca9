"""One soak: chain and nodes in this process, dapi in another, from the first block to the account."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import treq
import yaml
from coincurve import PrivateKey
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.client import Agent

from bench.soak.account import Account, Acknowledged, Block, Facts, Stage, alike, key_of
from bench.soak.faults import Faults, is_refused
from bench.soak.growth import Use, use_of
from bench.soak.neighbour import Neighbour, show_key
from bench.soak.settings import REAL_BLOCK_SECONDS, SoakSettings
from dapi.simulator.chain.blocks import TxRecord
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import Window
from dapi.simulator.chain.messages import HostMessage, SubmitPocBatch
from dapi.simulator.ml_node.node import SimulatedMLNode
from dapi.simulator.ml_node.settings import MLNodeSettings, scaled_settings

# Keys that are worth nothing: the participant's, the one that it granted, and the neighbour's.
_SECRETS = {"participant": b"\1" * 32, "signer": b"\2" * 32, "neighbour": b"\3" * 32}
_LISTENING = re.compile(rb"admin: listening on 127\.0\.0\.1:(\d+)\n")
_INDEX = re.compile(r"message index: (\d+)")
_START_SECONDS = _STOP_SECONDS = 60.0


class SoakFailed(Exception):  # noqa: N818
    """The soak could not be run to its end."""


class DapiProcess(ProcessProtocol):
    """dapi; ``listening`` fires with the URL of its admin API, ``ended`` with its exit code."""

    transport: Any

    def __init__(self, log: Any) -> None:
        self.listening: Deferred[str] = Deferred()
        self.ended: Deferred[int] = Deferred()
        self._log = log
        self._head = b""

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        """Keep the log, and look for the line that says where it listens."""
        self._log.write(data)
        if not self.listening.called:
            self._head += data
            if found := _LISTENING.search(self._head):
                self.listening.callback(f"http://127.0.0.1:{int(found[1])}")

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        """Tell the exit code."""
        end: Any = reason.value
        if not self.listening.called:
            self.listening.errback(SoakFailed("dapi ended before it listened"))
        self.ended.callback(-end.signal if end.exitCode is None else end.exitCode)

    def signal(self, name: str) -> None:
        """Send a signal, if it still runs."""
        if not self.ended.called:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(name)


class Soak:
    """The chain with two nodes, the ML nodes, and dapi; ``folder`` is where dapi keeps its files.

    ``uses`` is what dapi had after each epoch.
    """

    def __init__(self, reactor: Any, settings: SoakSettings, folder: Path) -> None:
        self._reactor = reactor
        self._settings = settings
        self._folder = folder
        self._blocks: dict[int, Block] = {}
        self._refused: dict[int, str] = {}
        self._seeds: dict[int, int] = {}
        self._owed: dict[int, int] = {}
        self._paid: dict[int, int] = {}
        self._stale: dict[int, str] = {}
        self._last_balance = 0
        self._random = random.Random(settings.seed)
        self._keys = {name: PrivateKey(secret) for name, secret in _SECRETS.items()}
        self._chain = SimulatedChain(
            reactor,
            random.Random(settings.seed),
            epochs=settings.time_epochs,
            block_seconds=settings.block_seconds,
            block_time_seconds=REAL_BLOCK_SECONDS,
        )
        self._chain.is_halted = True
        self._chain.add_node()
        public = {name: key.public_key.format() for name, key in self._keys.items()}
        self._participant = self._chain.add_account(public["participant"], genesis_weight=0).address
        show_key(self._chain, self._participant, public["participant"])
        del self._chain.state.participants[self._chain.add_account(public["signer"], genesis_weight=0).address]
        self._neighbour = Neighbour(self._chain, self._participant, _SECRETS["neighbour"])
        for node in self._chain.nodes:
            node.switches.is_indexing_off = settings.is_index_off
        signer = next(a for a in self._chain.state.accounts if a not in self._chain.state.participants)
        self.faults = Faults(reactor, settings, self._chain, self._participant, signer)
        self._nodes = [self._make_node(number) for number in range(1, settings.nodes + 1)]
        self._dapi: DapiProcess | None = None
        self.uses: list[Use] = []

    def _make_node(self, number: int) -> SimulatedMLNode:
        settings, random_source = self._settings, random.Random(f"{self._settings.seed}/{number}")
        node_settings: MLNodeSettings = scaled_settings(
            min(1.0, settings.batch_seconds / REAL_BLOCK_SECONDS),
            # How long an answer takes depends on this machine, not on the factor.
            ack_wait_seconds=3.0,
            silence_seconds=20.0,
            ping_seconds=20.0,
            send_seconds=5.0,
            nonces_per_batch=settings.nonces,
            websocket=number > settings.http_nodes,
            change_batch=self._make_stale,
        )
        node_settings.walk_seconds = settings.batch_seconds
        return SimulatedMLNode(
            self._reactor, random_source, name=f"node{number}", settings=node_settings, remembered=1_000_000
        )

    def _make_stale(self, batch: dict[str, Any]) -> dict[str, Any]:
        wrong = self.faults.stale_height(batch["block_height"], batch["nonces"][0])
        if wrong is None:
            return batch
        name = "of no stage" if wrong == batch["block_height"] - 1 else "of the stage before"
        self._stale[key_of(wrong, batch["nonces"], batch["dist"])] = name
        return {**batch, "block_height": wrong}

    async def run(self) -> tuple[Account, dict[str, float], list[str]]:
        """Run to the end; return the account, what dapi measured of itself, and what dapi says."""
        self._chain.startService()
        for node in self._nodes:
            node.startService()
        dapi_log, journal = self._folder / "dapi.log", self._folder / "faults.log"
        with dapi_log.open("wb", buffering=0) as log, journal.open("w", encoding="utf-8") as faults:
            try:
                return await self._run_dapi(log, faults)
            finally:
                await self._stop()

    async def _run_dapi(self, log: Any, journal: TextIO) -> tuple[Account, dict[str, float], list[str]]:
        measured = self._folder / "measured.json"
        dapi = self._dapi = DapiProcess(log)
        command = [sys.executable, "-m", "bench.soak.dapi", str(self._write_config()), str(measured)]
        self._reactor.spawnProcess(dapi, sys.executable, command, env=os.environ, path=os.getcwd())
        admin = await dapi.listening.addTimeout(_START_SECONDS, self._reactor)
        self._chain.is_halted = False
        watched = Deferred.fromCoroutine(self._follow(journal))
        dapi.ended.addCallback(_after(watched.cancel))
        try:
            await watched.addTimeout(2 * self._settings.expected_seconds + 60, self._reactor)
        except CancelledError:
            raise SoakFailed(f"dapi ended by itself; see {log.name}") from None
        except DeferredTimeoutError:
            raise SoakFailed(f"the chain is only at block {self._chain.height}: this machine is too slow") from None
        said = await self._ask(admin)
        dapi.signal("TERM")
        code = await dapi.ended.addTimeout(_STOP_SECONDS, self._reactor)
        if code:
            raise SoakFailed(f"dapi ended with {code}; see {log.name}")
        return Account(self._facts()), json.loads(measured.read_text()), said

    async def _stop(self) -> None:
        if self._dapi is not None and not self._dapi.ended.called:
            self._dapi.signal("KILL")
            await self._dapi.ended
        await gatherResults([node.stopService() for node in self._nodes])
        await self._chain.stopService()

    def _write_config(self) -> Path:
        key_file, config = self._folder / "key", self._folder / "config.yaml"
        key_file.touch(mode=0o600)
        key_file.write_text(_SECRETS["signer"].hex())
        public_key = base64.b64encode(self._keys["participant"].public_key.format()).decode()
        tree = {
            "api": dict.fromkeys(("ml_server_host", "admin_server_host"), "127.0.0.1")
            | dict.fromkeys(("ml_server_port", "admin_server_port"), 0),
            "chain_node": {
                "url": ",".join(node.url for node in self._chain.nodes),
                "key_file": str(key_file),
                "account_public_key": public_key,
            },
            "storage": {"path": str(self._folder / "outbox.db"), "reserve_bytes": 8 * 2**20},
            "poc": {"network": "test"},
            "nodes": [
                {
                    "id": node.node_name,
                    "host": "127.0.0.1",
                    "poc_port": node.port,
                    "inference_port": node.port,
                    "models": {"simulated": {"args": []}},
                }
                for node in self._nodes
            ],
        }
        config.write_text(yaml.safe_dump(tree))
        return config

    async def _follow(self, journal: TextIO) -> None:
        """Record each block, and do after it what is planned, until the last one."""
        while self._chain.height < self._settings.last_height:
            height = await self._chain.when_height(self._chain.height + 1)
            self._record(height)
            self._neighbour.block_made(height)
            self._measure(height)
            for fault in self.faults.block_made(height):
                print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}+0000 block {height}: {fault}", file=journal, flush=True)

    def _measure(self, height: int) -> None:
        """See what dapi has in the last block before each next PoC."""
        if self._dapi is None or height + 1 not in self._settings.starts[1:]:
            return
        use = use_of(self._dapi.transport.pid, height)
        if use is not None:
            self.uses.append(use)

    def _record(self, height: int) -> None:
        records = self._chain.blockchain.latest.records
        failed = Counter(f"{record.codespace} {record.code}: {_short(record.log)}" for record in records if record.code)
        self._blocks[height] = Block(
            self._reactor.seconds(),
            self.faults.has_grant,
            transactions=len(records),
            messages=sum(1 for record in records if not record.code for _ in record.tx.host_messages()),
            failed=failed,
            size=sum(len(record.tx.raw) for record in records),
        )
        for record in records:
            if record.code:
                self._record_failure(record)
        state = self._chain.state
        for index in range(1, self._settings.epochs + 2):
            if (index, self._participant) in state.seeds:
                self._seeds.setdefault(index, height)
        owed, balance = state.settle_amounts.get(self._participant), state.balances.get(self._participant, 0)
        if owed is not None:
            self._owed[owed.epoch_index] = owed.reward_coins
        if balance > self._last_balance:
            self._paid[state.epochs.effective_at(height) - 1] = balance - self._last_balance
            self._last_balance = balance

    def _record_failure(self, record: TxRecord) -> None:
        """Remember the code of the batch that a failed transaction is about, where it says which one that is."""
        batch = _culprit(record)
        if isinstance(batch, SubmitPocBatch):
            key = key_of(batch.poc_stage_start_block_height, batch.nonces, batch.dist)
            self._refused[key] = f"{record.codespace} {record.code}: {_short(record.log)}"

    async def _ask(self, admin: str) -> list[str]:
        """Return what dapi says of itself, for comparison only."""
        try:
            answer = await treq.get(f"{admin}/admin/v1/status", agent=Agent(self._reactor), timeout=10)
            status = await treq.json_content(answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, the account does not need it
            return [f"no status: {error!r}"]
        chain = status["chain"]
        lines = [f"batches {status['batches']}", f"state {chain['state']}, reason {chain['reason']}"]
        problems = Counter(alike(f"problem: {each['problem']}") for each in status["problems"])
        return [*lines, *(f"{problem} ({count} of them)" for problem, count in problems.most_common(5))]

    def _facts(self) -> Facts:
        state, settings = self._chain.state, self._settings
        acknowledged, undelivered = [], 0
        fraction = settings.stale_fraction / 2 if "stale" in settings.faults else 0.0
        for node in self._nodes:
            for entry in node.ledger.batches:
                if entry.kind != "generated":
                    continue
                if entry.delivered_at is None:
                    undelivered += 1
                    continue
                height, nonces = entry.batch["block_height"], entry.batch["nonces"]
                key = key_of(height, nonces, entry.batch["dist"])
                refused = "refused by the chain" if is_refused(height, nonces[0], fraction) else None
                stale = self._stale.get(key) or refused
                acknowledged.append(Acknowledged(key, height, entry.delivered_at, str(entry.delivered_via), stale))
        stored = {
            key_of(height, batch.message.nonces, batch.message.dist): batch.received_at_height
            for (height, creator, _), batch in state.batches.items()
            if creator == self._participant
        }
        return Facts(
            acknowledged=acknowledged,
            blocks=self._blocks,
            stages=[self._stage(index, start) for index, start in enumerate(settings.starts, start=1)],
            stored=stored,
            refused=self._refused,
            doubled=len(self._chain.blockchain.doubles()) + len(state.doubled_nonces()),
            chances_needed=settings.chances,
            undelivered=undelivered,
        )

    def _stage(self, index: int, start: int) -> Stage:
        epochs, state = self._chain.state.epochs, self._chain.state
        return Stage(
            index,
            start,
            batches=epochs.batch_window(start),
            seed=Window(start + 1, epochs.validation_window(start).last),
            claims=self._settings.claim_window(index) if index <= self._settings.epochs else None,
            seed_height=self._seeds.get(index),
            has_verdict=(start, self._neighbour.address, self._participant) in state.validations,
            owed=self._owed.get(index),
            paid=self._paid.get(index),
        )


def _short(log: str) -> str:
    """Return the end of a long log, which says what is wrong, without the messages that the rest of it quotes."""
    parts = [
        part for part in log.split(": ") if not part.startswith("failed to execute message") and not part.isdigit()
    ]
    return ": ".join(parts[-2:]) if len(log) > 120 else log


def _culprit(record: TxRecord) -> HostMessage | None:
    """Return the message that made a transaction fail: the one of the index in the log, or the only one."""
    found = _INDEX.search(record.log)
    messages = [granted or (message,) for message, granted in zip(record.tx.messages, record.tx.granted, strict=True)]
    named = messages[int(found[1])] if found is not None else [each for some in messages for each in some]
    message = named[0] if len(named) == 1 else None
    return message if isinstance(message, HostMessage) else None


def _after(act: Callable[[], object]) -> Callable[[int], int]:
    """Return a callback that acts, and passes on what it was given."""

    def callback(value: int) -> int:
        act()
        return value

    return callback
