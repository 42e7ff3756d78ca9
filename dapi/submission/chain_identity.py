"""Sees to it that the database is of the chain that is followed, before anything is sent or decided for that chain.

The database knows the chain's id and one of its latest blocks. A chain is another one when its id is another, when its
height fell while its time rose, or when it has another block at that height: a test network begins anew like this,
often under its old id (docs/protocol/measured.md, 'Chain nodes that fail').

A single answer may have been a lie: then the block that is kept was never there, and all that waits would be given up
for it. So a chain that has the block at which our latest stage began is the same one, whatever the kept block says.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from dapi.chain.identity import contradiction
from dapi.chain.queries import contradiction_to
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import BlockInfo, ChainStatus
from dapi.errors import ChainPrunedError, ChainUnavailableError
from dapi.submission.submissions import Submissions

# A chain that is not followed for longer may have begun anew meanwhile, and come to our height again.
_BLOCKS_MISSED = 2
# The block that is kept is so recent that a pruned node still has it when dapi starts again.
_BLOCKS_BETWEEN_KEPT = 20


class ChainIdentity:
    """Enters the chain: whoever acts on a block calls ``enter`` with it first.

    At the first call the database begins afresh if it is of another chain. When this process finds later that the chain
    is another one, ``on_another_chain`` is called with the reason: all parts have to be made anew then, because they
    remember the old one.
    """

    log = Logger()

    def __init__(self, rpc: ChainRpc, submissions: Submissions, on_another_chain: Callable[[str], object]) -> None:
        self._rpc = rpc
        self._submissions = submissions
        self._on_another_chain = on_another_chain
        self._entering = DeferredLock()
        # The latest block that is known to be of the database's chain, None before the first call.
        self._latest: BlockInfo | None = None
        self._next_kept_height = 0

    async def enter(self, head: ChainStatus) -> None:
        """Return when it is certain that ``head`` is of the database's chain; usually at once.

        Raises StoreError, and ChainError when it cannot be told now, or when the chain is another one.
        """
        async with self._entering:
            if self._latest is None:
                await self._enter_first(head.block)
            elif head.height > self._latest.height:
                await self._go_on(self._latest, head.block)
            else:
                return
            if head.height >= self._next_kept_height:
                await self._submissions.keep_block(head.block)
                self._next_kept_height = head.height + _BLOCKS_BETWEEN_KEPT
            self._latest = head.block

    async def _enter_first(self, block: BlockInfo) -> None:
        known = await self._submissions.known_block()
        other = None
        if known is not None:
            try:
                other = await contradiction_to(self._rpc, known)
            except ChainPrunedError as error:
                text = "block {height}, which tells one chain from another, is not there any more: {error}"
                self.log.info(text, height=known.height, error=str(error))
        if known is not None and other is not None and await self._has_our_stage(known, block):
            text = "it is the same chain all the same, since it has the block of our latest stage: {reason}"
            self.log.warn(text, reason=other)
            other = None
        await self._submissions.enter_chain(block, other)

    async def _has_our_stage(self, known: BlockInfo, block: BlockInfo) -> bool:
        if known.chain_id != block.chain_id:
            return False
        stage = await self._submissions.latest_stage_block(block.height)
        if stage is None:
            return False
        height, block_hash = stage
        try:
            found = await self._rpc.block(height)
        except ChainPrunedError:
            return False
        return found.hash.upper() == block_hash.upper()

    async def _go_on(self, latest: BlockInfo, block: BlockInfo) -> None:
        """Make sure that the chain of our latest block goes on with this one; raises ChainUnavailableError if not."""
        other = contradiction(latest, block)
        if other is None and block.height > latest.height + _BLOCKS_MISSED:
            try:
                other = contradiction(latest, await self._rpc.block(latest.height))
            except ChainPrunedError:
                return
        if other is not None:
            self._on_another_chain(other)
            raise ChainUnavailableError(f"another one: {other}")
