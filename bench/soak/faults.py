"""What goes wrong in a soak, and when: decided in advance by the seed, block by block."""

from __future__ import annotations

import random
import zlib
from typing import Any

from bench.soak.settings import PARAMS, SoakSettings
from dapi.simulator.chain.chain import SimulatedChain
from dapi.simulator.chain.messages import (
    ClaimRewards,
    HostMessage,
    SubmitHardwareDiff,
    SubmitPocBatch,
    SubmitPocValidation,
    SubmitSeed,
)
from dapi.simulator.chain.node_service import SimulatedNode
from dapi.simulator.chain.rules import TxRefused

_GRANTED = (SubmitPocBatch, SubmitPocValidation, SubmitSeed, SubmitHardwareDiff, ClaimRewards)
# In blocks: 10 to 60 s of the real chain.
_STALL_BLOCKS = (2.0, 12.0)
_SOUND_BLOCKS, _FAILING_BLOCKS = (4, 10), (6, 16)


def is_refused(height: int, nonce: int, fraction: float) -> bool:
    """Tell whether the chain refuses a batch, by its stage and its first nonce."""
    return zlib.crc32(f"{height}/{nonce}".encode()) < fraction * 2**32


class Faults:
    """Makes the chain, its first node and the grant fail.

    ``has_grant`` is whether the next block finds the grant; ``said`` counts what was done.
    """

    def __init__(
        self, reactor: Any, settings: SoakSettings, chain: SimulatedChain, participant: str, signer: str
    ) -> None:
        self.has_grant = False
        self.said: dict[str, int] = dict.fromkeys(("stalls", "partitioned", "frozen", "catching up"), 0)
        self.stalled_seconds = 0.0
        self._reactor = reactor
        self._settings = settings
        self._chain = chain
        self._grants = [(participant, signer, message.TYPE_URL) for message in _GRANTED]
        self._random = random.Random(settings.seed)
        self._stalls = self._plan_stalls() if "stalls" in settings.faults else {}
        self._node = self._plan_node() if "node" in settings.faults else {}
        self._missing = self._plan_grant() if "grant" in settings.faults else set()
        if "stale" in settings.faults:
            chain.state.refuse_message = self._refuse
        self._set_grant(1 not in self._missing)

    def block_made(self, height: int) -> list[str]:
        """Do what is planned after a block; return it in words."""
        done = []
        has_grant = height + 1 not in self._missing
        if has_grant is not self.has_grant:
            self._set_grant(has_grant)
            done.append("the grant is given" if has_grant else "the grant is revoked")
        if height in self._node:
            self._fail(self._chain.nodes[0], self._node[height])
            done.append(f"the first node is {self._node[height]}")
        if height in self._stalls:
            self._stall(self._stalls[height])
            done.append(f"the chain stalls for {self._stalls[height]:.1f} s")
        return done

    def stale_height(self, height: int, nonce: int) -> int | None:
        """Return the wrong height that a batch carries: that of the stage before, or one that is no stage's."""
        fraction = self._settings.stale_fraction / 2 if "stale" in self._settings.faults else 0.0
        if zlib.crc32(f"stale {height}/{nonce}".encode()) >= fraction * 2**32:
            return None
        before = height - PARAMS.epoch_length
        return before if before > 0 and nonce % 2 else height - 1

    def _refuse(self, message: HostMessage) -> TxRefused | None:
        if not isinstance(message, SubmitPocBatch):
            return None
        fraction = self._settings.stale_fraction / 2
        if not is_refused(message.poc_stage_start_block_height, message.nonces[0], fraction):
            return None
        return TxRefused("sdk", 18, "the soak refuses this batch: invalid request")

    def _plan_stalls(self) -> dict[int, float]:
        """Plan one stall while nodes generate, and one anywhere else, in each epoch."""
        stalls = {}
        for start in self._settings.starts:
            generating = start + self._random.randrange(3, PARAMS.poc_stage_duration)
            elsewhere = start + self._random.randrange(PARAMS.poc_stage_duration, PARAMS.epoch_length)
            for height in (generating, elsewhere):
                stalls[height] = self._random.uniform(*_STALL_BLOCKS) * self._settings.block_seconds
        return stalls

    def _plan_node(self) -> dict[int, str]:
        """Plan the faults of the first node in turn, with sound blocks between them."""
        planned, height = {}, self._settings.starts[0]
        while height < self._settings.last_height:
            for fault in ("partitioned", "frozen", "catching up"):
                height += self._random.randint(*_SOUND_BLOCKS)
                planned[height] = fault
                height += self._random.randint(*_FAILING_BLOCKS)
                planned[height] = f"no longer {fault}"
        return planned

    def _plan_grant(self) -> set[int]:
        """Return the heights of the blocks that find no grant."""
        settings = self._settings
        if settings.grant_by == "run":
            return set(range(1, int(settings.grant_missing * settings.last_height)))
        missing = int(settings.grant_missing * (PARAMS.poc_stage_duration + PARAMS.poc_exchange_duration))
        return {start + number for start in settings.starts for number in range(1, missing + 1)}

    def _set_grant(self, has_grant: bool) -> None:
        self.has_grant = has_grant
        for granter, grantee, url in self._grants:
            if has_grant:
                self._chain.grant(granter, grantee, url)
            else:
                self._chain.state.grants.pop((granter, grantee, url), None)

    def _fail(self, node: SimulatedNode, fault: str) -> None:
        if fault in self.said:
            self.said[fault] += 1
        match fault:
            case "partitioned":
                node.partition()
            case "no longer partitioned":
                node.reconnect()
            case "frozen":
                node.freeze()
            case "no longer frozen":
                node.thaw()
            case "catching up":
                node.switches.is_catching_up, node.switches.lag_blocks = True, 4
            case "no longer catching up":
                node.switches.is_catching_up, node.switches.lag_blocks = False, 0

    def _stall(self, seconds: float) -> None:
        self.said["stalls"] += 1
        self.stalled_seconds += seconds
        self._chain.is_halted = True
        # The chain's clock goes on while it stands.
        self._chain.pass_block_time(seconds * 5.0 / self._settings.block_seconds)
        self._reactor.callLater(seconds, setattr, self._chain, "is_halted", False)
