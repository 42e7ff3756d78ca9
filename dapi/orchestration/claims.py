"""Claims what the participant is owed for an epoch, in the one epoch in which the chain pays it.

Source: docs/protocol/chain.md, 'Claims'. What the chain answers to a claim is read in ``dapi.submission.answers``.
"""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.logger import Logger

from dapi.chain.keyring import SigningKey
from dapi.chain.rpc import ChainRpc
from dapi.messages import Kind, State, Via
from dapi.messages.host_pb2 import MsgClaimRewards
from dapi.orchestration.seed import seed_of, seed_signature
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.outbox.pages import BatchRow, is_ahead
from dapi.phases.host_queries import Owed, owed_rewards
from dapi.phases.phases import EpochInfo, regular_stage
from dapi.submission.answers import amount_paid

# While nothing is owed, the chain is asked again after so many blocks: it may settle the epoch later than was expected.
_LOOK_AGAIN_BLOCKS = 10


class DueClaim(msgspec.Struct, frozen=True):
    """An epoch that the chain pays for now; its claim carries the height of the stage that settled it."""

    epoch_index: int
    stage_height: int


class Claim(msgspec.Struct, frozen=True):
    """What became of the claim for an epoch.

    ``owed`` is what is left to be claimed, None when that is not known; ``paid`` is what was paid, None before that,
    and when the chain did not say how much. Both are in its smallest coin. ``state`` is that of the message, None where
    there is none; ``reason`` says why it is in that state.
    """

    owed: int | None
    paid: int | None
    state: State | None
    reason: str | None


def due_claim(info: EpochInfo) -> DueClaim | None:
    """Return which epoch the chain pays for in the next block, None before the first one can be."""
    stage = regular_stage(info.parameters, info.index, info.poc_start)
    if info.block_height >= stage.claims.first - 1:
        epoch_index, height = info.index - 1, stage.height
    else:
        # The latest epoch is not in force yet.
        epoch_index, height = info.index - 2, stage.height - info.parameters.epoch_length
    return DueClaim(epoch_index, height) if epoch_index > 0 else None


def claim_entry(key: SigningKey, due: DueClaim) -> OutboxEntry:
    """Return the outbox entry of a claim, under an id of its epoch."""
    return OutboxEntry(
        batch_id=f"claim-{due.epoch_index}",
        kind=Kind.CLAIM,
        node_id=None,
        height=due.stage_height,
        nonces=0,
        via=Via.OWN,
        message=MsgClaimRewards(seed=seed_of(key, due.epoch_index), epoch_index=due.epoch_index).SerializeToString(),
    )


class Unpaid(msgspec.Struct, frozen=True):
    """What is owed for an epoch, and will not be paid without help: ``coins`` of the chain's smallest.

    The claim has ended in ``state``, for ``reason``; with a None in both, the seed was signed by another key.
    """

    epoch_index: int
    coins: int
    state: State | None = None
    reason: str | None = None


class Claiming:
    """Stores a claim for the chain when it owes something for the epoch that it pays for now, once an epoch."""

    log = Logger()
    name = "claim"

    def __init__(self, rpc: ChainRpc, outbox: Outbox, key: SigningKey, participant: str) -> None:
        self._rpc = rpc
        self._outbox = outbox
        self._key = key
        self._participant = participant
        self._due: DueClaim | None = None
        self._owed: Owed | None = None
        # The height at which nothing was owed any more, None before.
        self._over_at: int | None = None
        self._unpaid: Unpaid | None = None

    async def look(self, info: EpochInfo) -> None:
        """Ask what is owed, and store the claim; raises ChainError or StoreError."""
        due = due_claim(info)
        if due != self._due:
            self._due, self._owed, self._over_at, self._unpaid = due, None, None, None
        if due is None or (self._over_at is not None and info.block_height < self._over_at + _LOOK_AGAIN_BLOCKS):
            return
        row = (await self._rows()).get(due.epoch_index)
        if row is not None and is_ahead(row, info.block_height):
            return
        owed = await owed_rewards(self._rpc, self._participant, info.block_height)
        self._owed = owed if owed is not None and owed.epoch_index == due.epoch_index else None
        await self._act(due, row, info.block_height)

    async def _act(self, due: DueClaim, row: BatchRow | None, height: int) -> None:
        epoch, owed = due.epoch_index, self._owed
        was_over, self._over_at = self._over_at is not None, None
        if owed is None:
            self._unpaid = None
            if row is None or row.state not in (State.STORED, State.IN_FLIGHT):
                self._over_at = height
            if self._over_at is not None and not was_over:
                paid = amount_paid(row.reason) if row is not None else None
                text = "epoch {epoch}: nothing is owed" if paid is None else "epoch {epoch}: {paid} were paid"
                self.log.info(text, epoch=epoch, paid=paid)
        elif row is not None:
            is_finished = row.state not in (State.STORED, State.IN_FLIGHT)
            self._unpaid = Unpaid(epoch, owed.coins, row.state, row.reason) if is_finished else None
        elif owed.seed_signature and owed.seed_signature.lower() != seed_signature(self._key, epoch):
            self._unpaid = Unpaid(epoch, owed.coins)
        else:
            self.log.info("epoch {epoch}: {coins} are owed, and are claimed", epoch=epoch, coins=owed.coins)
            await self._outbox.put(claim_entry(self._key, due))

    def status(self) -> dict[str, Any]:
        """Return the epoch that the chain pays for now, and what it owes for it as far as it was asked."""
        return {
            "epoch_index": self._due.epoch_index if self._due is not None else None,
            "owed": self._owed.coins if self._owed is not None else 0,
            "unpaid": self._unpaid,
        }

    async def claims(self) -> dict[int, Claim]:
        """Return what became of the latest claims, by epoch; raises StoreError."""
        claims = {
            epoch: Claim(
                owed=None,
                paid=amount_paid(row.reason) if row.state is State.CONFIRMED else None,
                state=row.state,
                reason=row.reason,
            )
            for epoch, row in (await self._rows()).items()
        }
        if self._due is not None and (self._owed is not None or self._over_at is not None):
            claim = claims.get(self._due.epoch_index, Claim(None, None, None, None))
            owed = self._owed.coins if self._owed is not None else 0
            claims[self._due.epoch_index] = msgspec.structs.replace(claim, owed=owed)
        return claims

    async def _rows(self) -> dict[int, BatchRow]:
        rows = (await self._outbox.batches(kind=Kind.CLAIM)).batches
        return {int(row.batch_id.rpartition("-")[2]): row for row in rows if row.is_of_this_chain}
