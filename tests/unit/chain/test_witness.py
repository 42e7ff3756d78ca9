"""What one node says is in a block counts when another sound one does not deny it."""

from __future__ import annotations

from twisted.internet.error import ConnectionRefusedError as TCPConnectionRefusedError

from dapi.chain.transaction_finder import Reach
from tests.unit.chain.test_transaction_finder import Blocks, FinderTestCase, found_at, hash_of, time_at


class WitnessTests(FinderTestCase):
    """Node a says that transaction 1 is in block 10, and b is the other one; both have an index."""

    def setUp(self) -> None:
        super().setUp()
        self.a.has_index = True
        self.b = Blocks(dict(self.a.blocks), height=12)
        self.b.has_index = True
        self.start(a=self.a, b=self.b)

    def asked(self, host: str) -> list[str]:
        return [method for asked, method in self.chain.asked[2:] if asked == host]

    def assert_believed(self) -> None:
        search = self.find(_1=9)
        self.assertEqual((search.found, search.problem), ({hash_of(1): found_at(10, 1)}, None))

    def test_it_says_the_same(self) -> None:
        self.assert_believed()
        self.assertEqual((self.asked("b"), self.b.read), (["status", "tx"], []))

    def test_it_is_not_asked_about_what_is_in_no_block(self) -> None:
        self.find(_4=9)
        self.assertEqual(self.asked("b"), [])

    def test_it_denies_it(self) -> None:
        self.b.blocks = {12: [3]}
        for _ in range(2):
            search = self.find(_1=9, _2=9)
            self.assertEqual(search.found, {})
        # One block was read for both, each time.
        self.assertEqual(self.b.read, [10, 10])
        self.assertEqual(
            search.problem,
            f"chain node a:26657 says that transaction {hash_of(1)} is in block 10 with code 0,"
            " and b:26657 denies it: one of them is wrong",
        )
        # So its time passes, and its messages go into another one.
        self.assertEqual(search.reach[hash_of(1)], Reach(11, time_at(12)))
        self.b.blocks = self.a.blocks
        self.assert_believed()

    def test_it_says_that_it_failed(self) -> None:
        self.b.codes = {1: 5}
        self.assertEqual(self.find(_1=9).found, {})

    def test_its_word_counts_up_to_its_own_height(self) -> None:
        self.b.blocks, self.b.height = {}, 11
        self.assertEqual(self.find(_1=9).reach, {hash_of(1): Reach(10, time_at(11))})

    def test_its_index_is_broken(self) -> None:
        broken = Blocks({}, height=12)
        broken.has_index = True
        self.chain.answers["b"] = {**self.b, "tx": broken.tx}
        self.assert_believed()
        self.assertEqual(self.b.read, [10])

    def test_it_does_not_have_the_block_yet(self) -> None:
        self.a.height, self.b.height = 13, 11
        search = self.find(_3=9)
        self.assertEqual((search.found, search.problem), ({}, None))
        # Nothing is known, and no block is read for it.
        self.assertEqual((search.reach, self.a.read, self.b.read), ({hash_of(3): Reach(8)}, [], []))
        self.b.height = 13
        self.assertEqual(self.find(_3=9).found, {hash_of(3): found_at(12, 3)})

    def test_its_index_does_not_have_its_latest_block_yet(self) -> None:
        self.b.height = 10
        self.assertEqual(self.find(_1=9).reach, {hash_of(1): Reach(8)})
        self.assertEqual(self.b.read, [])

    def test_it_has_forgotten_the_block(self) -> None:
        self.b.blocks, self.b.earliest = {}, 11
        self.assert_believed()

    def test_one_without_an_index_is_not_asked(self) -> None:
        self.b.has_index, self.b.blocks = False, {}
        self.successResultOf(self.rpc.ask_all())
        self.assert_believed()
        self.assertEqual((self.asked("b"), self.b.read), (["status"], []))

    def test_one_that_is_behind_is_not_asked(self) -> None:
        self.b.height, self.b.blocks = 7, {}
        self.successResultOf(self.rpc.ask_all())
        self.assert_believed()
        self.assertNotIn("tx", self.asked("b"))

    def test_when_it_fails_the_next_one_is_asked(self) -> None:
        c = Blocks({}, height=12)
        c.has_index = True
        self.start(a=self.a, b=self.b, c=c)
        self.chain.answers["b"] = TCPConnectionRefusedError()
        search = self.find(_1=9)
        self.assertIn("c:26657 denies it", str(search.problem))

    def test_when_all_others_fail_one_word_has_to_do(self) -> None:
        self.chain.answers["b"] = TCPConnectionRefusedError()
        self.assert_believed()
