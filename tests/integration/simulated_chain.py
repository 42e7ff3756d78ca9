"""A running simulated chain, and clients of its port."""

from __future__ import annotations

import json
import random
from typing import Any, cast

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ClientEndpoint

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import TxResult, tx_hash_of
from dapi.http.exchange import Exchanges
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.chain.node_service import SimulatedNode
from tests.chain_tools import SECOND_NS, Key, Packed, batch, transaction
from tests.integration.ports import free_port
from tests.integration.waiting import PATIENCE_SECONDS, soon


class ChainAndClient:
    """A running chain at height 10, where epoch 1's PoC has just started, and a client; blocks are made by hand."""

    def __init__(self, **settings: Any) -> None:
        settings = {"block_seconds": None, "epochs": Epochs(10, EpochParams()), "first_height": 10, **settings}
        self.chain = SimulatedChain(reactor, random.Random(0), port=free_port(), **settings)
        self.key = Key(1)
        self.chain.add_account(self.key.public)
        self.chain.startService()
        self.rpc = self.client()
        self._timeouts = 0

    def client(self, *urls: str, **settings: Any) -> ChainRpc:
        return ChainRpc(reactor, [*urls, self.chain.url], **settings)

    def tx(self, *messages: Packed, **changes: Any) -> bytes:
        self._timeouts += 1
        timeout_ns = self.chain.blockchain.latest.time_ns + 60 * SECOND_NS + self._timeouts
        return transaction(self.key, *messages or (batch(self.key.address),), **{"timeout_ns": timeout_ns, **changes})

    async def result_of(self, raw: bytes) -> TxResult | None:
        """What became of a transaction, None while it is in no block."""
        tx_hash = tx_hash_of(raw)
        return (await soon(self.rpc.lookup_all([tx_hash]))).results.get(tx_hash)

    async def end(self) -> None:
        await soon(self.rpc.close())
        if self.chain.running:
            await soon(self.chain.stopService())


class Subscriber(WebSocketClientProtocol):
    """Collects what comes over the chain's WebSocket."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[None] = Deferred()
        self.closed: Deferred[None] = Deferred()
        self.received: DeferredQueue[Any] = DeferredQueue()

    def onOpen(self) -> None:
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        assert not isBinary
        self.received.put(json.loads(payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.closed.callback(None)

    async def call(self, method: str, params: Any, request_id: int | str = "1") -> Any:
        request = {"jsonrpc": "2.0", "method": method, "id": request_id, "params": params}
        self.sendMessage(json.dumps(request).encode())
        return await soon(self.received.get())


async def subscriber(chain: SimulatedChain | SimulatedNode) -> Subscriber:
    factory = WebSocketClientFactory(f"ws://127.0.0.1:{chain.port}/websocket", reactor=reactor)
    factory.protocol = Subscriber
    factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
    socket = cast(Subscriber, await TCP4ClientEndpoint(reactor, "127.0.0.1", chain.port).connect(factory))
    await soon(socket.opened)
    return socket


async def post(chain: SimulatedChain, body: bytes) -> tuple[int, Any]:
    status, answer = await Exchanges(reactor, None, PATIENCE_SECONDS).exchange("POST", chain.url, body)
    return status, json.loads(answer) if answer else None


def request(method: str, **more: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 5, "method": method, **more}).encode()
