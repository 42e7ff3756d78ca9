"""The varints of a column are those that protobuf writes."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import varints
from dapi.messages.inference_pb2 import MsgSubmitPocBatch, MsgSubmitPocBatchPacked
from dapi.messages.varints import end_of, packed_varints, pieces_of, varint

INT64 = st.integers(-(2**63), 2**63 - 1)
# Where a number begins to need one byte more, or one plane.
EDGES = sorted(
    {edge + step for bits in (*range(0, 64, 7), *range(0, 64, 8), 63) for edge in (2**bits,) for step in (-1, 0)}
)


class PackedVarintsTests(SynchronousTestCase):
    def agree(self, numbers: list[int]) -> bool:
        """Fail unless the message is protobuf's own, to the byte; return whether its encoder was not needed."""
        packed = packed_varints(array("q", numbers))
        if packed is not None:
            message = MsgSubmitPocBatchPacked(
                nonces=packed, batch_id="b", dist=array("d", [0.5]).tobytes(), node_id="n"
            )
            expected = MsgSubmitPocBatch(nonces=numbers, batch_id="b", dist=[0.5], node_id="n")
            self.assertEqual(message.SerializeToString(), expected.SerializeToString(), numbers[:9])
        return packed is not None

    def test_few_and_none(self) -> None:
        for numbers in ([], [0], [7, 300], [-1], [2**63 - 1, -(2**63)]):
            self.assertFalse(self.agree(numbers))

    def test_many_around_each_edge(self) -> None:
        for edge in EDGES:
            if edge < 2**63:
                self.assertEqual(self.agree([edge] * 64), edge < 2**56)
                self.agree([max(0, edge - 50) + place for place in range(100 if edge < 2**62 else 50)])

    def test_many_negative(self) -> None:
        self.assertFalse(self.agree([-1] * 64))
        self.assertFalse(self.agree([*range(1000, 1063), -1]))

    def test_many_lengths_in_one_column(self) -> None:
        self.assertFalse(self.agree([2**bits for bits in range(63)] * 2))

    def test_large_column(self) -> None:
        self.assertTrue(self.agree(list(range(10_000_003, 10_000_003 + 8 * 20_000, 8))))

    def test_a_long_column_is_encoded_in_pieces(self) -> None:
        self.patch(varints, "PIECE", 100)
        plain = list(range(10**6, 10**6 + 990))
        for numbers in (
            plain,
            [*plain, 10**18],
            [-1, *plain],
            [*plain[:500], 0, 2**63 - 1, -(2**63), *plain],
            plain[:101],
        ):
            message = MsgSubmitPocBatchPacked(nonces=b"".join(pieces_of(array("q", numbers))))
            self.assertEqual(message.SerializeToString(), MsgSubmitPocBatch(nonces=numbers).SerializeToString())

    def test_one_varint(self) -> None:
        for number in (0, 1, 127, 128, 300, 2**21, 2**63 - 1):
            encoded = MsgSubmitPocBatch(poc_stage_start_block_height=number).SerializeToString()
            self.assertEqual(varint(number), encoded[1:] or b"\0")

    @given(st.integers(0, 62), st.integers(64, 200), st.data())
    def test_any_of_like_sizes(self, bits: int, count: int, data: st.DataObject) -> None:
        numbers = st.integers(2**bits, 2 ** (bits + 1) - 1)
        self.agree(data.draw(st.lists(numbers, min_size=count, max_size=count)))

    @given(st.lists(INT64, min_size=64, max_size=100))
    def test_any(self, numbers: list[int]) -> None:
        self.agree(numbers)


class EndOfTests(SynchronousTestCase):
    @given(st.lists(INT64, max_size=40), st.lists(INT64, max_size=40))
    def test_after_as_many_as_asked_for(self, some: list[int], others: list[int]) -> None:
        packed = [
            MsgSubmitPocBatchPacked.FromString(MsgSubmitPocBatch(nonces=part).SerializeToString()).nonces
            for part in (some, some + others)
        ]
        begins_with = len(packed[0])
        self.assertEqual(end_of(packed[1], 0, len(some)), begins_with)
        self.assertEqual(end_of(packed[1], begins_with, len(others)), len(packed[1]))
        with self.assertRaisesRegex(ValueError, "^2 numbers are missing$"):
            end_of(packed[1], begins_with, len(others) + 2)

    def test_last_one_that_is_cut_off(self) -> None:
        self.assertRaises(ValueError, end_of, b"\x01\x80", 0, 2)
