"""What is made of a stage's batches before ML nodes get them: queried, joined, cleared, sampled.

Facts: docs/protocol/chain.md, 'Validation'.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import random
from collections.abc import Iterable
from typing import Any

import attrs
import msgspec
from twisted.internet.threads import deferToThreadPool

from dapi.chain.rpc import ChainRpc
from dapi.errors import MessageError
from dapi.messages import ProofBatch
from dapi.messages.addresses import address_of
from dapi.mlnode.client import R_TARGET
from dapi.phases.stage_queries import ParticipantBatches, StoredNonces, poc_batches_for_stage

DEFAULT_SAMPLE_SIZE = 200


@attrs.frozen(kw_only=True)
class Sampling:
    """By what a stage's batches are sampled.

    ``public_key`` is ours in hex, ``block_hash`` and ``block_height`` are the stage's as the nodes were told them.
    ``size`` nonces are taken of each participant (0, as the chain may say: 200), all where there are fewer. ``secret``
    is known here alone: all else is public, and who can foresee which nonces are checked has to compute no others.
    """

    public_key: str
    block_hash: str
    block_height: int
    size: int
    secret: bytes = attrs.field(repr=False)


class Dropped(msgspec.Struct, frozen=True):
    """What is not validated: nonces, whole batches, and participants of whom nothing can be validated."""

    nonces: int = 0
    batches: int = 0
    participants: int = 0


class Samples(msgspec.Struct, frozen=True):
    """A batch to validate for each participant, and what was dropped."""

    batches: list[ProofBatch]
    dropped: Dropped


async def query_samples(reactor: Any, rpc: ChainRpc, sampling: Sampling, at_height: int) -> Samples:
    """Query the stage's batches as the block ``at_height`` left them, and sample them on a thread of the pool.

    Raises ChainUnavailableError or ChainRefusedError, as ``poc_batches_for_stage`` does.
    """
    found = await poc_batches_for_stage(reactor, rpc, sampling.block_height, at_height)
    return await deferToThreadPool(reactor, reactor.getThreadPool(), sample_batches, found, sampling)


def sample_batches(found: Iterable[ParticipantBatches], sampling: Sampling) -> Samples:
    """Make the batch of each participant of whom there is anything to validate; the same for the same arguments.

    Dropped: a batch with another number of distances than of nonces; a nonce whose distance is not finite or not
    below the target; a participant without a nonce that is left, and one whose key is not that of its address, since
    no verdict on it could be submitted.
    """
    samples = []
    nonces = batches = participants = 0
    for participant in found:
        sound = [batch for batch in participant.batches if len(batch.nonces) == len(batch.dist)]
        joined = join(sound)
        usable = clear(joined)
        batches += len(participant.batches) - len(sound)
        nonces += len(joined) - len(usable)
        if not usable or not _is_own_key(participant):
            participants += 1
            continue
        picked = pick(usable, sampling, participant.public_key)
        samples.append(
            ProofBatch(
                public_key=participant.public_key,
                block_hash=sampling.block_hash,
                block_height=sampling.block_height,
                nonces=picked,
                dist=[joined[nonce] for nonce in picked],
                # It names no node: the batch is of many.
                node_num=0,
            )
        )
    return Samples(samples, Dropped(nonces, batches, participants))


def join(batches: list[StoredNonces]) -> dict[int, float]:
    """Return the distance of each nonce of a participant; of a repeated nonce, that which comes first."""
    joined: dict[int, float] = {}
    # Backwards, so that what comes first overwrites: a loop over millions of nonces would take seconds.
    for batch in reversed(batches):
        joined.update(zip(reversed(batch.nonces), reversed(batch.dist), strict=True))
    return joined


def clear(joined: dict[int, float]) -> list[int]:
    """Return the nonces that a node can be asked about: a distance of R_TARGET or more kills the node's sender."""
    # No comparison with NaN holds.
    return [nonce for nonce, distance in joined.items() if -math.inf < distance < R_TARGET]


def pick(nonces: list[int], sampling: Sampling, participant_key: str) -> list[int]:
    """Return as many of the nonces as are to be validated, a choice that needs the secret to be foreseen."""
    size = sampling.size if sampling.size > 0 else DEFAULT_SAMPLE_SIZE
    if len(nonces) <= size:
        return nonces
    # The participant is part of it: else equal numbers of nonces would be sampled at equal places.
    text = f"{sampling.public_key}:{sampling.block_hash}:{sampling.block_height}:{participant_key}"
    seed = hmac.digest(sampling.secret, text.encode(), hashlib.sha256)
    # Nobody sees its output, which is all that it lacks to be safe.
    return random.Random(seed).sample(nonces, size)  # noqa: S311


def _is_own_key(participant: ParticipantBatches) -> bool:
    try:
        return address_of(participant.public_key) == participant.participant
    except MessageError:
        return False
