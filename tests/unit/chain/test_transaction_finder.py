"""Transactions are found by an index where there is one, and in blocks where there is none."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as TCPConnectionRefusedError

from dapi.chain.numbers import parse_time_ns
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import TxResult, tx_hash_of
from dapi.chain.transaction_finder import Reach, Search, TransactionFinder
from tests.unit.chain.chain_nodes import Nodes, RpcTestCase, error, result, status

SECOND_NS = 10**9
GENESIS_NS = parse_time_ns("2023-11-14T22:14:00.000000001Z")


def raw(number: int) -> bytes:
    return b"transaction %d" % number


def hash_of(number: int) -> str:
    return tx_hash_of(raw(number))


def time_at(height: int) -> int:
    return GENESIS_NS + height * SECOND_NS


def found_at(height: int, number: int, code: int = 0) -> TxResult:
    return TxResult(hash_of(number), height, code, "c" if code else "", f"log of {number}", b"data of %d" % number)


class Blocks(dict[str, Any]):
    """A node's answers from its blocks: the numbers of the transactions in each, from height 1 to 59."""

    def __init__(self, blocks: dict[int, list[int]], *, height: int) -> None:
        super().__init__(status=self.status, block=self.block, block_results=self.block_results, tx=self.tx)
        self.blocks = blocks
        self.height = height
        self.has_index = False
        self.says_it_has_an_index = False
        self.earliest = 1
        self.earliest_results = 1
        self.failing: set[str] = set()
        self.codes: dict[int, int] = {}
        self.read: list[int] = []
        self.results_read: list[int] = []

    def status(self, _: Any) -> Any:
        index = "on" if self.has_index or self.says_it_has_an_index else "off"
        return status(self.height, tx_index=index, earliest=self.earliest, seconds=self.height)

    def block(self, params: Any) -> Any:
        height = int(params["height"])
        self.read.append(height)
        if "block" in self.failing:
            return error("something unheard of")
        if height > self.height:
            return error(f"height {height} must be less than or equal to the current blockchain height {self.height}")
        if height < self.earliest:
            return error(f"height {height} is not available, lowest height is {self.earliest}")
        header = {"chain_id": "gonka-test", "height": str(height), "time": f"2023-11-14T22:14:{height:02d}.000000001Z"}
        txs = [base64.b64encode(raw(number)).decode() for number in self.blocks.get(height, [])]
        return result({"block_id": {"hash": "AB"}, "block": {"header": header, "data": {"txs": txs or None}}})

    def block_results(self, params: Any) -> Any:
        height = int(params["height"])
        self.results_read.append(height)
        if height < self.earliest_results or "block_results" in self.failing:
            return error(f"could not find results for height #{height}")
        results = [self.executed(number) for number in self.blocks.get(height, [])]
        return result({"height": str(height), "txs_results": results or None, "finalize_block_events": []})

    def tx(self, params: Any) -> Any:
        tx_hash = base64.b64decode(params["hash"]).hex().upper()
        if not self.has_index:
            return error("transaction indexing is disabled")
        for height, numbers in self.blocks.items():
            for number in numbers:
                if hash_of(number) == tx_hash and height < self.height:
                    return result({"hash": tx_hash, "height": str(height), "tx_result": self.executed(number)})
        return error(f"tx ({tx_hash}) not found")

    def executed(self, number: int) -> dict[str, Any]:
        code, data = self.codes.get(number, 0), base64.b64encode(b"data of %d" % number).decode()
        return {"code": code, "codespace": "c" if code else "", "log": f"log of {number}", "data": data, "events": []}


class FinderTestCase(RpcTestCase):
    """Node a, without an index, at height 12; transactions 1 and 2 in block 10, 3 in block 12."""

    def setUp(self) -> None:
        super().setUp()
        self.a = Blocks({10: [1, 2], 12: [3]}, height=12)
        self.start(a=self.a)

    def start(self, **nodes: Any) -> None:
        self.chain = Nodes(**nodes)
        self.rpc: ChainRpc = self.client(self.chain)
        self.successResultOf(self.rpc.ask_all())
        self.finder = TransactionFinder(self.rpc)

    def find(self, **firsts: int) -> Search:
        """Look for transactions: ``_3=8`` is number 3, which may be in block 8 or later."""
        wanted = {hash_of(int(name[1:])): first for name, first in firsts.items()}
        search: Search = self.successResultOf(self.finder.find(wanted))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return search


