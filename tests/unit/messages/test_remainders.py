"""The remainders of a column are those of its numbers."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import remainders
from dapi.messages.remainders import all_leave


class AllLeaveTests(SynchronousTestCase):
    def agree(self, numbers: list[int], divisor: int, remainder: int) -> bool:
        found = all_leave(array("q", numbers), divisor, remainder)
        self.assertEqual(
            found, {number % divisor for number in numbers} == {remainder}, (numbers[:9], divisor, remainder)
        )
        return found

    def test_each_count_of_nodes(self) -> None:
        for divisor in (*range(1, 131), 255, 256, 257, 1000, 10_000):
            for remainder in {0, divisor // 2, divisor - 1}:
                for first in (0, 10**6, 2**40, 2**55, 2**62):
                    first += (remainder - first) % divisor
                    numbers = [first + divisor * place for place in range(100)]
                    self.assertTrue(self.agree(numbers, divisor, remainder))
                    self.agree([*numbers[:50], numbers[50] + 1, *numbers[51:]], divisor, remainder)
                    self.agree(numbers, divisor + 1, remainder)

    def test_numbers_that_differ_in_all_their_bytes(self) -> None:
        for divisor in (1, 7, 100, 128):
            numbers = [divisor * (place * 500) ** 3 + 3 % divisor for place in range(100)]
            self.assertLess(max(numbers), 2**56)
            self.assertTrue(self.agree(numbers, divisor, 3 % divisor))
            self.assertFalse(self.agree([*numbers, 4], divisor + 1, 3))

    def test_number_of_no_node(self) -> None:
        for remainder in (4, 5, 300, -1):
            self.assertFalse(self.agree(list(range(remainder, 400, 4)), 4, remainder))
            self.assertFalse(self.agree(list(range(0, 400, 4)), 4, remainder))

    def test_negative_numbers(self) -> None:
        self.assertTrue(self.agree(list(range(-400, 0, 4)), 4, 0))
        self.assertFalse(self.agree([*range(0, 400, 4), -1], 4, 0))

    def test_one_wrong_among_many(self) -> None:
        numbers = list(range(3, 3 + 8 * 20_000, 8))
        self.assertTrue(self.agree(numbers, 8, 3))
        for place in (0, 9999, 19_999):
            self.assertFalse(self.agree([*numbers[:place], 4, *numbers[place + 1 :]], 8, 3))

    def test_in_pieces(self) -> None:
        self.patch(remainders, "_PIECE", 100)
        self.test_one_wrong_among_many()
        self.test_each_count_of_nodes()

    @given(st.lists(st.integers(0, 2**63 - 1), min_size=64, max_size=70), st.integers(1, 200), st.integers(-1, 200))
    def test_any(self, numbers: list[int], divisor: int, remainder: int) -> None:
        self.agree(numbers, divisor, remainder)
        self.agree([number - number % divisor for number in numbers], divisor, remainder)
