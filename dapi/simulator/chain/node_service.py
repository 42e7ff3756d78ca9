"""One node of the simulated chain on a real socket, which can be partitioned, frozen and moved to another chain."""

from __future__ import annotations

import random
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.simulator.chain.blocks import Block, Blockchain
from dapi.simulator.chain.node import ChainNode, NodeSettings, Switches
from dapi.simulator.chain.rpc import RpcServer


class SimulatedNode(Service):
    """An RPC node that follows a chain. ``port`` 0 takes any free one, which is kept over restarts.

    ``node`` is what it knows, with its mempool; ``settings`` and ``switches`` may be changed at any time::

        healthy ──partition──▶ stands still ──reconnect──▶ follows ──▶ healthy
        healthy ───freeze────▶ silent ─────────thaw──────▶ follows ──▶ healthy

    It follows by ``settings.blocks_per_second`` blocks a second until it is as far as the chain.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        blockchain: Blockchain,
        rng: random.Random,
        *,
        port: int = 0,
        interface: str = "127.0.0.1",
        settings: NodeSettings | None = None,
    ) -> None:
        self.node = ChainNode(blockchain, rng, settings)
        self.server = RpcServer(reactor, self.node, interface, port)
        self._interface = interface
        self._following = LoopingCall(self._step)
        self._following.clock = reactor

    @property
    def settings(self) -> NodeSettings:
        """What its operator set."""
        return self.node.settings

    @property
    def switches(self) -> Switches:
        """What can be made to go wrong."""
        return self.node.switches

    @property
    def port(self) -> int:
        """The port it listens on; kept over restarts."""
        return self.server.port

    @property
    def url(self) -> str:
        """Where the RPC is, for dapi's configuration."""
        return f"http://{self._interface}:{self.port}"

    @property
    def height(self) -> int:
        """Its latest block's height."""
        return self.node.height

    def startService(self) -> None:
        """Open the port."""
        super().startService()  # type: ignore[no-untyped-call]
        self.server.listen()
        self._follow()

    def stopService(self) -> Deferred[None]:
        """Close the port and all connections; fires when nothing of it is left on the reactor."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._stop_following()
        return Deferred.fromCoroutine(self.server.close())

    def block_made(self) -> None:
        """Take over the block that the chain has made, and tell subscribers; the chain calls it."""
        if self.node.follow():
            self.server.publish(self.node.latest)
        else:
            self._follow()

    def partition(self) -> None:
        """Cut it off from all other nodes: it stands still, answers, and takes transactions that reach nobody."""
        self._stop_following()
        self.node.partition()

    def reconnect(self) -> None:
        """Connect it to the others again."""
        self.node.reconnect()
        self._follow()

    def freeze(self) -> None:
        """Stop it as SIGSTOP does: it stands still, connections are accepted and get no answer."""
        self.partition()
        self.server.freeze()

    def thaw(self) -> None:
        """Let it run again; it answers what came meanwhile."""
        self.server.thaw()
        self.reconnect()

    def join(self, blockchain: Blockchain) -> None:
        """Become a node of another chain, without connections."""
        self._stop_following()
        self.node.join(blockchain)
        self.server.cut_sockets()

    def _follow(self) -> None:
        if self.running and self.node.is_behind and not self._following.running:
            self._following.start(1 / self.settings.blocks_per_second, now=False).addErrback(self._failed)

    def _stop_following(self) -> None:
        if self._following.running:
            self._following.stop()

    def _step(self) -> None:
        block: Block | None = self.node.step()
        if block is not None:
            self.server.publish(block)
        if not self.node.is_behind:
            self._stop_following()

    def _failed(self, failure: Failure) -> None:
        self.log.failure("the simulated node follows no more", failure)
