"""The chain's WebSocket in memory, and a source of its status that answers when it is told to."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed

from dapi.chain.block_events import BlockEvents
from dapi.chain.nodes import ChainNodes
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import BlockInfo, ChainStatus
from dapi.websocket.settings import ConnectionSettings
from tests.unit.websocket.links import Peer, Tries


def status_at(height: int, *, catching_up: bool = False) -> ChainStatus:
    return ChainStatus("chain", height, height * 10**9, f"B{height}", 1, catching_up, True, "127.0.0.1:26657")


def new_block(height: int, *, chain_id: str = "chain", **more: Any) -> dict[str, Any]:
    """The ``result`` of a NewBlock event; block times are seconds of the year 1970."""
    header = {"version": {"block": "11"}, "chain_id": chain_id, "height": str(height)}
    header["time"] = f"1970-01-01T00:{height // 60:02d}:{height % 60:02d}Z"
    value = {
        "block": {"header": header, "data": {"txs": ["AAAA"]}, "evidence": {"evidence": []}},
        "block_id": {"hash": f"B{height}", "parts": {"total": 1, "hash": "00"}},
        "result_finalize_block": {"events": None, "tx_results": [{"code": 0}]},
        **more,
    }
    data = {"type": "tendermint/event/NewBlock", "value": value}
    return {"query": "tm.event='NewBlock'", "data": data, "events": {"tm.event": ["NewBlock"]}}


class ChainPeer(Peer):
    """A node of the chain: confirms a subscription, and announces what it is told to."""

    confirms = True

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        super().onMessage(payload, isBinary)
        if self.confirms:
            self.answer(result={})

    @property
    def requests(self) -> list[Any]:
        return [json.loads(payload) for payload, _is_binary in self.received]

    def answer(self, **answer: Any) -> None:
        """Answer the subscription, or send an event of it."""
        self.sendMessage(json.dumps({"jsonrpc": "2.0", "id": self.requests[-1]["id"], **answer}).encode())

    def announce(self, height: int, **more: Any) -> None:
        self.answer(result=new_block(height, **more))

    def cancel(self, reason: str = "client is not pulling messages fast enough") -> None:
        data = f"subscription was canceled (reason: {reason})"
        self.answer(error={"code": -32000, "message": "Server error", "data": data})


class EventsInMemory(Tries[BlockEvents, ChainPeer]):
    """A client of one node or several, and the blocks that it told; ``nodes`` is what is known of them."""

    def __init__(self, *urls: str, seed: int = 1, knows_nodes: bool = False, **settings: Any) -> None:
        super().__init__()
        urls = urls or ("http://127.0.0.1:8080",)
        self.nodes = ChainNodes(self.clock, urls)
        self.client = self.events = BlockEvents(
            self.clock,
            urls,
            random=Random(seed),
            settings=ConnectionSettings(**settings),
            nodes=self.nodes if knows_nodes else None,
        )
        self.blocks: list[BlockInfo] = []
        self.events.observe(self.blocks.append)

    def make_server(self) -> ChainPeer:
        return ChainPeer()

    @property
    def heights(self) -> list[int]:
        return [block.height for block in self.blocks]


class NodesAtHeights(ChainRpc):
    """Nodes that answer at once, each at its height; None: it does not answer."""

    def __init__(self, reactor: Any, nodes: ChainNodes, heights: list[int | None]) -> None:
        super().__init__(reactor, nodes)
        self.heights = heights

    def ask_all(self) -> Deferred[None]:
        known = self.nodes.latest.height if self.nodes.latest is not None else 0
        for index, height in enumerate(self.heights):
            if height is None:
                self.nodes.call_failed(self.nodes[index], "status", "refused")
            else:
                self.nodes.status_received(self.nodes[index], known, status_at(height))
        return succeed(None)


class StatusOnDemand(ChainRpc):
    """Is asked for the status of its only node, and answers when it is told to."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, ["http://127.0.0.1:26657"])
        self.asked: list[Deferred[ChainStatus]] = []

    def ask_all(self) -> Deferred[None]:
        asked: Deferred[ChainStatus] = Deferred()
        self.asked.append(asked)
        height = self.nodes.latest.height if self.nodes.latest is not None else 0
        return asked.addCallback(lambda status: self.nodes.status_received(self.nodes[0], height, status))
