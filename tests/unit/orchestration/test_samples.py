"""What is made of a stage's batches: queried, joined, cleared, sampled; however the answer is cut."""

from __future__ import annotations

import hashlib
import hmac
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.answer_reader import ValueReader
from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainUnavailableError
from dapi.mlnode.client import R_TARGET
from dapi.orchestration import samples as samples_module
from dapi.orchestration.samples import Dropped, Sampler, Samples, Sampling, query_samples
from dapi.phases import batch_reader
from tests.chain_tools import Key
from tests.stage_answers import Batches, Stored, cut, encode_stage
from tests.stage_answers import stored as stored_by

KEYS = [Key(seed) for seed in (1, 2, 3)]

T = TypeVar("T")

nonces = st.integers(0, 30) | st.integers(0, 2**63 - 1)
distances = st.floats(0, 1.5) | st.sampled_from(
    [R_TARGET, math.nextafter(R_TARGET, 0), math.nan, math.inf, -math.inf, 1e308]
)
places = st.lists(st.integers(0, 2**20), max_size=20)
# Not all of them as long as they should be.
batches = st.tuples(st.lists(nonces, max_size=20), st.lists(distances, max_size=20)) | st.lists(
    st.tuples(nonces, distances), max_size=20
).map(lambda pairs: ([nonce for nonce, _ in pairs], [distance for _, distance in pairs]))


def participant(found: Batches, key: Key = KEYS[0], **changes: Any) -> Stored:
    return stored_by(key, *found)._replace(**changes)


def sampling(**changes: Any) -> Sampling:
    return Sampling(
        **{
            "public_key": "02aa",
            "block_hash": "ABcd",
            "block_height": 10,
            "size": 200,
            "secret": b"secret",
            **changes,
        }
    )


def sample_stage(stage: Iterable[Stored], how: Sampling, at: Iterable[int] = ()) -> Samples:
    """The samples of the chain's answer, cut at these places."""
    sampler = Sampler(how)
    for piece in cut(encode_stage(stage), at):
        sampler.feed(piece)
    return sampler.finish()


def sampled(found: Batches, at: Iterable[int] = (), **changes: Any) -> Samples:
    return sample_stage([participant(found)], sampling(**changes), at)


def picked(**changes: Any) -> list[int]:
    """Which of a thousand nonces are picked."""
    (batch,) = sampled([(list(range(1000)), [0.5] * 1000)], **changes).batches
    return list(batch.nonces)


def first_of_each(found: Batches) -> dict[int, float]:
    """The distance of each nonce: the first of a repeated one counts."""
    joined: dict[int, float] = {}
    for nonces, dist in found:
        for nonce, distance in zip(nonces, dist, strict=True):
            joined.setdefault(nonce, distance)
    return joined


def usable_of(found: Batches) -> dict[int, float]:
    """Those that may be sampled, with all in memory at once: joined first, then cleared."""
    joined = first_of_each([batch for batch in found if len(batch[0]) == len(batch[1])])
    return {nonce: dist for nonce, dist in joined.items() if math.isfinite(dist) and dist < R_TARGET}


def mark_of(nonce: int, how: Sampling, participant_key: str) -> int:
    """What decides whether a nonce is in the sample, computed for it alone."""
    text = f"{how.public_key}:{how.block_hash}:{how.block_height}:{participant_key}"
    key = hmac.digest(how.secret, text.encode(), hashlib.sha256)
    block = nonce.to_bytes(8, "little") + bytes(8)
    return int.from_bytes(Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)[:8], "little")


