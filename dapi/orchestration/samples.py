"""Makes one batch to validate of all batches of a participant in a stage: a sample of the nonces that are usable.

Source of the facts: docs/protocol/chain.md, 'Validation'. ``Sampler`` reads the chain's answer, and has a
``_NonceSample`` for the participant whose batches come just then.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from array import array
from collections.abc import Iterable
from typing import Final

import attrs
import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from dapi.chain.rpc import ChainRpc
from dapi.errors import MessageError
from dapi.messages import ProofBatch
from dapi.messages.addresses import address_of
from dapi.mlnode.client import R_TARGET
from dapi.phases.batch_reader import BatchReader, OversizedBatch, Participant, StoredNonces
from dapi.phases.stage_queries import read_batches_of_stage

DEFAULT_SAMPLE_SIZE = 200

# How many nonces of one participant are remembered at most, about 10 MB of them.
_MAX_REMEMBERED: Final = 16_384
# How many nonces are looked at in one go, a millisecond or less.
_NONCES_AT_ONCE = 8192
_ALL_MARKS = 2**64


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
    """How many distances and whole batches are not validated, and participants of whom nothing can be validated."""

    nonces: int = 0
    batches: int = 0
    participants: int = 0


class Samples(msgspec.Struct, frozen=True):
    """A batch to validate for each participant, and what was dropped."""

    batches: list[ProofBatch]
    dropped: Dropped


async def query_samples(rpc: ChainRpc, sampling: Sampling, at_height: int, *, max_bytes: int) -> Samples:
    """Query the stage's batches as the block ``at_height`` left them, and sample them on a thread while they come.

    ``max_bytes`` bounds the answer; little of it is in memory at a time. Raises ChainUnavailableError or
    ChainRefusedError, as ``read_batches_of_stage`` does.
    """
    height = sampling.block_height
    return await read_batches_of_stage(rpc, height, at_height, lambda: Sampler(sampling), max_bytes=max_bytes)


class Sampler:
    """Makes a batch for each participant of whom anything can be validated; the same one for the same answer.

    It reads the answer to PocBatchesForStage: the value in pieces by ``feed``; ``finish`` returns the samples. It drops
    a batch that has more nonces than distances, or fewer, or is too large to be read; a nonce whose distance is not
    finite or not below R_TARGET, which would kill the sender of the node that checks it; a participant without a usable
    nonce; and one whose key does not give its address, since no verdict on it could be submitted.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._reader = BatchReader()
        self._participant = Participant("", "")
        self._sample: _NonceSample | None = None
        self._batches: list[ProofBatch] = []
        self._dropped_nonces = self._dropped_batches = self._dropped_participants = 0

    def feed(self, piece: bytes) -> None:
        """Read the next piece of the answer; raises ChainUnavailableError."""
        for event in self._reader.feed(piece):
            match event:
                case Participant():
                    self._end_participant()
                    self._participant = event
                    self._sample = _NonceSample(self._sampling, event.public_key)
                case StoredNonces() if self._sample is not None:
                    self._add(event, self._sample)
                case OversizedBatch():
                    self._dropped_batches += 1

    def finish(self) -> Samples:
        """Return the samples; raises ChainUnavailableError when the answer is cut off."""
        self._reader.finish()
        self._end_participant()
        return Samples(self._batches, Dropped(self._dropped_nonces, self._dropped_batches, self._dropped_participants))

    def _add(self, batch: StoredNonces, sample: _NonceSample) -> None:
        if len(batch.nonces) != len(batch.dist):
            self._dropped_batches += 1
            return
        for begin in range(0, len(batch.nonces), _NONCES_AT_ONCE):
            nonces = batch.nonces[begin : begin + _NONCES_AT_ONCE]
            dist = batch.dist[begin : begin + _NONCES_AT_ONCE]
            self._dropped_nonces += _count_unusable(dist)
            sample.add(nonces, dist)

    def _end_participant(self) -> None:
        if self._sample is None:
            return
        picked = self._sample.picked()
        if not picked or not _is_own_key(self._participant):
            self._dropped_participants += 1
            return
        self._batches.append(
            ProofBatch(
                public_key=self._participant.public_key,
                block_hash=self._sampling.block_hash,
                block_height=self._sampling.block_height,
                nonces=[nonce for nonce, _ in picked],
                dist=[distance for _, distance in picked],
                # The nonces come from many nodes.
                node_num=0,
            )
        )


