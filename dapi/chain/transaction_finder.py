"""Finds transactions in blocks, also where no node has an index of them.

With an index, a node is asked for each hash (``tx``). Where the index is off, or does not reach back far enough, the
blocks themselves are read: a transaction's hash is the SHA-256 of its bytes in ``block``, and its result stands at the
same place in ``block_results`` (docs/protocol/measured.md, 'Queries on a real chain').
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from twisted.internet.defer import Deferred, DeferredLock

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import TxResult
from dapi.errors import ChainPrunedError, ChainRefusedError, ChainUnavailableError


class Reach(msgspec.Struct, frozen=True, order=True):
    """How far it is known that a transaction is in no block: up to ``height``.

    A transaction whose timeout is below ``time_ns`` (nanoseconds since 1970) can be in no later block either. 0: no
    block has told the time yet.
    """

    height: int
    time_ns: int = 0


class Search(msgspec.Struct, frozen=True):
    """What is known of the transactions that were looked for.

    ``found`` has the results of those that are in a block, by hash. Each of the others is in no block up to its own
    ``reach``, as far as any node still keeps what it takes to tell: a block, or its results, that all have pruned are
    passed over. ``problem`` says why ``reach`` is not the latest block, or that nodes contradict each other; None when
    nothing hindered the search.
    """

    found: dict[str, TxResult]
    reach: dict[str, Reach]
    problem: str | None


class TransactionFinder:
    """Looks for the same transactions again and again, and reads each block once for all of them.

    It remembers of each transaction how far it has looked, and what it found, until the transaction is not wanted any
    more. Nothing else grows. One search reads ``max_blocks`` blocks at most, one at a time in memory; the next search
    goes on from there.
    """

    def __init__(self, rpc: ChainRpc, *, max_blocks: int = 20) -> None:
        self._rpc = rpc
        self._max_blocks = max_blocks
        self._lock = DeferredLock()
        self._found: dict[str, TxResult] = {}
        self._reach: dict[str, Reach] = {}

    def find(self, wanted: Mapping[str, int]) -> Deferred[Search]:
        """Look for transactions: their hashes (upper-case hex), with the first height whose block may have each.

        Fires with what is known of them now, also when the chain cannot be asked. It fails only when it is cancelled,
        as it is when ``rpc`` is closed. A search waits until the one before is over.
        """
        return Deferred.fromCoroutine(self._find(dict(wanted)))

    async def _find(self, wanted: dict[str, int]) -> Search:
        async with self._lock:
            self._keep_only(wanted)
            known, problem = await self._look_up()
            try:
                await self._read_blocks(self._reach.keys() - known)
            except (ChainUnavailableError, ChainRefusedError) as error:
                problem = str(error)
            return Search(dict(self._found), dict(self._reach), problem)

    def _keep_only(self, wanted: Mapping[str, int]) -> None:
        """Forget what is not wanted any more, and begin with what is new."""
        self._found = {tx_hash: result for tx_hash, result in self._found.items() if tx_hash in wanted}
        self._reach = {
            tx_hash: self._reach.get(tx_hash, Reach(first_height - 1))
            for tx_hash, first_height in wanted.items()
            if tx_hash not in self._found
        }

    async def _look_up(self) -> tuple[set[str], str | None]:
        """Ask nodes that have an index; return the transactions whose blocks need not be read.

        The second value says that the nodes contradict each other, None when they do not.
        """
        if not self._reach or not self._rpc.nodes.has_tx_index():
            return set(), None
        try:
            lookups = await self._rpc.lookup_all(list(self._reach))
        except (ChainUnavailableError, ChainRefusedError):
            return set(), None
        self._remember(lookups.results)
        status = lookups.status
        # What was before the node's first block may not be in its index either.
        known = {tx_hash for tx_hash, reach in self._reach.items() if reach.height + 1 >= status.earliest_height}
        for tx_hash in known - lookups.unsettled:
            # Nodes index a block shortly after they count it as their latest.
            self._advance(tx_hash, Reach(status.height - 1, status.block_time_ns))
        return known | lookups.unsettled, lookups.contradiction

    async def _read_blocks(self, wanted: Collection[str]) -> None:
        """Read the blocks from the first that is not known yet."""
        if not wanted:
            return
        latest = (await self._rpc.status()).height
        height = min(self._reach[tx_hash].height for tx_hash in wanted) + 1
        for _ in range(self._max_blocks):
            if height > latest or not self._reach.keys() & set(wanted):
                return
            try:
                await self._read_block(height, wanted, is_latest=height == latest)
                height += 1
            except ChainPrunedError as error:
                if error.lowest is None or error.lowest <= height:
                    raise
                height = error.lowest
                self._give_up_before(height, wanted)

    async def _read_block(self, height: int, wanted: Collection[str], *, is_latest: bool) -> None:
        content = await self._rpc.block_transactions(height)
        looked_for = {tx_hash for tx_hash in wanted if tx_hash in self._reach and self._reach[tx_hash].height < height}
        places = {place: tx_hash for place, tx_hash in enumerate(content.hashes) if tx_hash in looked_for}
        if places:
            try:
                results = await self._rpc.block_results(height, places)
                self._remember({result.hash: result for result in results})
            except ChainPrunedError:
                # The results of the latest block come a moment after it.
                if is_latest:
                    raise
        for tx_hash in looked_for:
            self._advance(tx_hash, Reach(height, content.block.time_ns))

    def _remember(self, results: Mapping[str, TxResult]) -> None:
        self._found.update(results)
        for tx_hash in results:
            self._reach.pop(tx_hash, None)

    def _advance(self, tx_hash: str, reach: Reach) -> None:
        if tx_hash in self._reach:
            self._reach[tx_hash] = max(self._reach[tx_hash], reach)

    def _give_up_before(self, height: int, wanted: Collection[str]) -> None:
        """Go on from ``height`` with those that may have been in blocks before it."""
        for tx_hash in wanted:
            reach = self._reach.get(tx_hash)
            if reach is not None and reach.height + 1 < height:
                self._reach[tx_hash] = Reach(height - 1)
