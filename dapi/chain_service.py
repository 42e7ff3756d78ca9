"""The part of the assembly that talks to the chain: it signs and submits, and has the nodes follow the phases."""

from __future__ import annotations

import base64
import hashlib
import random as random_module
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.broker.broker import Broker
from dapi.broker.reconciler import Reconciler
from dapi.chain.block_events import BlockEvents
from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.clock_offset import ClockOffset
from dapi.chain.keyring import SigningKey, load_signing_key, load_signing_key_file
from dapi.chain.nodes import ChainNodes
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import ChainStatus
from dapi.config import ChainNodeConfig
from dapi.database import Database
from dapi.errors import ConfigError, StoreError
from dapi.messages import Kind
from dapi.messages.addresses import address_of
from dapi.mlnode.arguments import NetworkArguments
from dapi.mlnode.client import NetworkVersion
from dapi.orchestration.claims import Claiming
from dapi.orchestration.conductor import Conductor
from dapi.orchestration.counting import Counting
from dapi.orchestration.hardware import Declaring
from dapi.orchestration.host import Host
from dapi.orchestration.model_arguments import ArgumentsFollowing
from dapi.orchestration.node_version import VersionFollowing
from dapi.orchestration.phase_status import PhaseStatus
from dapi.orchestration.samples import query_samples
from dapi.orchestration.seed import Seeds
from dapi.orchestration.stages import StageBook
from dapi.orchestration.validation import StageValidation, ValidationTools
from dapi.outbox.comparison import Comparison
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import Outbox
from dapi.phases.poc_version import PocVersion
from dapi.submission.chain_identity import ChainIdentity
from dapi.submission.deadlines import Deadlines
from dapi.submission.settings import SubmitterSettings
from dapi.submission.submissions import Submissions
from dapi.submission.submitter import Submitter
from dapi.timing.retry import RetryDelay, retry

# All batches of a stage come in one answer, of gigabytes on a large network, which the chain first has to put together.
_LARGE_ANSWER_SECONDS = 60.0


