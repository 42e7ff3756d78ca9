"""A chain's head that whoever measures or tests moves himself, in place of a BlockWatcher's."""

from __future__ import annotations

from collections.abc import Callable

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.nodes import ChainTrouble
from dapi.chain.rpc_answers import ChainStatus
from dapi.submission.chain_identity import ChainIdentity


class Heads(BlockWatcher):
    """The head ``head``, without asking for it; ``move`` changes it and tells the only observer."""

    problem: str | None = None
    trouble: ChainTrouble | None = None

    def __init__(self, head: ChainStatus | None = None) -> None:
        self.head = head
        self.status_error = None
        self.ring: Callable[[], object] = lambda: None

    def observe(self, observer: Callable[[], object]) -> None:
        """Keep the only observer."""
        self.ring = observer

    def move(self, head: ChainStatus) -> None:
        """Make a block."""
        self.head = head
        self.ring()


class SameChain(ChainIdentity):
    """Takes every head for one of the database's chain."""

    def __init__(self) -> None:
        pass

    async def enter(self, head: ChainStatus) -> None:
        """Return at once."""
