"""The seed that a participant submits at the start of each epoch's PoC: without one it gets no weight.

Derivation as in the network's own software: the epoch's index, 8 bytes big-endian, is signed with the signer's key; the
first 8 bytes of that signature, without their highest bit, are the seed (1 instead of 0); its signature is submitted.
"""

from __future__ import annotations

from dapi.chain.keyring import SigningKey
from dapi.messages import Kind, Via
from dapi.messages.seed_pb2 import MsgSubmitSeed
from dapi.outbox.outbox import OutboxEntry

_HIGHEST_BIT = 1 << 63


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