class ChainService(MultiService):
    """Follows the chain, submits to it with ``key``, and conducts the nodes, unless ``comparison`` is None.

    ``on_another_chain`` is called with the reason when the chain is another one than it was since the start: then all
    parts of dapi have to be made anew, because they remember the old one. It may be called again. A chain that is
    another one from the start on is followed after a minute, with ``takes_other_at_once`` at once.

    Stopping fires when none of it is left on the reactor; what is under way is on disk, and is taken up again.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: ChainNodeConfig,
        key: SigningKey,
        *,
        database: Database,
        outbox: Outbox,
        recorder: CosmosMessageClient,
        comparison: Comparison | None,
        broker: Broker,
        random: random_module.Random,
        network_version: NetworkVersion,
        network_arguments: NetworkArguments,
        on_another_chain: Callable[[str], object],
        takes_other_at_once: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._random = random
        self._public_key = _participant_key(config, key).hex()
        urls = str(config.url).split(",")
        self._rpc, self._patient_rpc = self.make_rpcs(urls)
        events = self.make_events(urls, self._rpc.nodes)
        self._watcher = BlockWatcher(
            reactor, self._rpc, events, on_another_chain=on_another_chain, takes_other_at_once=takes_other_at_once
        )
        self._clock_offset = ClockOffset()
        self._watcher.observe(self._record_block)
        self.poc_version = PocVersion(self._rpc)
        broker.refuse_commands_while(lambda: self.poc_version.moved_reason)
        self.submissions = Submissions(database, outbox)
        self._identity = ChainIdentity(self._rpc, self.submissions, on_another_chain)
        self._expecting: Deferred[None] = succeed(None)
        address = address_of(self._public_key)
        self.submitter = self._make_submitter(config, key, address)
        self.submitter.setServiceParent(self)  # type: ignore[no-untyped-call]
        self.conductor: Conductor | None = None
        self.phase_status: PhaseStatus | None = None
        if comparison is not None:
            self._reconciler = Reconciler(reactor, broker, RetryDelay(random))
            stages = StageBook(database)
            arguments = ArgumentsFollowing(self._rpc, broker, network_arguments)
            self.conductor = self._make_conductor(config, key, broker, stages, outbox, comparison, arguments)
            self._host = self._make_host(config, key, broker, stages, outbox, network_version)
            self.phase_status = PhaseStatus(self.conductor, self._reconciler, stages, self._host)
            outbox.observe(self.conductor.batch_stored)
            recorder.observe_verdicts(self.conductor.verdict_stored)
        self.log.info("signing as {signer} for {participant}", signer=key.address, participant=address)

    def make_rpcs(self, urls: Sequence[str]) -> tuple[ChainRpc, ChainRpc]:
        """Make what calls the chain, and what waits longer for large answers; tests replace the network here."""
        rpc = ChainRpc(self._reactor, urls)
        return rpc, ChainRpc(self._reactor, rpc.nodes, timeout_seconds=_LARGE_ANSWER_SECONDS)

    def make_events(self, urls: Sequence[str], nodes: ChainNodes) -> BlockEvents:
        """Make what brings the blocks."""
        return BlockEvents(self._reactor, urls, random=self._random, nodes=nodes)

    def drive_nodes(self) -> None:
        """Have the nodes follow the phases from now on, unless the settings say otherwise.

        To be called once those of the configuration file are registered: a stage that begins counts the nodes.
        """
        if self.conductor is not None:
            self._host.setServiceParent(self)  # type: ignore[no-untyped-call]
            self._reconciler.setServiceParent(self)  # type: ignore[no-untyped-call]
            self.conductor.setServiceParent(self)  # type: ignore[no-untyped-call]

    @property
    def head(self) -> ChainStatus | None:
        """The latest block that any chain node told, None before the first."""
        return self._watcher.head

    @property
    def clock_offset_seconds(self) -> float | None:
        """By how much this machine's clock is ahead of the blocks' times, or behind (below 0); None: not known."""
        return self._clock_offset.seconds

    def _record_block(self) -> None:
        head = self._watcher.head
        if head is not None and not head.catching_up:
            self._clock_offset.record(head.height, head.block_time_ns)

    def nodes_status(self) -> list[dict[str, Any]]:
        """Return what ``GET status`` shows of the chain's nodes."""
        return self._rpc.nodes.status()

    def startService(self) -> None:
        """Start all of it; the chain is followed as soon as the database has told which one it is of."""
        super().startService()  # type: ignore[no-untyped-call]
        self._expecting = Deferred.fromCoroutine(self._expect_known_chain())
        self._expecting.addErrback(self._log_unexpected)

    async def _expect_known_chain(self) -> None:
        known = await retry(
            self._reactor,
            self.submissions.known_block,
            errors=(StoreError,),
            delay=RetryDelay(self._random),
            on_error=lambda error: self.log.warn("the chain is not followed yet: {error}", error=str(error)),
        )
        if known is not None:
            self._rpc.nodes.expect_chain_of(known)
        if self.running:
            self._watcher.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _log_unexpected(self, failure: Failure) -> None:
        # What a stop breaks off may fail with any error.
        if self.running:
            self.log.failure("the chain cannot be followed", failure)

    def stopService(self) -> Deferred[None]:
        """Stop all of it; fires when nothing is left."""
        parts_stopped = super().stopService()  # type: ignore[no-untyped-call]
        self._expecting.cancel()
        return Deferred.fromCoroutine(self._stop(parts_stopped))

    async def _stop(self, parts_stopped: Deferred[Any]) -> None:
        await parts_stopped
        await self._rpc.close()
        await self._patient_rpc.close()

    def _make_submitter(self, config: ChainNodeConfig, key: SigningKey, address: str) -> Submitter:
        return Submitter(
            self._reactor,
            self.submissions,
            self._rpc,
            self._watcher,
            self._identity,
            key=key,
            participant_address=address,
            poc_version=self.poc_version,
            random=self._random,
            settings=SubmitterSettings(
                max_in_flight=config.max_in_flight,
                max_in_flight_bytes=config.max_in_flight_bytes,
                max_transaction_bytes=config.max_transaction_bytes,
                max_nonces=config.max_nonces_per_message,
                gas_limit=config.gas_limit,
                kinds=_kinds_sent(config),
            ),
        )

    def _make_conductor(
        self,
        config: ChainNodeConfig,
        key: SigningKey,
        broker: Broker,
        stages: StageBook,
        outbox: Outbox,
        comparison: Comparison,
        arguments: ArgumentsFollowing,
    ) -> Conductor:
        self.validation_tools = ValidationTools(
            reactor=self._reactor,
            stages=stages,
            query=partial(query_samples, self._patient_rpc, max_bytes=config.max_stage_bytes),
            height=lambda: self._watcher.head.height if self._watcher.head is not None else 0,
            workers=lambda: self._reconciler.validators(),
            retry_delay=RetryDelay(self._random),
            hand_out=comparison.hand_out,
            public_key=self._public_key,
            secret=hashlib.sha256(key.sign(b"dapi: which nonces are validated")).digest(),
        )
        return Conductor(
            self._reactor,
            self._rpc,
            self._watcher,
            self._identity,
            broker,
            self._reconciler,
            stages,
            Seeds(outbox, key),
            Deadlines(self.submissions),
            comparison,
            arguments,
            poc_version=self.poc_version,
            public_key=self._public_key,
            make_validation=partial(StageValidation, self.validation_tools),
            random=self._random,
        )

    def _make_host(
        self,
        config: ChainNodeConfig,
        key: SigningKey,
        broker: Broker,
        stages: StageBook,
        outbox: Outbox,
        network_version: NetworkVersion,
    ) -> Host:
        address = address_of(self._public_key)
        declaring = Declaring(self._rpc, broker, outbox, self.submissions, address) if config.declare_nodes else None
        claiming = Claiming(self._rpc, outbox, key, address)
        return Host(
            self._reactor,
            self._rpc,
            self._watcher,
            self._identity,
            broker,
            version=VersionFollowing(self._rpc, network_version),
            declaring=declaring,
            claiming=claiming if config.claim_rewards else None,
            counting=Counting(self._rpc, stages, outbox, address),
            poc_version=self.poc_version,
            random=self._random,
        )


def _kinds_sent(config: ChainNodeConfig) -> frozenset[Kind]:
    """Return the kinds of messages that the settings have dapi send: the key needs the grants for these."""
    unused = {Kind.HARDWARE: not config.declare_nodes, Kind.CLAIM: not config.claim_rewards}
    return frozenset(kind for kind in Kind if not unused.get(kind, False))


def load_key(config: ChainNodeConfig) -> SigningKey:
    """Return the key that the settings name; raises ConfigError or StartError."""
    if config.key_file is not None:
        return load_signing_key_file(config.key_file)
    if config.signer_key_name is None:
        raise ConfigError(
            "chain_node.url is set, and no key to sign with: set chain_node.signer_key_name (KEY_NAME) or "
            "chain_node.key_file, or leave the url out to keep batches without submitting them"
        )
    password = config.keyring_password.reveal() if config.keyring_password is not None else None
    return load_signing_key(config.keyring_backend, config.keyring_dir, config.signer_key_name, password)


def _participant_key(config: ChainNodeConfig, key: SigningKey) -> bytes:
    if config.account_public_key is None:
        return key.public_key
    return base64.b64decode(config.account_public_key)
