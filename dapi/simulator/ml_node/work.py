"""What a simulated ML node computes: nonces, their distances, and verdicts on other participants' batches.

The results follow from the inputs alone, so two nodes with the same request compute the same. Bodies are checked as
docs/protocol/node.md, 'Init request' and 'Batches', has them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

DISTANCE_LIMIT = 1.5
"""Distances are spread evenly over 0 … 1.5, so a few nonces fail at the network's target (1.40…)."""
HONEST_MISS_RATE = 5e-4
"""The share of invalid nonces that an honest participant may have (docs/protocol/node.md, 'Batches')."""
_TRIES_PER_NONCE = 1000


class BodyError(Exception):
    """A body does not fit the call; ``field`` names the wrong field (empty: the body itself)."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


def _is_a(value: Any, kind: str) -> bool:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if kind.startswith("list of "):
        return isinstance(value, list) and all(_is_a(item, kind.removeprefix("list of ")) for item in value)
    return {
        "text": isinstance(value, str),
        "integer": is_int,
        "number": is_int or isinstance(value, float),
        "object": isinstance(value, dict),
    }[kind]


def checked(body: Any, fields: dict[str, str]) -> dict[str, Any]:
    """Return the named fields of a decoded body; raise BodyError when one is missing or of another type."""
    if not isinstance(body, dict):
        raise BodyError("", "Input should be an object")
    for name, kind in fields.items():
        if name not in body:
            raise BodyError(name, "Field required")
        if not _is_a(body[name], kind):
            raise BodyError(name, f"Input should be a valid {kind}")
    return {name: body[name] for name in fields}


_INIT_FIELDS = {
    "block_hash": "text",
    "block_height": "integer",
    "public_key": "text",
    "batch_size": "integer",
    "r_target": "number",
    "fraud_threshold": "number",
    "params": "object",
    "node_id": "integer",
    "node_count": "integer",
    "url": "text",
}
_BATCH_FIELDS = {
    "public_key": "text",
    "block_hash": "text",
    "block_height": "integer",
    "nonces": "list of integer",
    "dist": "list of number",
    "node_id": "integer",
}


@dataclass(frozen=True)
class InitRequest:
    """What a node works on. ``node_num`` is ``node_id`` of the body: the node's number; ``url`` the callbacks' base."""

    block_hash: str
    block_height: int
    public_key: str
    batch_size: int
    r_target: float
    fraud_threshold: float
    params: dict[str, Any]
    node_num: int
    node_count: int
    url: str

    @classmethod
    def from_body(cls, body: Any) -> InitRequest:
        """Check the body of an init call; raise BodyError."""
        fields = checked(body, _INIT_FIELDS)
        return cls(node_num=fields.pop("node_id"), **fields)


def proof_batch(body: Any) -> dict[str, Any]:
    """Check the body of a ``/pow/validate`` call and return the batch; raise BodyError. Lengths may differ."""
    return checked(body, _BATCH_FIELDS)


def distance(public_key: str, block_hash: str, block_height: int, nonce: int) -> float:
    """Return the distance of a nonce, 0 … DISTANCE_LIMIT."""
    seed = f"{public_key}/{block_hash}/{block_height}/{nonce}".encode()
    number = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big")
    return number / 2**64 * DISTANCE_LIMIT


class Generator:
    """Makes the batches of one request, in order.

    Node k of N tries the nonces k, k + N, k + 2N, … and keeps those whose distance is below the target. (The formula of
    docs/protocol/node.md, 'Init request', comes to the same, over all groups of GPUs.)
    """

    def __init__(self, request: InitRequest) -> None:
        self._request = request
        self._nonce = request.node_num

    def batch(self, count: int) -> dict[str, Any]:
        """Return a batch of the next ``count`` nonces; of fewer when hardly any is below the target."""
        request = self._request
        nonces: list[int] = []
        distances: list[float] = []
        for _ in range(count * _TRIES_PER_NONCE):
            if len(nonces) == count:
                break
            found = distance(request.public_key, request.block_hash, request.block_height, self._nonce)
            if found < request.r_target:
                nonces.append(self._nonce)
                distances.append(found)
            self._nonce += max(request.node_count, 1)
        return {
            "public_key": request.public_key,
            "block_hash": request.block_hash,
            "block_height": request.block_height,
            "nonces": nonces,
            "dist": distances,
            "node_id": request.node_num,
        }


def validated_batch(request: InitRequest, claimed: dict[str, Any], *, with_nan: bool = False) -> dict[str, Any]:
    """Return the verdict of a node that runs ``request`` on the batch that another participant claimed."""
    recomputed = [
        distance(claimed["public_key"], claimed["block_hash"], claimed["block_height"], nonce)
        for nonce in claimed["nonces"]
    ]
    invalid = sum(found > request.r_target for found in recomputed)
    honest = probability_honest(len(recomputed), invalid)
    if with_nan and recomputed:
        recomputed[0] = math.nan
    return claimed | {
        "dist": recomputed,
        "received_dist": claimed["dist"],
        "r_target": request.r_target,
        "fraud_threshold": request.fraud_threshold,
        "n_invalid": invalid,
        "probability_honest": honest,
        "fraud_detected": honest < request.fraud_threshold,
    }


def probability_honest(nonces: int, invalid: int) -> float:
    """Return the probability that an honest participant has at least so many invalid nonces: a binomial tail."""
    # By logarithms, since the binomial coefficient of a large batch is too large for a float.
    hit, miss = math.log(HONEST_MISS_RATE), math.log1p(-HONEST_MISS_RATE)
    all_orders = math.lgamma(nonces + 1)
    fewer = math.fsum(
        math.exp(
            all_orders
            - math.lgamma(count + 1)
            - math.lgamma(nonces - count + 1)
            + count * hit
            + (nonces - count) * miss
        )
        for count in range(invalid)
    )
    return max(0.0, 1.0 - fewer)
