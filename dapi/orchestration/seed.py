"""The seed that a participant submits at the start of each epoch's PoC: without it the chain gives it no weight.

The participant signs the epoch's index (8 bytes, big-endian). The first 8 bytes of this signature without their highest
bit are the seed, or 1 where that is 0. It signs the seed in the same way, and submits that signature. Source:
docs/protocol/chain.md, 'Seeds'.
"""

from __future__ import annotations

from dapi.chain.keyring import SigningKey
from dapi.errors import StoreBusyError
from dapi.messages import Kind, Via
from dapi.messages.seed_pb2 import MsgSubmitSeed
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.phases.phases import PocStage

_HIGHEST_BIT = 1 << 63


class Seeds:
    """Stores the seed of each epoch for the chain, once."""

    def __init__(self, outbox: Outbox, key: SigningKey) -> None:
        self._outbox = outbox
        self._key = key
        self._stored_epoch: int | None = None

    async def store(self, stage: PocStage) -> str | None:
        """Store the seed of a regular stage's epoch unless that was done; return the problem if the disk is full.

        The nodes need not wait for it: they keep what they cannot deliver yet. Raises StoreError.
        """
        if stage.is_confirmation or stage.epoch_index == self._stored_epoch:
            return None
        try:
            await self._outbox.put(seed_entry(self._key, stage.epoch_index, stage.height))
        except StoreBusyError as error:
            return f"the seed of epoch {stage.epoch_index} is not kept yet: {error}"
        self._stored_epoch = stage.epoch_index
        return None


def seed_of(key: SigningKey, epoch_index: int) -> int:
    """Return the seed for an epoch, 1 to 2**63 - 1."""
    signature = key.sign(epoch_index.to_bytes(8, "big"))
    return (int.from_bytes(signature[:8], "big") & (_HIGHEST_BIT - 1)) or 1


def seed_signature(key: SigningKey, epoch_index: int) -> str:
    """Return the signature of an epoch's seed, in hex: the chain keeps it, and pays who can show the seed."""
    return key.sign(seed_of(key, epoch_index).to_bytes(8, "big")).hex()


def seed_entry(key: SigningKey, epoch_index: int, height: int) -> OutboxEntry:
    """Return the outbox entry of an epoch's seed, under an id of the epoch; its PoC starts at ``height``."""
    return OutboxEntry(
        batch_id=f"seed-{epoch_index}",
        kind=Kind.SEED,
        node_id=None,
        height=height,
        nonces=0,
        via=Via.OWN,
        message=MsgSubmitSeed(epoch_index=epoch_index, signature=seed_signature(key, epoch_index)).SerializeToString(),
    )
