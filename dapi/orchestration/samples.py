"""Makes one batch to validate of all batches of a participant in a stage: a sample of the nonces that are usable.

Source of the facts: docs/protocol/chain.md, 'Validation'.
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
    """How a stage's batches are sampled.

    ``public_key`` is the validating participant's in hex; ``block_hash`` and ``block_height`` are the stage's, as its
    inits have them. ``size`` nonces are sampled of each participant; the chain may say 0 for 200. Everything but
    ``secret`` is public: whoever could foresee which nonces are checked would have to compute no others.
    """

    public_key: str
    block_hash: str
    block_height: int
    size: int
    secret: bytes = attrs.field(repr=False)


class Dropped(msgspec.Struct, frozen=True):
    """How many nonces and whole batches are not validated, and participants of whom nothing can be validated."""

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
    """Make a batch for each participant of whom anything can be validated; the same one for the same arguments.

    It drops a batch that has more nonces than distances, or fewer; a nonce whose distance is not finite or not below
    R_TARGET, which would kill the sender of the node that checks it; a participant without a usable nonce; and one
    whose key does not give its address, since no verdict on it could be submitted.
    """
    samples = []
    nonces = batches = participants = 0
    for participant in found:
        sound = [batch for batch in participant.batches if len(batch.nonces) == len(batch.dist)]
        joined = join(sound)
        # Every comparison with NaN is false.
        usable = [nonce for nonce, distance in joined.items() if -math.inf < distance < R_TARGET]
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
                # The nonces come from many nodes.
                node_num=0,
            )
        )
    return Samples(samples, Dropped(nonces, batches, participants))


def join(batches: list[StoredNonces]) -> dict[int, float]:
    """Return the distance of each nonce of a participant; the first distance of a repeated nonce counts."""
    joined: dict[int, float] = {}
    # Backwards, so that the first one overwrites the others: a loop over millions of nonces would take seconds.
    for batch in reversed(batches):
        joined.update(zip(reversed(batch.nonces), reversed(batch.dist), strict=True))
    return joined


def pick(nonces: list[int], sampling: Sampling, participant_key: str) -> list[int]:
    """Return a sample of the nonces, all if there are no more; nobody can foresee it without the secret."""
    size = sampling.size if sampling.size > 0 else DEFAULT_SAMPLE_SIZE
    if len(nonces) <= size:
        return nonces
    # With the participant's key: without it, participants with equally many nonces would be sampled at equal places.
    text = f"{sampling.public_key}:{sampling.block_hash}:{sampling.block_height}:{participant_key}"
    seed = hmac.digest(sampling.secret, text.encode(), hashlib.sha256)
    # A generator whose output can be predicted from what it gave before is good enough: nobody sees its output.
    return random.Random(seed).sample(nonces, size)  # noqa: S311


def _is_own_key(participant: ParticipantBatches) -> bool:
    try:
        return address_of(participant.public_key) == participant.participant
    except MessageError:
        return False
