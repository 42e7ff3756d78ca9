"""The world around dapi: a chain with two nodes, two ML nodes, and the disk; it remembers what it was promised."""

from __future__ import annotations

import base64
import random
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.failure import Failure

from dapi.broker.nodes import decode_node_config
from dapi.chain.keyring import SigningKey
from dapi.chain.rpc_answers import BlockInfo
from dapi.config import ChainNodeConfig
from dapi.errors import DapiError
from dapi.messages import ProofBatch, Receipt, ValidatedBatch, Via, content_id
from dapi.messages.addresses import address_of
from dapi.simulator.chain.blocks import Blockchain, Delivered
from dapi.simulator.chain.epochs import EpochParams, Epochs, Window
from dapi.simulator.chain.messages import SubmitPocBatch, SubmitPocValidation, SubmitSeed
from dapi.simulator.chain.node import ChainNode, Switches
from dapi.simulator.chain.rules import Rules
from dapi.simulator.chain.state import Account, ChainState, Model
from dapi.submission.rows import TYPE_URLS
from tests.chain_tools import Key
from tests.model.chain_host import ChainHost
from tests.model.network import Host, Way
from tests.model.node import ModelNode
from tests.model.process import Process
from tests.nodes import node_fields

CHAIN_ID, FIRST_POC = "gonka-model", 3
PARAMS = EpochParams(
    epoch_length=56,
    poc_stage_duration=30,
    poc_exchange_duration=4,
    poc_validation_delay=4,
    poc_validation_duration=14,
)
SECOND_NS = 10**9
BLOCK_SECONDS = 8
# The reactor turns so often at least.
STEP_SECONDS = 4.0
# How many blocks in a row without any fault bring a batch into a block at the latest. A transaction that a mempool has
# lost takes 60 s to be taken for lost, which is 8 blocks.
CALM_BLOCKS = 12
# Small enough that batches are cut into parts.
MAX_NONCES = 8
NODE_IDS = ("a", "b")


class Kept(msgspec.Struct):
    """A batch that was acknowledged: at which height, and the nonces of it that are in no block yet."""

    batch: ProofBatch
    height: int
    missing: set[int]


