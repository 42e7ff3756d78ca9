"""Blocks of another chain are told from those of this one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.identity import contradiction, impossible_height
from dapi.chain.rpc_answers import BlockInfo

KNOWN = BlockInfo("gonka", 100, 100_000, "AB")


class ContradictionTests(SynchronousTestCase):
    def test_another_id(self) -> None:
        self.assertEqual(
            contradiction(KNOWN, BlockInfo("other", 101, 101_000, "CD")), "its chain id is other, not gonka"
        )

    def test_another_hash_for_a_known_block(self) -> None:
        other = contradiction(KNOWN, BlockInfo("gonka", 100, 100_000, "CD"))
        self.assertEqual(other, "its block 100 has the hash CD, not AB")

    def test_a_height_that_falls_while_time_rises(self) -> None:
        other = contradiction(KNOWN, BlockInfo("gonka", 5, 100_001, "CD"))
        self.assertEqual(other, "it is at block 5, which is younger than our block 100: it began anew")

    def test_a_height_that_rises_while_time_falls(self) -> None:
        other = contradiction(KNOWN, BlockInfo("gonka", 200, 99_999, "CD"))
        self.assertEqual(other, "its block 200 is older than our block 100")

    def test_the_case_of_a_hash_and_an_unknown_one_do_not_count(self) -> None:
        for told in ("ab", "AB", ""):
            self.assertIsNone(contradiction(KNOWN, BlockInfo("gonka", 100, 100_000, told)))
        self.assertIsNone(contradiction(BlockInfo("gonka", 100, 100_000, ""), KNOWN))

    @given(st.integers(1, 1000), st.integers(1, 1000))
    def test_two_blocks_of_one_chain_never_contradict(self, first: int, second: int) -> None:
        known, told = (BlockInfo("gonka", height, height * 7, f"{height:X}") for height in (first, second))
        self.assertIsNone(contradiction(known, told))


class ImpossibleHeightTests(SynchronousTestCase):
    def told(self, height: int, seconds: float) -> str | None:
        known = BlockInfo("gonka", 100, 0, "AB")
        return impossible_height(known, BlockInfo("gonka", height, round(seconds * 1e9), "CD"))

    def test_no_chain_is_so_fast(self) -> None:
        for height, seconds in ((101, 5), (1100, 0), (2100, 10), (8_640_100, 86_400), (50, 5), (10**7, 100_000)):
            self.assertIsNone(self.told(height, seconds), height)
        for height, seconds in ((1101, 0), (2101, 10), (10**12, 5), (10**12, 86_400), (10**12, -5)):
            self.assertIn(f"its block {height} cannot have come", self.told(height, seconds) or "")
