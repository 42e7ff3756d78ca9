"""The numbers in a chain node's answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.numbers import parse_time_ns
from dapi.errors import ChainUnavailableError
from dapi.simulator.chain.methods import format_time


class ParseTimeTests(SynchronousTestCase):
    """RFC 3339 to nanoseconds, without a float in between."""

    @given(st.integers(0, 4_000_000_000 * 10**9))
    def test_what_a_node_writes(self, time_ns: int) -> None:
        self.assertEqual(parse_time_ns(format_time(time_ns)), time_ns)

    def test_forms(self) -> None:
        self.assertEqual(parse_time_ns("1970-01-01T00:00:01.5Z"), 1_500_000_000)
        self.assertEqual(parse_time_ns("1970-01-01T02:00:01+02:00"), 1_000_000_000)
        self.assertEqual(parse_time_ns("1969-12-31T22:00:01-02:00"), 1_000_000_000)
        self.assertEqual(parse_time_ns("0001-01-01T00:00:00Z"), -62_135_596_800 * 10**9)

    def test_what_is_no_time(self) -> None:
        for text in (
            "",
            "2023-11-14",
            "2023-11-14T22:14:20",
            "2023-13-14T22:14:20Z",
            "2023-11-14T22:14:20.1234567890Z",
            "2262-04-11T23:47:16.854775808Z",
        ):
            self.assertRaises(ChainUnavailableError, parse_time_ns, text)