class FakeRpc(ChainRpc):
    """Has the batches of one participant; tells what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int | None, int]] = []

    def abci_query_in_pieces(
        self, path: str, data: bytes, height: int | None, make_reader: Callable[[], ValueReader[T]], *, max_bytes: int
    ) -> Deferred[T]:
        self.asked.append((height, max_bytes))
        reader = make_reader()
        for piece in cut(encode_stage([participant([([1, 2], [0.5, 0.25])])]), [20]):
            reader.feed(piece)
        return succeed(reader.finish())


class QueryTests(SynchronousTestCase):
    def test_the_answer_is_sampled_as_it_comes(self) -> None:
        rpc = FakeRpc()
        asking = Deferred.fromCoroutine(query_samples(rpc, sampling(), 22, max_bytes=1000))
        (batch,) = self.successResultOf(asking).batches
        self.assertEqual((batch.public_key, sorted(batch.nonces)), (KEYS[0].public.hex(), [1, 2]))
        self.assertEqual(rpc.asked, [(22, 1000)])


class SampleTests(SynchronousTestCase):
    @given(st.lists(batches, max_size=5), st.integers(-1, 30), places)
    def test_laws(self, found: Batches, size: int, at: list[int]) -> None:
        """Whatever comes: only what was given, once, of the first batch that has it, and nothing that breaks a node."""
        samples = sampled(found, at, size=size)
        sound = [batch for batch in found if len(batch[0]) == len(batch[1])]
        joined, usable = first_of_each(sound), usable_of(found)
        unusable = [distance for _, dist in sound for distance in dist if not -math.inf < distance < R_TARGET]
        self.assertEqual(samples.dropped.nonces, len(unusable))
        self.assertEqual(samples.dropped.batches, len(found) - len(sound))
        self.assertEqual(samples.dropped.participants, 0 if usable else 1)
        self.assertEqual(len(samples.batches), 1 if usable else 0)
        for batch in samples.batches:
            self.assertEqual(len(batch.nonces), min(len(usable), size if size > 0 else 200))
            self.assertEqual(len(set(batch.nonces)), len(batch.nonces))
            self.assertLessEqual(set(batch.nonces), usable.keys())
            self.assertEqual(batch.dist, [joined[nonce] for nonce in batch.nonces])
        self.assertEqual(sampled(found, size=size), samples)

    @given(st.lists(st.lists(batches, max_size=6), max_size=3), st.integers(1, 12), places, st.integers(1, 9))
    def test_the_same_as_with_all_in_memory(
        self, stage: list[Batches], size: int, at: list[int], nonces_at_once: int
    ) -> None:
        """The sample is those of all usable nonces with the smallest marks, though few are remembered meanwhile."""
        self.patch(samples_module, "_NONCES_AT_ONCE", nonces_at_once)
        how = sampling(size=size)
        found = [participant(batches, key) for batches, key in zip(stage, KEYS, strict=False)]
        expected = {}
        for of_one in found:
            usable = usable_of(of_one.batches)
            marks = {nonce: mark_of(nonce, how, of_one.public_key) for nonce in usable}
            if usable:
                expected[of_one.public_key] = {
                    nonce: usable[nonce] for nonce in sorted(usable, key=marks.__getitem__)[:size]
                }
        samples = sample_stage(found, how, at)
        self.assertEqual(
            {batch.public_key: dict(zip(batch.nonces, batch.dist, strict=True)) for batch in samples.batches}, expected
        )

    def test_cut_at_each_byte(self) -> None:
        stage = [participant([([7, 8, 7], [0.5, 0.25, 0.75])]), participant([([9], [1.0])], KEYS[1])]
        whole = sample_stage(stage, sampling())
        self.assertEqual(len(whole.batches), 2)
        for place in range(len(encode_stage(stage))):
            self.assertEqual(sample_stage(stage, sampling(), [place]), whole)

    def test_an_answer_that_is_cut_off(self) -> None:
        sampler = Sampler(sampling())
        sampler.feed(encode_stage([participant([([7], [0.5])])])[:-1])
        self.assertRaises(ChainUnavailableError, sampler.finish)

    def test_nobody(self) -> None:
        self.assertEqual(sample_stage([], sampling()), Samples([], Dropped()))

    def test_what_a_node_gets(self) -> None:
        (batch,) = sampled([([7, 8], [0.5, 0.25])]).batches
        self.assertEqual(batch.public_key, KEYS[0].public.hex())
        self.assertEqual((batch.block_hash, batch.block_height, batch.node_num), ("ABcd", 10, 0))
        self.assertEqual(dict(zip(batch.nonces, batch.dist, strict=True)), {7: 0.5, 8: 0.25})

    def test_each_participant_has_a_batch(self) -> None:
        found = [participant([([index], [0.5])], key) for index, key in enumerate(KEYS)]
        samples = sample_stage(found, sampling())
        self.assertEqual([(batch.public_key, batch.nonces) for batch in samples.batches],
                         [(key.public.hex(), [index]) for index, key in enumerate(KEYS)])  # fmt: skip

    def test_the_chain_says_0_for_200(self) -> None:
        self.assertEqual(len(picked(size=0)), 200)
        self.assertEqual(len(picked(size=7)), 7)

    def test_another_choice_for_each_of_its_reasons(self) -> None:
        choices = [
            tuple(picked(**changes))
            for changes in (
                {},
                {"secret": b"another"},
                {"public_key": "02bb"},
                {"block_hash": "abcd"},
                {"block_height": 11},
            )
        ]
        self.assertEqual(len(set(choices)), len(choices))
        self.assertEqual(tuple(picked()), choices[0], "and the same one again")

    def test_equal_numbers_are_not_sampled_at_equal_places(self) -> None:
        found = [participant([(list(range(1000)), [0.5] * 1000)], key) for key in KEYS[:2]]
        one, other = sample_stage(found, sampling()).batches
        self.assertNotEqual(one.nonces, other.nonces)

    def test_every_nonce_can_be_picked(self) -> None:
        seen = {nonce for height in range(200) for nonce in picked(block_height=height, size=50)}
        self.assertEqual(len(seen), 1000)

    def test_participants_whose_verdict_nobody_would_take(self) -> None:
        good: Batches = [([1], [0.5])]
        found = [
            participant(good, public_key=""),
            participant(good, public_key="ed25519"),
            participant(good, public_key=KEYS[1].public.hex()),
            participant(good),
            participant([]),
            participant([([1], [R_TARGET])]),
        ]
        samples = sample_stage(found, sampling())
        self.assertEqual([batch.public_key for batch in samples.batches], [KEYS[0].public.hex()])
        self.assertEqual(samples.dropped, Dropped(nonces=1, batches=0, participants=5))

    def test_a_batch_that_is_too_large_counts_as_dropped(self) -> None:
        self.patch(batch_reader, "MAX_BATCH_BYTES", 100)
        samples = sampled([(list(range(20)), [0.5] * 20), ([30], [0.5])])
        self.assertEqual(samples.batches[0].nonces, [30])
        self.assertEqual(samples.dropped, Dropped(batches=1))

    def test_the_secret_is_not_shown(self) -> None:
        self.assertNotIn("hush", repr(sampling(secret=b"hush")))


class ManyNoncesTests(SynchronousTestCase):
    """What is remembered of a participant with very many nonces, and how likely each of them is in the sample."""

    def remembered(self, sampler: Sampler) -> int:
        assert sampler._sample is not None
        return len(sampler._sample._remembered)

    def test_few_are_remembered(self) -> None:
        for distance, most in ((0.5, 1000), (1.45, 45_000), (math.nan, 45_000)):
            sampler = Sampler(sampling())
            found: Batches = [
                (list(range(start, start + 5000)), [distance] * 5000) for start in range(0, 100_000, 5000)
            ]
            sampler.feed(encode_stage([participant(found)])[:-1])
            self.assertLess(self.remembered(sampler), most)

    def test_repeated_ones_are_no_likelier(self) -> None:
        """Half of the nonces come ten times, in ten batches: they are half of the sample."""
        often, once = list(range(1000)), list(range(1000, 2000))
        found: Batches = [(often + once[i * 100 : i * 100 + 100], [0.5] * 1100) for i in range(10)]
        (batch,) = sampled(found, size=400).batches
        self.assertEqual(len(set(batch.nonces)), 400)
        self.assertLess(abs(sum(nonce < 1000 for nonce in batch.nonces) - 200), 60)

    def test_each_is_as_likely(self) -> None:
        """Over many stages each nonce is sampled about as often, wherever its batch stands."""
        found: Batches = [(list(range(start, start + 10)), [0.5] * 10) for start in range(0, 100, 10)]
        counted = Counter(
            nonce for height in range(400) for nonce in sampled(found, block_height=height, size=10).batches[0].nonces
        )
        # 40 are expected of each, with a deviation of 6.
        self.assertEqual(len(counted), 100)
        self.assertLess(max(counted.values()), 70)
        self.assertGreater(min(counted.values()), 15)

    def test_a_few_usable_ones_among_very_many_unusable(self) -> None:
        """The sample may be smaller then, and is never wrong."""
        self.patch(samples_module, "_MAX_REMEMBERED", 100)
        source = random.Random(1)
        nonces = list(range(20_000))
        dist = [0.5 if source.random() < 0.05 else 1.45 for _ in nonces]
        found: Batches = [(nonces[start : start + 100], dist[start : start + 100]) for start in range(0, 20_000, 100)]
        (batch,) = sampled(found, size=20).batches
        self.assertGreater(len(batch.nonces), 0)
        self.assertLessEqual(len(batch.nonces), 20)
        self.assertLessEqual(set(batch.nonces), usable_of(found).keys())
