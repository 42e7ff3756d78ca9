"""One life of dapi on its database: the very parts of a running one, but for sockets and threads."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed

from dapi.broker.broker import Broker
from dapi.broker.node_worker import NodeWorker
from dapi.broker.nodes import Node, NodeStore
from dapi.chain.block_events import BlockEvents
from dapi.chain.keyring import SigningKey
from dapi.chain.nodes import ChainNodes
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import BlockInfo
from dapi.chain_service import ChainService
from dapi.config import ChainNodeConfig
from dapi.mlnode.arguments import NetworkArguments
from dapi.mlnode.client import TEST_NETWORK_PARAMS, MLNodeClient, NetworkVersion
from dapi.outbox.comparison import Comparison
from dapi.outbox.cosmos_message_client import CosmosMessageClient
from dapi.outbox.outbox import Outbox
from dapi.poc.batch_handler import BatchHandler
from tests.model.network import Host, MemoryAgent
from tests.nodes import FakeWebSocket, SynchronousDatabase
from tests.unit.threadless import ThreadlessReactor

T = TypeVar("T")


class Life:
    """Whether the process lives. ``calls_left`` and ``writes_left`` count down to its end; None: it does not come.

    A process that is killed does nothing any more: what it waits for never comes.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.calls_left: int | None = None
        self.writes_left: int | None = None

    def call(self) -> bool:
        """Count a step of a call over the network; return whether the process lives after it."""
        if self.calls_left is not None:
            self.calls_left -= 1
            self.is_over = self.is_over or self.calls_left < 0
        return not self.is_over

    def write(self) -> bool:
        """Count a step of a write; return whether the process lives after it."""
        if self.writes_left is not None:
            self.writes_left -= 1
            self.is_over = self.is_over or self.writes_left < 0
        return not self.is_over


class MortalDatabase(SynchronousDatabase):
    """Answers nobody after the end, which comes before a write is on disk, or after it and before its answer."""

    def __init__(self, path: str, life: Life) -> None:
        super().__init__(path)
        self._life = life

    def write(self, function: Callable[[sqlite3.Connection], T], *, intake: bool = False) -> Deferred[T]:
        if not self._life.write():
            return Deferred()
        done = super().write(function, intake=intake)
        return done if self._life.write() else _never(done)

    def read(self, function: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        return Deferred() if self._life.is_over else super().read(function)


def _never(done: Deferred[T]) -> Deferred[T]:
    done.addErrback(lambda _: None)
    return Deferred()


class MemoryEvents(BlockEvents):
    """Brings the blocks that the world announces."""

    opened_at: float | None = 0.0
    url_index = 0

    def __init__(self) -> None:
        self._watching: Callable[[BlockInfo], object] = lambda _: None

    def startService(self) -> None:
        """Need no connection."""

    def stopService(self) -> Deferred[None]:
        return succeed(None)

    def observe(self, observer: Callable[[BlockInfo], object]) -> None:
        self._watching = observer

    def replace(self, reason: str) -> None:
        """Go on with the same."""

    def tell(self, block: BlockInfo) -> None:
        self._watching(block)


class _Chain(ChainService):
    """The chain's part of dapi, with the network of the model."""

    def __init__(self, agent: MemoryAgent, *args: object, **others: object) -> None:
        self._agent = agent
        self.events = MemoryEvents()
        super().__init__(*args, **others)  # type: ignore[arg-type]

    def make_rpcs(self, urls: Sequence[str]) -> tuple[ChainRpc, ChainRpc]:
        rpc = ChainRpc(self._reactor, urls, agent=self._agent)
        return rpc, ChainRpc(self._reactor, rpc.nodes, agent=self._agent, timeout_seconds=60)

    def make_events(self, urls: Sequence[str], nodes: ChainNodes) -> BlockEvents:
        return self.events


class Process:
    """A dapi that is started with this at ``seconds``, and lives until ``kill`` or ``stop``."""

    def __init__(
        self, seconds: float, path: str, config: ChainNodeConfig, key: SigningKey, hosts: dict[str, Host], seed: int
    ) -> None:
        self.life = Life()
        self.reactor = ThreadlessReactor()
        self.reactor.rightNow = seconds
        self.database = MortalDatabase(path, self.life)
        self.outbox = Outbox(self.reactor, self.database, now=self.reactor.seconds)
        self.comparison = Comparison(self.reactor, self.database)
        self._recorder = CosmosMessageClient(self.outbox, comparison=self.comparison)
        self._agent = MemoryAgent(hosts, self.life.call)
        self.broker = Broker(
            self.reactor,
            NodeStore(self.database),
            self._make_worker,
            params=TEST_NETWORK_PARAMS,
            callback_url=lambda num, token: f"http://dapi:9100/v1/poc-batches/{num}-{token}",
        )
        self.other_chains: list[str] = []
        self.chain = _Chain(
            self._agent,
            self.reactor,
            config,
            key,
            database=self.database,
            outbox=self.outbox,
            recorder=self._recorder,
            comparison=self.comparison,
            broker=self.broker,
            random=random.Random(seed),
            network_version=NetworkVersion(),
            network_arguments=NetworkArguments(),
            on_another_chain=self.other_chains.append,
        )
        self.broker.startService()
        self.chain.startService()
        self.chain.drive_nodes()

    def _make_worker(self, node: Node) -> NodeWorker:
        counts = self.broker.node_counts
        handler = BatchHandler(node.id, node.num, self._recorder, node_counts=counts)
        client = MLNodeClient(self.reactor, node.poc_url, node_id=node.id, agent=self._agent)
        return NodeWorker(self.reactor, node, client, handler, FakeWebSocket([]))

    @property
    def is_alive(self) -> bool:
        return not self.life.is_over

    def handler(self, node_id: str) -> BatchHandler:
        """Return the handler of a node's batches."""
        (found,) = (each.batch_handler for each in self.broker.workers() if each.node.id == node_id)
        return found

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, if it still lives."""
        if self.is_alive:
            self.reactor.advance(seconds)
            # What one turn leaves for the next one.
            for _ in range(3):
                if self.is_alive:
                    self.reactor.advance(0)

    def kill(self) -> None:
        """End it at once, with nothing said to anybody, and clear away what waits for what never comes."""
        self.life.is_over = True
        self.database.close()
        for part in (self.chain, self.broker):
            Deferred.fromCoroutine(_stop(part)).addErrback(lambda _: None)
        for call in self.reactor.getDelayedCalls():
            call.cancel()

    def stop(self) -> None:
        """Stop it as a service is stopped; the time that this takes is none."""
        stopped: list[object] = []
        self.outbox.commit_at_once()
        for part in (self.chain, self.broker):
            Deferred.fromCoroutine(_stop(part)).addBoth(stopped.append)
            for _ in range(100):
                self.reactor.advance(0)
        assert stopped == [None, None], f"the stop does not end: {stopped}"
        left = [str(call) for call in self.reactor.getDelayedCalls()]
        assert not left, f"left on the reactor by a stop: {left}"
        self.kill()


async def _stop(part: ChainService | Broker) -> None:
    await part.stopService()
