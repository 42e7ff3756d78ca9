"""How a batch of a rehearsal is told from one that counts: by the block hash that its node was given."""

from __future__ import annotations

from dapi.messages import ProofBatch

_MARK = "rehearsal-"
HEIGHT = 1
"""The height of the made-up stage. The block 1 of a chain begins no PoC."""
PUBLIC_KEY = "02" + "00" * 32
"""The participant of the made-up stage: the bytes of no key."""


def made_up_hash(number: int) -> str:
    """Return the block hash of a made-up stage; no block has it, since it is no hex."""
    return f"{_MARK}{number}"


def is_rehearsed(batch: ProofBatch) -> bool:
    """Tell whether a node generated a batch for a rehearsal, this one or an earlier one."""
    return batch.block_hash.startswith(_MARK)
