"""A simulated chain without sockets, for tests of its rules."""

from __future__ import annotations

import random
from typing import Any

from dapi.simulator.chain.blocks import Blockchain, TxRecord
from dapi.simulator.chain.epochs import EpochParams, Epochs
from dapi.simulator.chain.node import ChainNode, NodeSettings
from dapi.simulator.chain.rules import Rules
from dapi.simulator.chain.state import Account, ChainState, Model
from tests.chain_tools import (
    CHAIN_ID,
    SECOND_NS,
    Key,
    Packed,
    batch,
    transaction,
)

START_NS = 1_700_000_000 * SECOND_NS


class ChainInMemory:
    """A chain at height 10, where the PoC of epoch 1 has just started, with one account; a block takes a second."""

    def __init__(self, rules: Rules | None = None, height: int = 10, drop_seed: int = 0) -> None:
        self.key = Key(1)
        self.state = ChainState(CHAIN_ID, Epochs(10, EpochParams()), rules or Rules())
        self.state.models["simulated"] = Model("simulated")
        self.chain = Blockchain(self.state, START_NS, height)
        self.node = ChainNode(self.chain, random.Random(drop_seed))
        self.nodes = [self.node]
        self.add_account(self.key, 1)
        self._timeouts = 0

    def add_account(self, key: Key, number: int) -> None:
        self.state.accounts[key.address] = Account(key.address, number)
        self.state.participants[key.address] = 1

    def add_node(self, **settings: Any) -> ChainNode:
        """Add a node with these settings that has all blocks."""
        self.nodes.append(ChainNode(self.chain, random.Random(0), NodeSettings(**settings)))
        return self.nodes[-1]

    @property
    def now_ns(self) -> int:
        return self.chain.latest.time_ns

    def tx(self, *messages: Packed, key: Key | None = None, **changes: Any) -> bytes:
        """Sign messages with a timeout of its own, 60 s ahead."""
        self._timeouts += 1
        changes.setdefault("timeout_ns", self.now_ns + 60 * SECOND_NS + self._timeouts)
        return transaction(key or self.key, *messages, **changes)

    def batch(self, **changes: Any) -> Packed:
        return batch(self.key.address, **changes)

    def advance(self, height: int) -> None:
        """Make blocks up to ``height``."""
        while self.chain.latest.height < height:
            self.chain.produce_block(self.now_ns + SECOND_NS)
            for node in self.nodes:
                node.follow()

    def check(self, raw: bytes) -> tuple[str, int]:
        """Broadcast, and give CheckTx's codespace and code."""
        result = self.node.broadcast(raw)
        return result.codespace, result.code

    def record(self, raw: bytes) -> TxRecord:
        """Broadcast what CheckTx must pass, and return what became of it in the next block."""
        result = self.node.broadcast(raw)
        assert result.code == 0, result
        self.advance(self.chain.latest.height + 1)
        record = self.chain.find(result.hash)
        assert record is not None
        return record

    def deliver(self, raw: bytes) -> tuple[str, int]:
        """Broadcast what CheckTx must pass, and return codespace and code of the next block."""
        record = self.record(raw)
        return record.codespace, record.code

    def deliver_at(self, height: int, *messages: Packed, **changes: Any) -> tuple[str, int]:
        """Deliver in the block at ``height``."""
        self.advance(height - 1)
        return self.deliver(self.tx(*messages, **changes))


OK = ("", 0)