class _NonceSample:
    """A sample of the usable nonces of one participant, of which it remembers few.

    Each nonce has a mark, a number that looks like chance to whoever does not know the secret, and is always the same.
    The usable nonces with the smallest marks are the sample: each nonce is as likely to be among them as any other, and
    a repeated nonce is no likelier. So a nonce whose mark is not below ``_bound``, that of the last one in the sample
    so far, can be forgotten: the bound only sinks. Of all nonces below it, the first distance is remembered, since the
    first one counts, also when it makes the nonce unusable.

    When a participant has so many unusable nonces that there are not enough usable ones among the _MAX_REMEMBERED
    smallest marks, its sample is smaller.
    """

    def __init__(self, sampling: Sampling, participant_key: str) -> None:
        self._size = sampling.size if sampling.size > 0 else DEFAULT_SAMPLE_SIZE
        self._max_remembered = max(_MAX_REMEMBERED, 2 * self._size)
        self._bound = _ALL_MARKS
        self._remembered: dict[int, tuple[int, float]] = {}
        self._forget_above = 2 * self._size
        # With the participant's key: without it, participants with the same nonces would be sampled alike.
        text = f"{sampling.public_key}:{sampling.block_hash}:{sampling.block_height}:{participant_key}"
        key = hmac.digest(sampling.secret, text.encode(), hashlib.sha256)
        # One block is one nonce: a keyed permutation of numbers, as ECB is, suffices. A cipher encrypts thousands in
        # one call, and is a hundred times as fast as a hash.
        self._cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305

    def add(self, nonces: array[int], dist: array[float]) -> None:
        """Add nonces with their distances, all at once: some thousands at most."""
        bound, marks = self._bound, self._marks(nonces)
        # Few are below the bound, and a comprehension is the fastest way to find them.
        for place in [place for place, mark in enumerate(marks) if mark < bound]:
            self._remembered.setdefault(marks[place], (nonces[place], dist[place]))
        if len(self._remembered) > self._forget_above:
            self._forget()
            self._forget_above = 2 * max(len(self._remembered), self._size)

    def picked(self) -> list[tuple[int, float]]:
        """Return the sample: nonces with their distances."""
        self._forget()
        return [self._remembered[mark] for mark in sorted(self._remembered) if _is_usable(self._remembered[mark][1])]

    def _marks(self, nonces: array[int]) -> array[int]:
        blocks = array("q", bytes(16 * len(nonces)))
        blocks[::2] = nonces
        return array("Q", self._cipher.update(blocks.tobytes()))[::2]

    def _forget(self) -> None:
        """Forget the nonces that cannot come into the sample any more."""
        usable = 0
        marks = sorted(self._remembered)
        for count, mark in enumerate(marks, start=1):
            usable += _is_usable(self._remembered[mark][1])
            if usable == self._size or count == self._max_remembered:
                # The last one itself is kept: no other mark is equal.
                self._bound = mark
                self._remembered = {mark: self._remembered[mark] for mark in marks[:count]}
                return


def _is_usable(distance: float) -> bool:
    # Every comparison with NaN is false.
    return -math.inf < distance < R_TARGET


def _count_unusable(dist: Iterable[float]) -> int:
    least, end = -math.inf, R_TARGET
    # As _is_usable says: to call it for each of millions would take three times as long.
    return len([distance for distance in dist if not least < distance < end])


def _is_own_key(participant: Participant) -> bool:
    try:
        return address_of(participant.public_key) == participant.address
    except MessageError:
        return False
