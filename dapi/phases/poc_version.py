"""Which proof of compute the network runs: one for the whole of dapi, whoever finds it out.

The chain says it (``poc_v2_enabled`` in its EpochInfo), and so does each refusal of a v1 message::

               says v1                  says v2, or refuses v1
    UNKNOWN ────────────▶ V1 ─────────────────────────────────▶ V2
       │                   ▲                                     │ ▲
       │                   └──────────────says v1────────────────┘ │
       └──────────────────says v2, or refuses v1───────────────────┘

Only in V1 a v1 message is sent and a v1 command is given: on a network with PoC v2 each v1 command would stop the vLLM
in which the proof of compute runs. V2 is left when the chain says v1 again. A chain that says v1 and refuses v1 all the
same is believed later each time. Facts: docs/protocol/chain.md, 'Newer chains'.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final

from twisted.logger import Logger

from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainError
from dapi.phases.epoch_queries import epoch_info
from dapi.phases.phases import EpochInfo
from dapi.timing.observers import Observers
from dapi.timing.steps import step

# While somebody else asks for the epoch at each block, nobody has to ask for this alone.
_BLOCKS_BETWEEN = 10
# So many blocks after a refusal the chain is believed again; twice as many after each further one, up to half an hour.
_FIRST_DOUBT_BLOCKS = 2
_MAX_DOUBT_BLOCKS = 360

MOVED = "the network has moved to PoC v2"
_REASON = (
    f"{MOVED}: dapi gives no node a command and sends nothing, and keeps everything; run the network's own api "
    "container for the proof of compute, and set poc.follow_chain: false here, or poc_v2.relay: true as well to have "
    "its callbacks kept ({reason})"
)


class PocVersionState(enum.Enum):
    """What is known of the network's proof of compute."""

    UNKNOWN = "the chain has not told"
    V1 = "v1"
    V2 = "v2"


_S = PocVersionState
TRANSITIONS: Final[Mapping[PocVersionState, frozenset[PocVersionState]]] = {
    _S.UNKNOWN: frozenset({_S.V1, _S.V2}),
    _S.V1: frozenset({_S.V2}),
    _S.V2: frozenset({_S.V1}),
}


class PocVersion:
    """Knows whether the network runs v1.

    ``moved_reason`` says in one sentence that it does not, and what to set; None in the other states.
    """

    log = Logger()

    def __init__(self, rpc: ChainRpc) -> None:
        self.state = PocVersionState.UNKNOWN
        self.moved_reason: str | None = None
        self._rpc = rpc
        self._on_change: Observers[[]] = Observers()
        # The height of the chain's latest word, and the height from which its 'v1' is believed.
        self._told_at = 0
        self._believed_from = 0
        self._doubt_blocks = _FIRST_DOUBT_BLOCKS

    @property
    def is_v1(self) -> bool:
        """Whether v1 messages and v1 commands may go out."""
        return self.state is PocVersionState.V1

    def observe(self, observer: Callable[[], object]) -> None:
        """Call ``observer`` each time the state has changed."""
        self._on_change.add(observer)

    async def ask(self, height: int) -> None:
        """Ask the chain at ``height``, the latest block's, unless it has told so lately that nobody needs to.

        Raises ChainError while the state is UNKNOWN; later a failed question leaves the state as it is.
        """
        between = _BLOCKS_BETWEEN if self.is_v1 else 1
        if self.state is not PocVersionState.UNKNOWN and height < self._told_at + between:
            return
        try:
            self.learn(await epoch_info(self._rpc, height))
        except ChainError as error:
            if self.state is PocVersionState.UNKNOWN:
                raise
            self.log.info("whether the network runs PoC v1 is not known anew: {error}", error=str(error))

    def learn(self, info: EpochInfo) -> None:
        """Take what the chain has said at a height; a word that is older than the latest changes nothing."""
        if info.block_height < self._told_at - _BLOCKS_BETWEEN:
            # It is another chain, or the same one that began anew: its heights do not compare.
            self._believed_from = 0
        elif info.block_height < self._told_at:
            return
        self._told_at = info.block_height
        if info.is_poc_v2:
            self._believed_from, self._doubt_blocks = 0, _FIRST_DOUBT_BLOCKS
            self._enter_v2(f"the chain's parameters say so at block {info.block_height}")
        elif not self.is_v1 and info.block_height >= self._believed_from:
            if self.state is PocVersionState.V2:
                self.log.warn("the network runs PoC v1 again: dapi gives commands and sends messages again")
            self._enter(PocVersionState.V1, None)

    def refused(self, reason: str) -> None:
        """Record that the chain, or what stands before it, refused v1; ``reason`` holds its words."""
        if self.state is PocVersionState.V2:
            return
        self._believed_from = self._told_at + self._doubt_blocks
        self._doubt_blocks = min(2 * self._doubt_blocks, _MAX_DOUBT_BLOCKS)
        self._enter_v2(reason)

    def _enter_v2(self, reason: str) -> None:
        if self.state is not PocVersionState.V2:
            self._enter(PocVersionState.V2, _REASON.format(reason=reason))
            self.log.critical("{reason}", reason=self.moved_reason)

    def _enter(self, state: PocVersionState, moved_reason: str | None) -> None:
        self.state, self.moved_reason = step(TRANSITIONS, self.state, state, "PoC's version"), moved_reason
        self._on_change()
