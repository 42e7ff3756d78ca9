"""The id of a batch, derived from what it says.

The same batch comes over both ways in different bytes (white space, order of fields). So the id is a digest of the
decoded values: every text with its length, every list with its count. The same values have the same id, and different
values have different ids.
"""

from __future__ import annotations

import hashlib
import struct

from dapi.messages.columns import doubles, integers, little_endian
from dapi.messages.wire import ProofBatch, ValidatedBatch

_SCALARS = struct.Struct("<qqQ")
_VERDICT = struct.Struct("<dddq?Q")


def run_id(block_hash: str, public_key: str) -> str:
    """Return the id of the run of a node that a batch with these comes from: 16 hex digits of SHA-256.

    In the right run a node computes with the block hash of the stage and the participant's key, both as text.
    """
    return hashlib.sha256(f"{len(block_hash)} {block_hash} {public_key}".encode()).hexdigest()[:16]


def content_id(batch: ProofBatch | ValidatedBatch) -> str:
    """Return the id of a batch: 64 hex digits of SHA-256."""
    header = [b"dapi/1/", b"validated" if isinstance(batch, ValidatedBatch) else b"generated"]
    for text in (batch.public_key, batch.block_hash):
        encoded = text.encode()
        header += (struct.pack("<Q", len(encoded)), encoded)
    header.append(_SCALARS.pack(batch.block_height, batch.node_num, len(batch.nonces)))
    digest = hashlib.sha256(b"".join(header))
    digest.update(little_endian(integers(batch.nonces)))
    digest.update(little_endian(doubles(batch.dist)))
    if isinstance(batch, ValidatedBatch):
        digest.update(
            _VERDICT.pack(
                batch.r_target,
                batch.fraud_threshold,
                batch.probability_honest,
                batch.n_invalid,
                batch.fraud_detected,
                len(batch.received_dist),
            )
        )
        digest.update(little_endian(doubles(batch.received_dist)))
    return digest.hexdigest()
