"""A simulated chain on real sockets: what dapi needs of the network, obeying the documents and failing on demand."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from dapi.simulator.chain.addresses import address_of_key
from dapi.simulator.chain.blocks import Block, Blockchain, Switches
from dapi.simulator.chain.epochs import Epochs
from dapi.simulator.chain.messages import Rules
from dapi.simulator.chain.rpc import RpcServer
from dapi.simulator.chain.state import Account, ChainState


class SimulatedChain(Service):
    """One node that is the whole chain.

    ``rng`` decides which transactions are dropped, ``now_ns`` gives the time that blocks get (nanoseconds since 1970).
    A block is made every ``block_seconds``, or with None only by ``produce_block``. ``port`` 0 takes any free one.

    ``state`` (stores, rules, epochs, confirmation event), ``blockchain`` (ledger, mempool) and ``switches`` may be
    looked at and changed while it runs. Stopping and starting again, which ``restart`` does in one, keeps everything
    but connections; no block is made in between.
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
        block_seconds: float | None = 1.0,
        first_height: int = 1,
        port: int = 0,
        interface: str = "127.0.0.1",
    ) -> None:
        self.state = ChainState(chain_id, epochs or Epochs(), rules or Rules())
        self.blockchain = Blockchain(rng, self.state, now_ns(), first_height)
        self._reactor = reactor
        self._now_ns = now_ns
        self._block_seconds = block_seconds
        self._interface = interface
        self._server = RpcServer(reactor, self.blockchain, interface, port)
        self._blocks = LoopingCall(self._tick)
        self._blocks.clock = reactor
        self._waiting: list[tuple[int, Deferred[int]]] = []
        self._stopping: Deferred[None] | None = None

    @property
    def switches(self) -> Switches:
        """What can be made to go wrong."""
        return self.blockchain.switches

    @property
    def port(self) -> int:
        """The port it listens on; kept over restarts."""
        return self._server.port

    @property
    def url(self) -> str:
        """Where the RPC is, for dapi's configuration."""
        return f"http://{self._interface}:{self.port}"

    @property
    def height(self) -> int:
        """The latest block's height."""
        return self.blockchain.latest.height

    @property
    def subscriptions(self) -> int:
        """How many subscriptions to new blocks there are now."""
        return self._server.subscriptions

    def startService(self) -> None:
        """Open the port, and make blocks from now on."""
        super().startService()  # type: ignore[no-untyped-call]
        self._server.listen()
        if self._block_seconds is not None:
            self._blocks.start(self._block_seconds, now=False).addErrback(self._blocks_failed)

    def stopService(self) -> Deferred[None]:
        """Close the port and all connections; fires when nothing of it is left on the reactor."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._blocks.running:
            self._blocks.stop()
        return Deferred.fromCoroutine(self._server.close())

    def restart(self, *, down_seconds: float = 0, keeps_mempool: bool = False) -> Deferred[None]:
        """Stop, stay away for ``down_seconds`` and start again on the same port; the mempool is lost, or not.

        The Deferred fires when it listens again.
        """
        return Deferred.fromCoroutine(self._restart(down_seconds, keeps_mempool))

    def add_account(self, public_key: bytes, number: int | None = None) -> Account:
        """Open an account for a compressed secp256k1 key; its address and number are in what is returned."""
        if number is None:
            number = max((account.number for account in self.state.accounts.values()), default=0) + 1
        account = Account(address_of_key(public_key), number)
        self.state.accounts[account.address] = account
        return account

    def grant(self, granter: str, grantee: str, type_url: str, expires_ns: int | None = None) -> None:
        """Let ``grantee`` send messages of a type in the name of ``granter``."""
        self.state.grants[granter, grantee, type_url] = expires_ns

    def produce_block(self) -> Block:
        """Make a block now, whatever the switches say, and tell everybody."""
        block = self.blockchain.produce_block(self._now_ns())
        self._server.publish(block)
        reached = [waiting for height, waiting in self._waiting if height <= block.height]
        self._waiting = [(height, waiting) for height, waiting in self._waiting if height > block.height]
        for waiting in reached:
            waiting.callback(block.height)
        return block

    def cut_websockets(self) -> None:
        """Break every WebSocket off, without a word."""
        self._server.cut_sockets()

    def cancel_subscriptions(self) -> None:
        """End every subscription with an error object; the WebSockets stay open."""
        self._server.cancel_subscriptions()

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
        if not self.switches.is_halted:
            self.produce_block()

    def _blocks_failed(self, failure: Any) -> None:
        self.log.failure("the simulated chain makes no more blocks", failure)

    async def _restart(self, down_seconds: float, keeps_mempool: bool) -> None:
        await self.stopService()
        if not keeps_mempool:
            self.blockchain.mempool.clear()
        if down_seconds > 0:
            await deferLater(self._reactor, down_seconds)
        self.startService()
