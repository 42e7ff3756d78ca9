"""The first number below 0 of a column is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.columns import column
from dapi.messages.signs import first_negative


class FirstNegativeTests(SynchronousTestCase):
    def test_zeros(self) -> None:
        self.assertIsNone(first_negative(column("q", [])))
        self.assertIsNone(first_negative(column("q", [0, 2**63 - 1])))
        self.assertIsNone(first_negative(column("d", [-0.0, 0.0])))

    def test_the_smallest(self) -> None:
        self.assertEqual(first_negative(column("q", [0, -1])), 1)
        self.assertEqual(first_negative(column("q", [-(2**63)])), 0)
        self.assertEqual(first_negative(column("d", [-0.0, 1.0, -5e-324])), 2)

    @given(st.lists(st.integers(-(2**63), 2**63 - 1)))
    def test_any_integers(self, values: list[int]) -> None:
        expected = next((place for place, value in enumerate(values) if value < 0), None)
        self.assertEqual(first_negative(column("q", values)), expected)

    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
    def test_any_doubles(self, values: list[float]) -> None:
        expected = next((place for place, value in enumerate(values) if value < 0), None)
        self.assertEqual(first_negative(column("d", values)), expected)
