"""The seed that a participant submits at the start of each epoch's PoC: without one it gets no weight.

Derivation as in the network's own software: the epoch's index, 8 bytes big-endian, is signed with the signer's key; the
first 8 bytes of that signature, without their highest bit, are the seed (1 instead of 0); its signature is submitted.
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

    async def store(self, stage: PocStage) -> dict[object, str]:
        """Store the seed of a stage's epoch, unless that was done; return what is urgent about it, in words.

        A full disk takes nothing new; the nodes need not wait for that: they keep what they cannot deliver yet.
        """
        epoch = stage.epoch_index
        if not stage.is_confirmation and epoch != self._stored_epoch:
            try:
                await self._outbox.put(seed_entry(self._key, epoch, stage.height))
            except StoreBusyError as error:
                return {"seed": f"the seed of epoch {epoch} is not kept yet: {error}"}
            self._stored_epoch = epoch
        return {}


def seed_of(key: SigningKey, epoch_index: int) -> int:
    """Return the seed for an epoch, 1 to 2**63 - 1."""
    signature = key.sign(epoch_index.to_bytes(8, "big"))
    return (int.from_bytes(signature[:8], "big") & (_HIGHEST_BIT - 1)) or 1


def seed_entry(key: SigningKey, epoch_index: int, height: int) -> OutboxEntry:
    """Return the outbox entry of an epoch's seed; its id is the epoch's, so that it is kept once.

    ``height`` is the start of the epoch's PoC.
    """
    signature = key.sign(seed_of(key, epoch_index).to_bytes(8, "big")).hex()
    return OutboxEntry(
        batch_id=f"seed-{epoch_index}",
        kind=Kind.SEED,
        node_id=None,
        height=height,
        nonces=0,
        via=Via.OWN,
        message=MsgSubmitSeed(epoch_index=epoch_index, signature=signature).SerializeToString(),
    )
