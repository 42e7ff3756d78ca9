"""What is made of a stage's batches: queried, joined, cleared, sampled."""

from __future__ import annotations

import math
from array import array
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import QueryResult
from dapi.messages import validation_pb2
from dapi.mlnode.client import R_TARGET
from dapi.orchestration.samples import Dropped, Samples, Sampling, join, query_samples, sample_batches
from dapi.phases.stage_queries import ParticipantBatches, StoredNonces
from tests.chain_tools import Key
from tests.unit.threadless import ThreadlessReactor

KEYS = [Key(seed) for seed in (1, 2, 3)]

Batches = list[tuple[list[int], list[float]]]

nonces = st.integers(0, 30) | st.integers(0, 2**63 - 1)
distances = st.floats(0, 1.5) | st.sampled_from(
    [R_TARGET, math.nextafter(R_TARGET, 0), math.nan, math.inf, -math.inf, 1e308]
)
# Not all of them as long as they should be.
batches = st.tuples(st.lists(nonces, max_size=20), st.lists(distances, max_size=20)) | st.lists(
    st.tuples(nonces, distances), max_size=20
).map(lambda pairs: ([nonce for nonce, _ in pairs], [distance for _, distance in pairs]))


def stored(found: Batches) -> tuple[StoredNonces, ...]:
    return tuple(StoredNonces(array("q", nonces), array("d", dist)) for nonces, dist in found)


def participant(found: Batches, key: Key = KEYS[0], **changes: Any) -> ParticipantBatches:
    fields = {"participant": key.address, "public_key": key.public.hex(), **changes}
    return ParticipantBatches(batches=stored(found), **fields)


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


def sampled(found: Batches, **changes: Any) -> Samples:
    return sample_batches([participant(found)], sampling(**changes))


def picked(**changes: Any) -> list[int]:
    """Which of a thousand nonces are picked."""
    (batch,) = sampled([(list(range(1000)), [0.5] * 1000)], **changes).batches
    return batch.nonces


def first_of_each(found: Batches) -> dict[int, float]:
    """The same as ``join``, said plainly."""
    joined: dict[int, float] = {}
    for nonces, dist in found:
        for nonce, distance in zip(nonces, dist, strict=True):
            joined.setdefault(nonce, distance)
    return joined


class JoinTests(SynchronousTestCase):
    def test_the_first_of_a_repeated_nonce_is_kept(self) -> None:
        found = [([1, 2, 1], [0.1, 0.2, 0.3]), ([2, 3], [0.4, 0.5])]
        self.assertEqual(join(list(stored(found))), {1: 0.1, 2: 0.2, 3: 0.5})

    @given(st.lists(st.lists(st.tuples(nonces, st.floats(0, 2)), max_size=20)))
    def test_against_the_plain_form(self, pairs: list[list[tuple[int, float]]]) -> None:
        found = [([nonce for nonce, _ in batch], [dist for _, dist in batch]) for batch in pairs]
        self.assertEqual(join(list(stored(found))), first_of_each(found))


class FakeRpc(ChainRpc):
    """Has the batches of one participant."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []

    def abci_query(
        self, path: str, data: bytes, height: int | None = None, *, max_bytes: int = 0
    ) -> Deferred[QueryResult]:
        self.asked.append(height)
        stored = validation_pb2.PocBatch(nonces=[1, 2], dist=[0.5, 0.25]).SerializeToString()
        of_one = validation_pb2.PocBatchesOfParticipant(
            participant=KEYS[0].address, hex_pub_key=KEYS[0].public.hex(), poc_batch=[stored]
        )
        answer = validation_pb2.QueryPocBatchesForStageResponse(poc_batch=[of_one.SerializeToString()])
        return succeed(QueryResult(answer.SerializeToString(), height or 0))


class QueryTests(SynchronousTestCase):
    def test_sampling_is_done_on_a_thread(self) -> None:
        reactor, rpc = ThreadlessReactor(), FakeRpc()
        asking = Deferred.fromCoroutine(query_samples(reactor, rpc, sampling(), 22))
        (batch,) = self.successResultOf(asking).batches
        self.assertEqual((batch.public_key, sorted(batch.nonces), rpc.asked), (KEYS[0].public.hex(), [1, 2], [22]))
        self.assertEqual(reactor.deferred, ["decode_batches", "sample_batches"])


class SampleTests(SynchronousTestCase):
    @given(st.lists(batches, max_size=5), st.integers(-1, 30))
    def test_laws(self, found: Batches, size: int) -> None:
        """Whatever comes: only what was given, once, of the first batch that has it, and nothing that breaks a node."""
        samples = sampled(found, size=size)
        joined = first_of_each([batch for batch in found if len(batch[0]) == len(batch[1])])
        usable = {nonce for nonce, distance in joined.items() if math.isfinite(distance) and distance < R_TARGET}
        self.assertEqual(samples.dropped.nonces, len(joined) - len(usable))
        self.assertEqual(samples.dropped.batches, sum(len(nonces) != len(dist) for nonces, dist in found))
        self.assertEqual(samples.dropped.participants, 0 if usable else 1)
        self.assertEqual(len(samples.batches), 1 if usable else 0)
        for batch in samples.batches:
            self.assertEqual(len(batch.nonces), min(len(usable), size if size > 0 else 200))
            self.assertEqual(len(set(batch.nonces)), len(batch.nonces))
            self.assertLessEqual(set(batch.nonces), usable)
            self.assertEqual(batch.dist, [joined[nonce] for nonce in batch.nonces])
        self.assertEqual(sampled(found, size=size), samples)

    def test_what_a_node_gets(self) -> None:
        (batch,) = sampled([([7, 8], [0.5, 0.25])]).batches
        self.assertEqual(batch.public_key, KEYS[0].public.hex())
        self.assertEqual((batch.block_hash, batch.block_height, batch.node_num), ("ABcd", 10, 0))
        self.assertEqual(dict(zip(batch.nonces, batch.dist, strict=True)), {7: 0.5, 8: 0.25})

    def test_each_participant_has_a_batch(self) -> None:
        found = [participant([([index], [0.5])], key) for index, key in enumerate(KEYS)]
        samples = sample_batches(found, sampling())
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
        one, other = sample_batches(found, sampling()).batches
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
        samples = sample_batches(found, sampling())
        self.assertEqual([batch.public_key for batch in samples.batches], [KEYS[0].public.hex()])
        self.assertEqual(samples.dropped, Dropped(nonces=1, batches=0, participants=5))

    def test_the_secret_is_not_shown(self) -> None:
        self.assertNotIn("hush", repr(sampling(secret=b"hush")))