class InBlocksTests(FinderTestCase):
    """No node has an index."""

    def test_with_code_log_codespace_and_data(self) -> None:
        self.a.codes = {2: 1107}
        search = self.find(_2=9, _3=9)
        self.assertEqual(search.found, {hash_of(2): found_at(10, 2, 1107), hash_of(3): found_at(12, 3)})
        self.assertEqual((search.reach, search.problem), ({}, None))

    def test_each_block_is_read_once_for_all(self) -> None:
        self.find(_1=9, _2=9, _4=9)
        self.assertEqual((self.a.read, self.a.results_read), ([9, 10, 11, 12], [10]))
        self.a.height, self.a.blocks[14] = 14, [4]
        search = self.find(_4=9, _5=13)
        self.assertEqual(self.a.read, [9, 10, 11, 12, 13, 14])
        self.assertEqual(search.found, {hash_of(4): found_at(14, 4)})
        self.assertEqual(search.reach, {hash_of(5): Reach(14, time_at(14))})

    def test_what_is_found_is_told_until_it_is_not_wanted_any_more(self) -> None:
        for _ in range(3):
            self.assertEqual(self.find(_1=9).found, {hash_of(1): found_at(10, 1)})
        self.assertEqual(self.a.read, [9, 10])
        self.assertEqual(self.find().found, {})
        self.find(_1=10)
        self.assertEqual(self.a.read, [9, 10, 10], "nothing is remembered of what is not wanted")

    def test_not_before_its_first_height(self) -> None:
        search = self.find(_1=11, _4=13)
        self.assertEqual(search.found, {})
        self.assertEqual(search.reach, {hash_of(1): Reach(12, time_at(12)), hash_of(4): Reach(12)})
        self.assertEqual(self.a.read, [11, 12])

    def test_a_search_reads_so_many_blocks_and_the_next_goes_on(self) -> None:
        self.finder = TransactionFinder(self.rpc, max_blocks=4)
        search = self.find(_1=3, _3=3)
        self.assertEqual((self.a.read, set(search.reach.values())), ([3, 4, 5, 6], {Reach(6, time_at(6))}))
        search = self.find(_1=3, _3=3)
        self.assertEqual((search.found, self.a.read[4:]), ({hash_of(1): found_at(10, 1)}, [7, 8, 9, 10]))
        self.assertEqual(self.find(_1=3, _3=3).found[hash_of(3)], found_at(12, 3))

    def test_a_node_that_does_not_answer_delays_it(self) -> None:
        self.a.failing = {"block"}
        search = self.find(_1=9)
        self.assertEqual((search.found, search.reach), ({}, {hash_of(1): Reach(8)}))
        self.assertIn("something unheard of", str(search.problem))
        self.chain.answers["a"] = TCPConnectionRefusedError()
        self.assertIn("a:26657", str(self.find(_1=9).problem))
        self.a.failing, self.chain.answers["a"] = set(), self.a
        search = self.find(_1=9)
        self.assertEqual((search.found, search.problem), ({hash_of(1): found_at(10, 1)}, None))

    def test_a_pruned_block_is_passed_over(self) -> None:
        self.a.earliest = 11
        search = self.find(_1=9, _3=9, _4=12)
        self.assertEqual(search.found, {hash_of(3): found_at(12, 3)})
        self.assertEqual(search.reach, {hash_of(1): Reach(12, time_at(12)), hash_of(4): Reach(12, time_at(12))})
        self.assertEqual(self.a.read, [9, 11, 12])

    def test_another_node_may_have_the_pruned_block(self) -> None:
        b = Blocks(self.a.blocks, height=12)
        self.a.earliest = 11
        self.start(a=self.a, b=b)
        self.assertEqual(self.find(_1=10).found, {hash_of(1): found_at(10, 1)})
        self.assertEqual(b.read, [10])

    def test_results_of_the_latest_block_come_a_moment_later(self) -> None:
        self.a.earliest_results = 13
        search = self.find(_3=12)
        self.assertEqual(search.reach, {hash_of(3): Reach(11)})
        self.assertIn("could not find results", str(search.problem))
        self.a.earliest_results = 12
        self.assertEqual(self.find(_3=12).found, {hash_of(3): found_at(12, 3)})

    def test_results_that_no_node_keeps_hold_nothing_up(self) -> None:
        self.a.earliest_results = 12
        search = self.find(_1=9, _3=9)
        self.assertEqual(search.found, {hash_of(3): found_at(12, 3)})
        self.assertEqual(search.reach, {hash_of(1): Reach(12, time_at(12))})

    def test_fewer_results_than_transactions_are_no_answer(self) -> None:
        self.chain.answers["a"] = {**self.a, "block_results": result({"height": "10", "txs_results": [{"code": 0}]})}
        search = self.find(_2=10)
        self.assertEqual((search.found, search.reach), ({}, {hash_of(2): Reach(9)}))
        self.assertIn("more transactions than the 1 results", str(search.problem))

    def test_a_search_waits_for_the_one_before(self) -> None:
        self.chain.held["a"] = []
        searches = [self.finder.find({hash_of(number): 9}) for number in (1, 1)]
        self.chain.release("a")
        for search in searches:
            self.assertEqual(self.successResultOf(search).found, {hash_of(1): found_at(10, 1)})
        self.assertEqual(self.a.read, [9, 10])

    def test_a_cancel_leaves_nothing_behind(self) -> None:
        self.chain.held["a"] = []
        search, next_one = self.finder.find({hash_of(1): 9}), self.finder.find({hash_of(3): 9})
        search.cancel()
        self.failureResultOf(search, CancelledError)
        self.assertNoResult(next_one)
        self.successResultOf(self.rpc.close())
        self.failureResultOf(next_one, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WithAnIndexTests(FinderTestCase):
    """Node a has an index."""

    def setUp(self) -> None:
        super().setUp()
        self.a.has_index = True
        self.start(a=self.a)

    def test_no_block_is_read(self) -> None:
        self.a.codes = {1: 5}
        search = self.find(_1=9, _3=9, _4=9)
        self.assertEqual(search.found, {hash_of(1): found_at(10, 1, 5)})
        # The index may not have the latest block yet.
        self.assertEqual(set(search.reach.values()), {Reach(11, time_at(12))})
        self.assertEqual((search.reach.keys(), self.a.read), ({hash_of(3), hash_of(4)}, []))
        self.a.height = 13
        self.assertEqual(self.find(_1=9, _3=9).found.keys(), {hash_of(1), hash_of(3)})

    def test_a_status_that_is_wrong_about_it(self) -> None:
        self.a.has_index, self.a.says_it_has_an_index = False, True
        self.assertEqual(self.find(_1=9).found, {hash_of(1): found_at(10, 1)})

    def test_one_that_does_not_reach_back_far_enough_proves_nothing(self) -> None:
        self.a.earliest = 11
        self.a.blocks = {12: [3]}
        search = self.find(_1=9, _3=11)
        self.assertEqual(search.found, {})
        self.assertEqual(search.reach, {hash_of(1): Reach(12, time_at(12)), hash_of(3): Reach(11, time_at(12))})

    def test_one_that_stands_still_is_not_asked(self) -> None:
        b = Blocks({**self.a.blocks, 20: [4]}, height=20)
        self.start(a=self.a, b=b)
        self.successResultOf(self.rpc.ask_all())
        self.assertEqual(self.find(_4=9, _5=19).found, {hash_of(4): found_at(20, 4)})
        self.assertEqual(b.read, list(range(9, 21)))

    def test_that_of_another_node_will_do(self) -> None:
        b = Blocks(self.a.blocks, height=12)
        self.start(b=b, a=self.a)
        self.assertEqual(self.find(_1=9).found, {hash_of(1): found_at(10, 1)})
        self.assertEqual((self.a.read, b.read), ([], []))
        self.assertEqual({host for host, method in self.chain.asked if method == "tx"}, {"a"})

    def test_eight_calls_run_at_once(self) -> None:
        def hold_what_follows(params: Any) -> Any:
            self.chain.held["a"] = []
            return self.a.status(params)

        self.chain.answers["a"] = {**self.a, "status": hold_what_follows}
        search: Deferred[Search] = self.finder.find({hash_of(number): 9 for number in range(100)})
        self.assertEqual(len(self.chain.held["a"]), 8)
        self.chain.answers["a"] = self.a
        self.chain.release("a")
        self.assertEqual(len(self.successResultOf(search).found), 2)
