"""Batches to test with."""

from typing import Any

import msgspec

from dapi.messages import ProofBatch, ValidatedBatch

# The key of the worked example in the network's documents, and so a valid one.
PUBLIC_KEY = "031b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f"


def generated_fields(**changes: Any) -> dict[str, Any]:
    """The fields of a generated batch as they travel, with these changes."""
    return {
        "public_key": PUBLIC_KEY,
        "block_hash": "ABCDEF",
        "block_height": 1000,
        "nonces": [7, 300],
        "dist": [0.5, 1.25],
        "node_id": 1,
    } | changes


def validated_fields(**changes: Any) -> dict[str, Any]:
    """The fields of a validated batch as they travel, with these changes."""
    return (
        generated_fields(node_id=0)
        | {
            "received_dist": [0.25, 1.0],
            "r_target": 1.4013564660458173,
            "fraud_threshold": 1e-7,
            "n_invalid": 0,
            "probability_honest": 0.99,
            "fraud_detected": False,
        }
        | changes
    )


def generated_batch(**changes: Any) -> ProofBatch:
    """A generated batch with these changes."""
    return msgspec.convert(generated_fields(**changes), ProofBatch)


def validated_batch(**changes: Any) -> ValidatedBatch:
    """A validated batch with these changes."""
    return msgspec.convert(validated_fields(**changes), ValidatedBatch)
