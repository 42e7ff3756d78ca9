"""A second node's word on what one node says is in a block.

A node can be wrong about that, or lie, and look healthy. What it says counts when another sound node with an index,
where there is one, does not deny it. Where that one has no such transaction in its index, its block decides: an index
may be broken. What is denied is looked for again, and its messages go into another transaction once its time has
passed. When it was in a block all the same, they are in two, under the same ids, and the chain keeps them once.

While two nodes contradict each other this goes on until the window ends. Nobody can tell which of them is wrong; to
send again costs a transaction a minute, and to believe the wrong one loses the messages. The contradiction is shown as
what keeps transactions from being confirmed, until people take one of the nodes out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial

import msgspec

from dapi.chain.rpc_answers import ChainStatus, TxLookups, TxResult
from dapi.timing.together import together

# Each has a connection of its own.
_ASKED_AT_ONCE = 8


class Witness(msgspec.Struct, frozen=True):
    """Another node: its ``status``, and how it is asked for a transaction, or for the hashes in a block."""

    status: ChainStatus
    transaction: Callable[[str], Awaitable[TxResult | None]]
    block: Callable[[int], Awaitable[Collection[str]]]

    async def heard_on(self, lookups: TxLookups) -> TxLookups:
        """Return of what was looked up what this node does not deny; fails as its calls do."""
        status, blocks = self.status, _Blocks(self.block)
        told = {
            tx_hash: result for tx_hash, result in lookups.results.items() if result.height >= status.earliest_height
        }
        unsettled = {tx_hash for tx_hash, result in told.items() if result.height > status.height}
        asked = [tx_hash for tx_hash in told if tx_hash not in unsettled]
        calls = [partial(self._agrees, told[tx_hash], blocks) for tx_hash in asked]
        answers = dict(zip(asked, await together(calls, at_once=_ASKED_AT_ONCE), strict=True))
        denied = [tx_hash for tx_hash, agrees in answers.items() if agrees is False]
        unsettled |= {tx_hash for tx_hash, agrees in answers.items() if agrees is None}
        if not denied and not unsettled:
            return lookups
        return TxLookups(
            min(lookups.status, status, key=lambda each: each.height) if denied else lookups.status,
            {tx_hash: result for tx_hash, result in lookups.results.items() if tx_hash not in {*denied, *unsettled}},
            frozenset(unsettled),
            self._contradiction(lookups.status.node, told[denied[0]]) if denied else None,
        )

    async def _agrees(self, told: TxResult, blocks: _Blocks) -> bool | None:
        """Tell whether this node says the same; None while it may be about to."""
        own = await self.transaction(told.hash)
        if own is not None:
            return (own.height, own.code) == (told.height, told.code)
        if told.height == self.status.height:
            return None
        return told.hash in await blocks.hashes(told.height)

    def _contradiction(self, other: str, told: TxResult) -> str:
        return (
            f"chain node {other} says that transaction {told.hash} is in block {told.height} with code {told.code},"
            f" and {self.status.node} denies it: one of them is wrong"
        )


class _Blocks:
    """The hashes in blocks, each asked for once."""

    def __init__(self, ask: Callable[[int], Awaitable[Collection[str]]]) -> None:
        self._ask = ask
        self._known: dict[int, Collection[str]] = {}

    async def hashes(self, height: int) -> Collection[str]:
        if height not in self._known:
            self._known[height] = await self._ask(height)
        return self._known[height]
