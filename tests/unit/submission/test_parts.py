"""The parts of a batch are what protobuf makes of its numbers."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.inference_pb2 import MsgSubmitPocBatch
from dapi.submission.parts import Part, parts_of

NONCES = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=60)


def batch_of(nonces: list[int]) -> bytes:
    return MsgSubmitPocBatch(
        poc_stage_start_block_height=10,
        batch_id="b",
        nonces=nonces,
        dist=[nonce / 3 for nonce in nonces],
        node_id="node1",
    ).SerializeToString()


def by_protobuf(encoded: bytes, size: int) -> Iterator[Part]:
    """The same, number by number."""
    whole = MsgSubmitPocBatch.FromString(encoded)
    for first in range(0, len(whole.nonces), size):
        nonces = whole.nonces[first : first + size]
        part = MsgSubmitPocBatch(
            poc_stage_start_block_height=whole.poc_stage_start_block_height,
            batch_id=f"{whole.batch_id}-{first}-{first + len(nonces) - 1}",
            nonces=nonces,
            dist=whole.dist[first : first + size],
            node_id=whole.node_id,
        )
        yield Part(part.batch_id, len(nonces), part.SerializeToString())


class PartsOfTests(SynchronousTestCase):
    @given(NONCES, st.integers(1, 70))
    def test_same_as_number_by_number(self, nonces: list[int], size: int) -> None:
        encoded = batch_of(nonces)
        self.assertEqual(list(parts_of(encoded, size)), list(by_protobuf(encoded, size)))

    def test_large_batch(self) -> None:
        encoded = batch_of(list(range(10_000, 60_000)))
        self.assertEqual(list(parts_of(encoded, 7000)), list(by_protobuf(encoded, 7000)))

    def test_part_that_is_cut_once_more(self) -> None:
        first, *_ = parts_of(batch_of(list(range(300))), 200)
        self.assertEqual([part.batch_id for part in parts_of(first.message, 150)], ["b-0-199-0-149", "b-0-199-150-199"])

    def test_nothing_is_cut_of_what_has_too_few_nonces(self) -> None:
        encoded = MsgSubmitPocBatch(nonces=[1], dist=[0.5, 0.5]).SerializeToString()
        self.assertRaises(ValueError, list, parts_of(encoded, 10))
