"""A simulated chain on real sockets: what dapi needs of the network, obeying the documents and failing on demand."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.simulator.chain.addresses import address_of_key
from dapi.simulator.chain.blocks import Block, Blockchain
from dapi.simulator.chain.epochs import Epochs
from dapi.simulator.chain.node import CheckResult, NodeSettings, Switches
from dapi.simulator.chain.node_service import SimulatedNode
from dapi.simulator.chain.rules import Rules
from dapi.simulator.chain.state import Account, ChainState, Model

_SECOND_NS = 1_000_000_000


class SimulatedChain(Service):
    """A chain, and the nodes through which it is reached: one at first, more by ``add_node``.

    ``rng`` decides which transactions are dropped. A block is made every ``block_seconds``, or with None only by
    ``produce_block``. Its time is what ``now_ns`` gives (nanoseconds since 1970), or, with ``block_time_seconds``, that
    much after the one before. ``port`` (0: any free one) is the first node's. ``models`` are those of governance.

    ``state`` (stores, rules, epochs, confirmation event) and ``blockchain`` (ledger, mempool of the validators) may be
    looked at and changed while it runs; ``begin_anew`` replaces both. While ``is_halted`` no block comes by itself.
    Stopping and starting again, which ``restart`` does in one, keeps everything but connections; no block is made in
    between. ``url``, ``port``, ``switches`` and the like are those of the first node.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        rng: random.Random,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        chain_id: str = "gonka-simulated",
        epochs: Epochs | None = None,
        rules: Rules | None = None,
        models: Sequence[str] = ("simulated",),
        block_seconds: float | None = 5.0,
        block_time_seconds: float | None = None,
        first_height: int = 1,
        has_first_block: bool = True,
        port: int = 0,
        interface: str = "127.0.0.1",
    ) -> None:
        self.is_halted = False
        self.state = ChainState(chain_id, epochs or Epochs(), rules or Rules())
        self.state.models.update((model_id, Model(model_id)) for model_id in models)
        self.blockchain = Blockchain(self.state, now_ns(), first_height, has_first_block=has_first_block)
        self._reactor = reactor
        self._rng = rng
        self._now_ns = now_ns
        self._block_time_seconds = block_time_seconds
        self._passed_seconds = 0.0
        self._block_seconds = block_seconds
        self._interface = interface
        self._blocks = LoopingCall(self._tick)
        self._blocks.clock = reactor
        self._waiting: list[tuple[int, Deferred[int]]] = []
        self.nodes: list[SimulatedNode] = []
        self.node = self.add_node(port=port)

    @property
    def switches(self) -> Switches:
        """What can be made to go wrong with the first node."""
        return self.node.switches

    @property
    def port(self) -> int:
        """The port that the first node listens on; kept over restarts."""
        return self.node.port

    @property
    def url(self) -> str:
        """Where the first node's RPC is, for dapi's configuration."""
        return self.node.url

    @property
    def height(self) -> int:
        """The latest block's height."""
        return self.blockchain.latest.height

    @property
    def subscriptions(self) -> int:
        """How many subscriptions to new blocks the first node has now."""
        return self.node.server.subscriptions

    def startService(self) -> None:
        """Open the ports, and make blocks from now on."""
        super().startService()  # type: ignore[no-untyped-call]
        for node in self.nodes:
            node.startService()
        if self._block_seconds is not None:
            self._blocks.start(self._block_seconds, now=False).addErrback(self._blocks_failed)

    def stopService(self) -> Deferred[None]:
        """Close the ports and all connections; fires when nothing of it is left on the reactor."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._blocks.running:
            self._blocks.stop()
        return gatherResults([node.stopService() for node in self.nodes]).addCallback(lambda _: None)

    def restart(self, *, down_seconds: float = 0, keeps_mempool: bool = False) -> Deferred[None]:
        """Stop, stay away for ``down_seconds`` and start again on the same ports; all mempools are lost, or not.

        The Deferred fires when it listens again.
        """
        return Deferred.fromCoroutine(self._restart(down_seconds, keeps_mempool))

    def add_node(self, *, port: int = 0, settings: NodeSettings | None = None) -> SimulatedNode:
        """Add a node that has all blocks; it listens at once if the chain runs, and stops with it."""
        node = SimulatedNode(
            self._reactor, self.blockchain, self._rng, port=port, interface=self._interface, settings=settings
        )
        self.nodes.append(node)
        if self.running:
            node.startService()
        return node

    def add_account(
        self, public_key: bytes, number: int | None = None, *, genesis_weight: int | None = None
    ) -> Account:
        """Open an account for a compressed secp256k1 key; its address and number are in what is returned.

        The account is a participant's. ``genesis_weight`` is what its verdicts weigh in epoch 0: by default 1 for the
        first account, 0 for all others.
        """
        if genesis_weight is None:
            genesis_weight = 0 if any(self.state.participants.values()) else 1
        if number is None:
            number = max((account.number for account in self.state.accounts.values()), default=0) + 1
        account = Account(address_of_key(public_key), number)
        self.state.accounts[account.address] = account
        self.state.participants[account.address] = genesis_weight
        return account

    def grant(self, granter: str, grantee: str, type_url: str, expires_ns: int | None = None) -> None:
        """Let ``grantee`` send messages of a type in the name of ``granter``."""
        self.state.grants[granter, grantee, type_url] = expires_ns

    def broadcast(self, raw: bytes) -> CheckResult:
        """Offer a transaction to the first node as ``broadcast_tx_sync`` does; raises MempoolRefused."""
        return self.node.node.broadcast(raw)

    def lose_mempools(self) -> None:
        """Let all nodes forget every transaction that is in no block."""
        self.blockchain.mempool.clear()
        for node in self.nodes:
            node.node.mempool.clear()

    def produce_block(self) -> Block:
        """Make a block now, halted or not, and tell everybody."""
        time_ns = self._now_ns()
        if self._block_time_seconds is not None:
            seconds = self._block_time_seconds + self._passed_seconds
            time_ns = self.blockchain.latest.time_ns + round(seconds * _SECOND_NS)
        self._passed_seconds = 0.0
        block = self.blockchain.produce_block(time_ns)
        for node in self.nodes:
            node.block_made()
        reached = [waiting for height, waiting in self._waiting if height <= block.height]
        self._waiting = [(height, waiting) for height, waiting in self._waiting if height > block.height]
        for waiting in reached:
            waiting.callback(block.height)
        return block

    def pass_block_time(self, seconds: float) -> None:
        """Have the next block's time lie so much later, as after a stop; for ``block_time_seconds`` only."""
        self._passed_seconds += seconds

    def begin_anew(self, chain_id: str | None = None, *, epochs: Epochs | None = None, first_height: int = 1) -> None:
        """Begin again at ``first_height`` with nothing but the accounts, as test networks do; connections break off."""
        accounts, participants = self.state.accounts, self.state.participants
        models, grants = self.state.models, self.state.grants
        self.state = ChainState(chain_id or self.state.chain_id, epochs or self.state.epochs, self.state.rules)
        self.state.accounts.update((address, Account(address, old.number)) for address, old in accounts.items())
        self.state.participants.update(participants)
        self.state.models.update(models)
        self.state.grants.update(grants)
        self.blockchain = Blockchain(self.state, self._now_ns(), first_height)
        for node in self.nodes:
            node.join(self.blockchain)

    def cut_websockets(self) -> None:
        """Break every WebSocket of the first node off, without a word."""
        self.node.server.cut_sockets()

    def cancel_subscriptions(self) -> None:
        """End every subscription of the first node with an error object; the WebSockets stay open."""
        self.node.server.cancel_subscriptions()

    def when_height(self, height: int) -> Deferred[int]:
        """Fire with the latest height once it is ``height`` or more."""
        if self.height >= height:
            return succeed(self.height)
        waiting: Deferred[int] = Deferred(self._forget)
        self._waiting.append((height, waiting))
        return waiting

    def _forget(self, waiting: Deferred[int]) -> None:
        self._waiting = [(height, other) for height, other in self._waiting if other is not waiting]

    def _tick(self) -> None:
        if not self.is_halted:
            self.produce_block()

    def _blocks_failed(self, failure: Failure) -> None:
        self.log.failure("the simulated chain makes no more blocks", failure)

    async def _restart(self, down_seconds: float, keeps_mempool: bool) -> None:
        await self.stopService()
        if not keeps_mempool:
            self.lose_mempools()
        if down_seconds > 0:
            await deferLater(self._reactor, down_seconds)
        self.startService()