class World:
    """All of it, in ``folder``. ``seconds`` is the time that has passed; ``broken`` are the promises that were broken.

    ``calm_since`` is the height since which nothing was wrong; None: something is wrong now.
    """

    def __init__(self, folder: Path, params: EpochParams, seed: int) -> None:
        self.seconds = 0.0
        self.broken: list[str] = []
        self._random = random.Random(seed)
        self._path = str(folder / "dapi.db")
        self._look = f"{Path(self._path).absolute().as_uri()}?mode=ro"
        self._participant = Key(1)
        self._signer = SigningKey(b"\2" * 32)
        self.state = ChainState(CHAIN_ID, Epochs(FIRST_POC, params), Rules())
        self.chain = Blockchain(self.state, 1_700_000_000 * SECOND_NS)
        self._open_accounts()
        self.chain_hosts = [ChainHost(ChainNode(self.chain, self._random)) for _ in range(2)]
        self.nodes = {node_id: ModelNode(node_id) for node_id in NODE_IDS}
        self._hosts: dict[str, Host] = {f"chain{number}": host for number, host in enumerate(self.chain_hosts)}
        self._hosts |= {f"{node_id}.example": node for node_id, node in self.nodes.items()}
        self.has_events = True
        self.disk_failure: Exception | None = None
        self.kept: dict[str, Kept] = {}
        self.kept_verdicts: dict[tuple[int, str], int] = {}
        self.foreign: set[str] = set()
        self._ledger_read = 0
        self._nonces_in_blocks: set[tuple[int, int]] = set()
        self._verdicts_in_blocks: set[tuple[int, str]] = set()
        self._seeds_in_blocks: set[int] = set()
        self.calm_since: int | None = self.height
        self._troubled_until = 0
        self.lives = 0
        self._log = cast(ILogObserver, self._hear)
        globalLogPublisher.addObserver(self._log)
        self.process: Process | None = None
        process = self.start()
        for node_id in NODE_IDS:
            fields = node_fields(node_id, hardware=[{"type": "H100", "count": 8}], models={"m": {}})
            process.broker.add_node(decode_node_config(fields))
        self.block()

    def _open_accounts(self) -> None:
        signer = self._signer.address
        # Without its key on the chain, a participant is left out of what is validated.
        keys = {self._participant.address: self._participant.public, signer: None}
        for number, (address, public_key) in enumerate(keys.items(), start=1):
            self.state.accounts[address] = Account(address, number, public_key)
        self.state.participants[self._participant.address] = 1
        self.state.models["m"] = Model("m")
        self.set_grants(given=True)

    def set_grants(self, *, given: bool) -> None:
        """Give the signer the grants of the participant, or take them all away."""
        for url in TYPE_URLS.values():
            grant = (self._participant.address, self._signer.address, url)
            if given:
                self.state.grants[grant] = None
            elif grant in self.state.grants:
                del self.state.grants[grant]
        self.has_grants = given

    @property
    def height(self) -> int:
        return self.chain.latest.height

    # dapi's lives.

    def start(self) -> Process:
        """Start dapi on its database."""
        process = self.process = Process(
            self.seconds, self._path, self._config(), self._signer, self._hosts, self._random.randrange(2**32)
        )
        self.lives += 1
        process.database.failure = self.disk_failure
        process.turn()
        return process

    def _config(self) -> ChainNodeConfig:
        return ChainNodeConfig(
            url="http://chain0:26657,http://chain1:26657",
            account_public_key=base64.b64encode(self._participant.public).decode(),
            max_nonces_per_message=MAX_NONCES,
        )

    def bury(self) -> None:
        """Note that the process is dead, if it is."""
        if self.process is not None and not self.process.is_alive:
            # What is left of it is cleared away, which no kill does: nobody listens to what that says.
            globalLogPublisher.removeObserver(self._log)
            self.process.kill()
            globalLogPublisher.addObserver(self._log)
            self.process = None

    def disturb(self, blocks: int) -> None:
        """Note that something goes wrong; all is healed after so many blocks, unless more goes wrong meanwhile."""
        self.calm_since = None
        self._troubled_until = max(self._troubled_until, self.height + blocks)

    # Time.

    def pass_time(self, seconds: float) -> None:
        """Let time pass without a block."""
        end = self.seconds + seconds
        while self.seconds < end:
            step = min(STEP_SECONDS, end - self.seconds)
            self.seconds += step
            if self.process is not None:
                self.process.turn(step)
                self.bury()

    def block(self, seconds: float = BLOCK_SECONDS) -> None:
        """Make a block whose time is so much later, which is what passes, up to the time of a usual one."""
        self.pass_time(min(seconds, BLOCK_SECONDS))
        block = self.chain.produce_block(self.chain.latest.time_ns + round(seconds * SECOND_NS))
        event = self.state.confirmation
        if event is not None and event.generation_start_height == block.height:
            self.state.confirmation = msgspec.structs.replace(event, poc_seed_block_hash=block.hash.lower())
        for host in self.chain_hosts:
            while host.node.step() is not None:
                pass
        self._read_ledger()
        if self.has_events and self.process is not None:
            self.process.chain.events.tell(BlockInfo(CHAIN_ID, block.height, block.time_ns, block.hash))
        if self.process is not None:
            self.process.turn()
            self.bury()
        if self.height >= self._troubled_until and not self.is_calm:
            self.heal()
        self._note_calm()
        self._look_for_late()

    @property
    def is_calm(self) -> bool:
        """Whether nothing is wrong now."""
        ways = all(host.way is Way.OPEN for host in self._hosts.values())
        chain = all(not host.node.is_partitioned and host.node.switches == Switches() for host in self.chain_hosts)
        return ways and chain and self.has_grants and self.process is not None and self.disk_failure is None

    def heal(self) -> None:
        """End all that is wrong, and start dapi if it is dead."""
        for host in self._hosts.values():
            host.way = Way.OPEN
        for chain_host in self.chain_hosts:
            if chain_host.node.is_partitioned:
                chain_host.node.reconnect()
            chain_host.node.switches = Switches()
        self.has_events = True
        self.set_disk(None)
        self.set_grants(given=True)
        if self.process is None:
            self.start()

    def set_disk(self, failure: Exception | None) -> None:
        """Have every access to the database fail with this, or none any more."""
        self.disk_failure = failure
        if self.process is not None:
            self.process.database.failure = failure

    def _note_calm(self) -> None:
        if not self.is_calm:
            self.calm_since = None
        elif self.calm_since is None:
            self.calm_since = self.height

    # Batches.

    def make_and_deliver(self, nonces: int, via: Via) -> None:
        """Have each node that generates make a batch, and bring it."""
        for node_id, node in self.nodes.items():
            if node.is_generating:
                self.deliver(node_id, node.make(nonces), via)

    def deliver(self, node_id: str, batch: ProofBatch, via: Via, *, is_foreign: bool = False) -> None:
        """Bring a batch to dapi, over the node's connection or with its token."""
        batch_id = content_id(batch)
        if is_foreign:
            self.foreign.add(batch_id)
        if self.process is None or not self.process.broker.is_loaded:
            return
        receipt = self.process.handler(node_id).handle_generated_batch(batch, via)
        receipt.addCallbacks(partial(self._acknowledged, batch), self._refused)
        receipt.addErrback(self._note_failure)
        self.process.turn()
        self.bury()

    def bring_verdicts(self, via: Via) -> None:
        """Bring the verdicts on the latest that each node was given, those again that were brought before."""
        for node_id, node in self.nodes.items():
            for given in node.to_validate[-2:]:
                self._judge(node_id, node.judge(given), via)

    def _judge(self, node_id: str, verdict: ValidatedBatch, via: Via) -> None:
        if self.process is None or not self.process.broker.is_loaded:
            return
        receipt = self.process.handler(node_id).handle_validated_batch(verdict, via)
        receipt.addCallbacks(lambda receipt: self._verdict_acknowledged(verdict, receipt), self._refused)
        receipt.addErrback(self._note_failure)
        self.process.turn()
        self.bury()

    def _verdict_acknowledged(self, verdict: ValidatedBatch, receipt: Receipt) -> None:
        self._see_on_disk(receipt)
        self.kept_verdicts.setdefault((verdict.block_height, address_of(verdict.public_key)), self.height)

    def _acknowledged(self, batch: ProofBatch, receipt: Receipt) -> None:
        self._see_on_disk(receipt)
        batch_id = content_id(batch)
        if batch_id not in self.kept and batch_id not in self.foreign:
            nonces = {nonce for nonce in batch.nonces if (batch.block_height, nonce) not in self._nonces_in_blocks}
            self.kept[batch_id] = Kept(batch, self.height, nonces)

    def _refused(self, failure: Failure) -> None:
        failure.trap(DapiError)

    def _note_failure(self, failure: Failure) -> None:
        self.broken.append(f"a delivery fails: {failure.getErrorMessage()} {failure.getTraceback()}")

    def _see_on_disk(self, receipt: Receipt) -> None:
        if not self.on_disk("batch_id", "WHERE batch_id = ?", receipt.batch_id):
            self.broken.append(f"acknowledged, and not on disk: {receipt}")

    def on_disk(self, column: str, condition: str = "", *values: object) -> list[Any]:
        """Return a column of the messages on disk, as another program sees them."""
        connection = sqlite3.connect(self._look, uri=True)
        try:
            tables = [f"SELECT {column} FROM {table} {condition}" for table in ("unfinished", "finished")]
            return [row[0] for row in connection.execute(" UNION ALL ".join(tables), values * 2)]
        finally:
            connection.close()

    # Promises.

    def _read_ledger(self) -> None:
        """See what came into blocks since the last look."""
        ledger = self.chain.ledger
        for delivered in ledger[self._ledger_read :]:
            match delivered.message:
                case SubmitPocBatch() as batch:
                    self._see_batch(batch, delivered)
                case SubmitPocValidation() as verdict:
                    self._see_verdict(verdict, delivered)
                case SubmitSeed() as seed if delivered.code == 0:
                    self._note_once(self._seeds_in_blocks, seed.epoch_index, delivered)
        self._ledger_read = len(ledger)
        for kept in self.kept.values():
            height = kept.batch.block_height
            if kept.missing:
                kept.missing = {nonce for nonce in kept.missing if (height, nonce) not in self._nonces_in_blocks}

    def _see_batch(self, batch: SubmitPocBatch, delivered: Delivered) -> None:
        # A part's id is that of its batch, and which nonces it has.
        if batch.batch_id.partition("-")[0] in self.foreign:
            self.broken.append(f"a batch of no stage, or of another run, was sent: {delivered}")
        if delivered.code == 0:
            for nonce in batch.nonces:
                self._note_once(self._nonces_in_blocks, (batch.poc_stage_start_block_height, nonce), delivered)

    def _see_verdict(self, verdict: SubmitPocValidation, delivered: Delivered) -> None:
        about = (verdict.poc_stage_start_block_height, verdict.participant_address)
        given = [each for node in self.nodes.values() for each in node.to_validate]
        if about not in {(each["block_height"], address_of(each["public_key"])) for each in given}:
            self.broken.append(f"a verdict that nobody asked for was sent: {delivered}")
        if delivered.code == 0:
            self._note_once(self._verdicts_in_blocks, about, delivered)

    def _note_once(self, seen: set[Any], what: Any, delivered: Delivered) -> None:
        if what in seen:
            self.broken.append(f"twice in a block: {what}, the second time in {delivered}")
        seen.add(what)

    def _look_for_late(self) -> None:
        """See that what was kept for long enough, with nothing wrong, is in a block."""
        for batch_id, kept in self.kept.items():
            if kept.missing:
                height = kept.batch.block_height
                self._see_in_time(f"batch {batch_id}", kept.height, self._window(height, Epochs.batch_window))
        for about, height in self.kept_verdicts.items():
            if about not in self._verdicts_in_blocks:
                self._see_in_time(f"verdict {about}", height, self._window(about[0], Epochs.validation_window))

        epoch = self.state.epochs.after(self.height)
        if epoch.index and epoch.index not in self._seeds_in_blocks:
            self._see_in_time("the seed", epoch.start, self._window(epoch.start, Epochs.batch_window))

    @property
    def is_all_in_blocks(self) -> bool:
        """Whether nothing that was kept is waited for."""
        open_batches = [kept for kept in self.kept.values() if kept.missing]
        return not any(self._window(kept.batch.block_height, Epochs.batch_window) for kept in open_batches)

    def _see_in_time(self, what: str, height: int, window: Window | None) -> None:
        if self.calm_since is None or window is None:
            return
        calm_blocks = min(self.height, window.last) - max(height, self.calm_since, window.first)
        if calm_blocks >= CALM_BLOCKS:
            text = f"{what}, acknowledged at {height}, is in no block after {calm_blocks} calm ones, at {self.height}"
            self.broken.append(text)

    def _window(self, height: int, of_epoch: Callable[[Epochs, int], Window]) -> Window | None:
        """Return the window of a stage, None when there is no such stage any more."""
        event, epochs = self.state.confirmation, self.state.epochs
        if event is not None and height == event.trigger_height:
            is_batch = of_epoch is Epochs.batch_window
            return event.batch_window(epochs.params) if is_batch else event.validation_window(epochs.params)
        epoch = epochs.after(self.height)
        return of_epoch(epochs, epoch.start) if epoch.index and height == epoch.start else None

    def _hear(self, event: dict[str, Any]) -> None:
        """No fault of the other sides, and no kill, makes a line of dapi that tells of a defect."""
        failure = event.get("log_failure")
        if failure is not None:
            self.broken.append(f"logged as a defect: {failure.getTraceback()}")

    def end(self) -> None:
        """Forget all of it."""
        globalLogPublisher.removeObserver(self._log)
        if self.process is not None:
            self.process.kill()
