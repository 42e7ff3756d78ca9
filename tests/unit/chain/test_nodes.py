"""Which node can be relied on: every way from standing to standing, the order of the nodes, what is said of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.nodes import ChainNode, ChainNodes, Standing
from dapi.chain.rpc_answers import BlockInfo
from dapi.errors import ConfigError
from tests.logs import log_of
from tests.unit.chain.events_in_memory import status_at

SOUND, BEHIND, FAILING, OTHER_CHAIN = Standing
# What becomes of a node of each standing.
WAYS = {
    "sound": {SOUND: SOUND, BEHIND: SOUND, FAILING: SOUND, OTHER_CHAIN: SOUND},
    "behind": {SOUND: BEHIND, BEHIND: BEHIND, FAILING: BEHIND, OTHER_CHAIN: BEHIND},
    "catching up": {SOUND: BEHIND, BEHIND: BEHIND, FAILING: BEHIND, OTHER_CHAIN: BEHIND},
    "fails": {SOUND: FAILING, BEHIND: FAILING, FAILING: FAILING, OTHER_CHAIN: OTHER_CHAIN},
    "other chain": {SOUND: OTHER_CHAIN, BEHIND: OTHER_CHAIN, FAILING: OTHER_CHAIN, OTHER_CHAIN: OTHER_CHAIN},
    "announces a block": {SOUND: SOUND, BEHIND: BEHIND, FAILING: FAILING, OTHER_CHAIN: OTHER_CHAIN},
}


class NodesTestCase(SynchronousTestCase):
    """Three nodes, of which nothing has been heard."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.nodes = ChainNodes(self.clock, ["http://a:1", "http://b:1", "http://c:1"])
        self.a, self.b, self.c = (self.nodes[index] for index in range(3))
        self.log = log_of(self)

    @property
    def height(self) -> int:
        return self.nodes.latest.height if self.nodes.latest is not None else 0

    def hear(self, node: ChainNode, height: int, **changes: Any) -> None:
        """Ask a node, which answers at once."""
        status = msgspec.structs.replace(status_at(height), node=node.name, **changes)
        self.nodes.status_received(node, self.height, status)

    def fail_call(self, node: ChainNode) -> None:
        self.nodes.call_failed(node, "status", "refused")

    def names(self, nodes: list[ChainNode]) -> str:
        return "".join(node.name[0] for node in nodes)

    def bring(self, standing: Standing) -> None:
        """Bring node a to a standing, with the chain at height 100."""
        self.hear(self.a, 100)
        if standing is BEHIND:
            self.hear(self.b, 103)
            self.hear(self.a, 100)
        elif standing is FAILING:
            self.fail_call(self.a)
        elif standing is OTHER_CHAIN:
            self.hear(self.a, 101, chain_id="other")
        self.assertIs(self.a.standing, standing)


class LieTests(NodesTestCase):
    """A node that is wrong about the height, or lies, takes nobody away from the others."""

    def setUp(self) -> None:
        super().setUp()
        for node in (self.a, self.b):
            self.hear(node, 100)

    def standings(self) -> list[Standing]:
        return [self.a.standing, self.b.standing]

    def test_a_height_that_no_chain_can_have(self) -> None:
        self.hear(self.b, 10**12, block_time_ns=status_at(101).block_time_ns)
        self.hear(self.a, 101)
        self.assertEqual((self.standings(), self.height), ([SOUND, OTHER_CHAIN], 101))
        self.assertIn("block 1000000000000 cannot have come", self.b.problem or "")
        lie = msgspec.structs.replace(status_at(10**12), block_time_ns=status_at(101).block_time_ns)
        self.assertFalse(self.nodes.block_announced(self.b, lie.block))
        self.hear(self.b, 102)
        self.assertEqual((self.standings(), self.height), ([SOUND, SOUND], 102), "it tells the truth again")

    def test_a_time_that_has_not_come(self) -> None:
        """By it, the height could be one that takes years."""
        self.nodes._now = lambda: status_at(100).block_time_ns / 1e9 + self.clock.seconds()
        self.hear(self.b, 10**12)
        self.assertEqual((self.standings(), self.height), ([SOUND, OTHER_CHAIN], 100))
        self.assertIn("the time of its block 1000000000000 comes in", self.b.problem or "")
        self.clock.advance(7200)
        self.hear(self.a, 101, block_time_ns=status_at(100).block_time_ns + 7200 * 10**9)
        self.assertEqual((self.standings()[0], self.height), (SOUND, 101), "no block came for two hours")

    def test_a_clock_that_is_wrong_shuts_no_chain_out(self) -> None:
        self.nodes._now = lambda: 0.0
        self.clock.advance(5)
        self.hear(self.a, 101)
        self.nodes._now = lambda: 4e9
        self.hear(self.b, 5000)
        self.assertEqual((self.standings(), self.height), ([SOUND, SOUND], 5000), "it has caught up")


class TransitionTests(NodesTestCase):
    """The ways that are drawn at the top of the file; there is no other."""

    def act(self, event: str) -> None:
        if event == "fails":
            self.fail_call(self.a)
        elif event == "announces a block":
            self.nodes.block_announced(self.a, status_at(self.height + 1).block)
        elif event == "other chain":
            self.hear(self.a, self.height, chain_id="other")
        else:
            self.hear(self.a, self.height - (3 if event == "behind" else 0), catching_up=event == "catching up")

    def test_every_event_in_every_standing(self) -> None:
        for event, ways in WAYS.items():
            self.assertEqual(ways.keys(), set(Standing))
            for before, after in ways.items():
                self.setUp()
                self.bring(before)
                self.act(event)
                self.assertIs(self.a.standing, after, f"{before} {event}")

    def test_two_blocks_behind_is_sound_and_three_is_not(self) -> None:
        self.hear(self.b, 102)
        for height in (100, 101, 102):
            self.hear(self.a, height)
            self.hear(self.a, height)
            self.assertEqual((self.a.standing, self.a.lag), (SOUND, 2))
            self.hear(self.b, height + 3)
        self.assertIs(self.a.standing, SOUND, "it was not asked since")
        self.hear(self.a, 102)
        self.assertEqual((self.a.standing, self.a.lag), (BEHIND, 3))

    def test_one_that_stands_still_while_the_others_go_on_is_left_after_two_blocks(self) -> None:
        self.hear(self.a, 100)
        self.hear(self.b, 101)
        self.hear(self.a, 100)
        self.assertEqual((self.a.standing, self.a.lag), (SOUND, 1))
        self.hear(self.b, 102)
        self.assertIs(self.a.standing, SOUND, "it was not asked since")
        self.hear(self.a, 100)
        self.assertEqual((self.a.standing, self.a.lag), (BEHIND, 2))

    def test_it_comes_back_when_it_is_one_block_behind(self) -> None:
        self.bring(BEHIND)
        self.hear(self.a, 101)
        self.assertIs(self.a.standing, BEHIND)
        self.hear(self.a, 102)
        self.assertIs(self.a.standing, SOUND)

    def test_a_node_is_held_against_what_was_known_when_it_was_asked(self) -> None:
        self.hear(self.a, 100)
        # While the answer travels, another node tells ten more blocks.
        self.hear(self.b, 110)
        self.nodes.status_received(self.a, 100, status_at(100))
        self.assertEqual((self.a.standing, self.a.lag), (SOUND, 0))

    def test_a_block_that_a_node_announces_is_no_lag(self) -> None:
        self.hear(self.a, 100)
        self.nodes.block_announced(self.a, status_at(105).block)
        self.assertEqual((self.a.height, self.a.lag, self.height), (105, 0, 105))
        self.nodes.status_received(self.b, 100, status_at(103))
        self.assertIs(self.b.standing, SOUND)

    def test_a_chain_that_begins_anew_under_its_old_id_is_another_one(self) -> None:
        self.hear(self.a, 100)
        self.hear(self.a, 5, block_time_ns=101 * 10**9)
        self.assertIs(self.a.standing, OTHER_CHAIN)
        self.assertEqual(self.height, 100)

    def test_a_node_that_lags_is_of_the_same_chain(self) -> None:
        self.hear(self.a, 100)
        self.hear(self.b, 5)
        self.assertEqual((self.b.standing, self.b.problem), (BEHIND, "95 blocks behind"))

    def test_a_block_from_before_decides_which_chain_it_is(self) -> None:
        self.nodes.expect_chain_of(BlockInfo("chain", 90, 90 * 10**9, "B90"))
        self.hear(self.a, 100, chain_id="other")
        self.assertEqual((self.a.standing, self.nodes.latest), (OTHER_CHAIN, None))
        self.hear(self.b, 100)
        self.assertEqual((self.b.standing, self.height), (SOUND, 100))


class LatestTests(NodesTestCase):
    """The highest block that any node told."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[int] = []
        self.nodes.observe(lambda: self.told.append(self.height))

    def test_it_never_falls_and_is_told_once(self) -> None:
        for node, height in ((self.a, 7), (self.b, 9), (self.a, 8), (self.c, 9), (self.a, 10)):
            self.hear(node, height)
        self.assertEqual(self.told, [7, 9, 10])
        assert self.nodes.latest is not None
        self.assertEqual(self.nodes.latest.node, "a:1")

    def test_announced(self) -> None:
        self.assertFalse(self.nodes.block_announced(self.b, status_at(8).block), "before the first status")
        self.hear(self.a, 7)
        self.assertTrue(self.nodes.block_announced(self.b, status_at(8).block))
        self.assertTrue(self.nodes.block_announced(self.a, status_at(8).block), "which another told before")
        self.assertFalse(self.nodes.block_announced(self.a, status_at(7).block))
        self.assertFalse(self.nodes.block_announced(self.a, BlockInfo("other", 9, 9 * 10**9, "B9")))
        self.assertEqual(self.told, [7, 8])
        assert self.nodes.latest is not None
        self.assertEqual((self.nodes.latest.block, self.nodes.latest.node), (status_at(8).block, "b:1"))


class OrderTests(NodesTestCase):
    """Which node is asked."""

    def test_sound_before_behind_before_failing_and_never_one_of_another_chain(self) -> None:
        self.assertEqual(self.names(self.nodes.in_order()), "abc")
        self.bring(BEHIND)
        self.assertEqual(self.names(self.nodes.in_order()), "bca")
        self.fail_call(self.b)
        self.assertEqual(self.names(self.nodes.in_order()), "cab")
        self.hear(self.c, 104, chain_id="other")
        self.assertEqual(self.names(self.nodes.in_order()), "ab")

    def test_of_sound_ones_the_order_of_the_urls_counts_again(self) -> None:
        self.bring(FAILING)
        self.assertEqual(self.names(self.nodes.in_order()), "bca")
        self.hear(self.a, 100)
        self.assertEqual(self.names(self.nodes.in_order()), "abc")

    def test_each_sound_one_has_its_turn(self) -> None:
        self.fail_call(self.b)
        self.assertEqual([self.names(self.nodes.in_order(turn)) for turn in range(3)], ["acb", "cab", "acb"])
        for node in (self.a, self.c):
            self.fail_call(node)
        self.assertEqual(self.names(self.nodes.in_order(1)), "abc")

    def test_the_next_to_be_followed_is_as_good_as_the_best(self) -> None:
        self.assertEqual([self.nodes.next_to_follow(index) for index in range(3)], [1, 2, 0])
        self.bring(BEHIND)
        self.assertEqual([self.nodes.next_to_follow(index) for index in range(3)], [1, 2, 1])
        for node in (self.a, self.b, self.c):
            self.hear(node, 200, chain_id="other")
        self.assertEqual([self.nodes.next_to_follow(index) for index in range(3)], [1, 2, 0])

    def test_only_a_sound_node_with_an_index_counts(self) -> None:
        self.assertTrue(self.nodes.has_tx_index(), "as far as is known")
        for node in (self.a, self.b):
            self.hear(node, 100, has_tx_index=False)
        self.assertTrue(self.nodes.has_tx_index())
        self.fail_call(self.c)
        self.assertFalse(self.nodes.has_tx_index())


class SkipTests(NodesTestCase):
    """Who is asked for its status."""

    def due(self) -> str:
        return self.names(self.nodes.due())

    def seconds_skipped(self) -> float:
        """For how long node a is skipped from now on."""
        began = self.clock.seconds()
        while "a" not in self.due():
            self.clock.advance(1)
        return self.clock.seconds() - began

    def test_a_node_that_fails_is_skipped_for_a_time_that_doubles(self) -> None:
        skipped = []
        for _ in range(6):
            self.fail_call(self.a)
            skipped.append(self.seconds_skipped())
        self.assertEqual(skipped, [5, 10, 20, 40, 60, 60])

    def test_failing_again_meanwhile_makes_it_no_longer(self) -> None:
        self.fail_call(self.a)
        self.clock.advance(4)
        self.fail_call(self.a)
        self.assertEqual(self.seconds_skipped(), 1)

    def test_one_that_comes_and_goes_is_skipped_for_longer_and_longer(self) -> None:
        for expected in (5, 10, 20):
            self.fail_call(self.a)
            self.assertEqual(self.seconds_skipped(), expected)
            self.hear(self.a, 100)
            self.clock.advance(50)
        self.clock.advance(20)
        self.fail_call(self.a)
        self.assertEqual(self.seconds_skipped(), 5, "after a minute it is trusted again")

    def test_one_of_another_chain_is_skipped_too(self) -> None:
        self.bring(OTHER_CHAIN)
        self.assertEqual(self.due(), "bc")
        self.assertEqual(self.seconds_skipped(), 5)
        self.fail_call(self.a)
        self.assertEqual(self.seconds_skipped(), 10)

    def test_one_that_is_behind_is_asked_each_time(self) -> None:
        self.bring(BEHIND)
        self.assertEqual(self.due(), "abc")

    def test_without_a_sound_one_all_are_asked(self) -> None:
        self.bring(BEHIND)
        self.fail_call(self.b)
        self.assertEqual(self.due(), "ac")
        self.fail_call(self.c)
        self.assertEqual(self.due(), "abc")


class WordsTests(NodesTestCase):
    """Log, problem and status."""

    def test_each_trouble_is_said_once_and_so_is_its_end(self) -> None:
        self.hear(self.a, 100)
        self.hear(self.b, 103)
        for _ in range(3):
            self.hear(self.a, 100)
        self.hear(self.a, 103)
        for _ in range(3):
            self.fail_call(self.a)
        for _ in range(2):
            self.hear(self.a, 103)
        for _ in range(2):
            self.hear(self.a, 103, catching_up=True)
        self.assertEqual(
            self.log.lines(),
            [
                "chain node a:1 is 3 blocks behind: the others go first until it has caught up",
                "chain node a:1 is back, at height 103",
                "chain node a:1 failed at status: refused",
                "chain node a:1 is back, at height 103",
                "chain node a:1 is catching up: the others go first until it has caught up",
            ],
        )

    def test_one_that_fails_at_one_kind_of_call_alone_floods_no_log(self) -> None:
        self.hear(self.a, 100)
        for _ in range(12):
            self.clock.advance(5)
            self.nodes.call_failed(self.a, "abci_query", "HTTP 502")
            self.hear(self.a, 100)
        shown = [line for level in (LogLevel.info, LogLevel.warn) for line in self.log.lines(level, "a:1")]
        self.assertEqual(
            shown, ["chain node a:1 is back, at height 100", "chain node a:1 failed at abci_query: HTTP 502"]
        )

    def test_another_chain_is_said_loudly(self) -> None:
        self.bring(OTHER_CHAIN)
        self.fail_call(self.a)
        self.hear(self.a, 101, chain_id="other")
        [line] = self.log.lines(LogLevel.critical)
        text = "chain node a:1 is of another chain and is not used: its chain id is other, not chain"
        self.assertEqual((line, self.log.lines()), (text, [text]))

    def test_a_problem_of_all(self) -> None:
        self.assertEqual(self.nodes.problem(), "not asked yet")
        self.hear(self.a, 100)
        self.assertIsNone(self.nodes.problem())
        for node in (self.a, self.b, self.c):
            self.hear(node, 100, chain_id="other")
        self.assertTrue(
            str(self.nodes.problem()).startswith("another one: a:1: its chain id is other, not chain; b:1:")
        )
        for node in (self.b, self.c):
            self.hear(node, 100)
            self.fail_call(node)
        self.assertIn("not reachable: a:1: its chain id is other", str(self.nodes.problem()))
        self.assertIn("; b:1: failed at status: refused; ", str(self.nodes.problem()))
        self.hear(self.c, 90)
        self.assertEqual(self.nodes.problem(), "not reachable: c:1 is 10 blocks behind")
        self.hear(self.c, 90, catching_up=True)
        self.assertEqual(self.nodes.problem(), "catching up")
        self.hear(self.b, 100)
        self.assertIsNone(self.nodes.problem())

    def test_status_is_json_and_names_who_is_used(self) -> None:
        self.bring(BEHIND)
        status = self.nodes.status()
        self.assertEqual(json.loads(json.dumps(status)), status)
        self.assertEqual([node["name"] for node in status if node["is_used"]], ["b:1"])
        expected = {"name": "a:1", "standing": "behind", "is_used": False, "height": 100, "lag": 3}
        self.assertEqual(status[0], {**expected, "has_tx_index": True, "last_problem": "3 blocks behind"})
        self.hear(self.a, 103)
        self.assertEqual(self.nodes.status()[0]["last_problem"], "3 blocks behind", "also after it is over")
        unasked = {"name": "c:1", "standing": "sound", "is_used": False, "height": None, "lag": 0}
        self.assertEqual(status[2], {**unasked, "has_tx_index": None, "last_problem": None})

    def test_two_urls_of_one_host_have_names_of_their_own(self) -> None:
        nodes = ChainNodes(self.clock, ["http://a:1/x?key=secret", "tcp://a:1/y", "http://a:2", "http://a:1"])
        self.assertEqual([node["name"] for node in nodes.status()], ["a:1", "a:1 (2)", "a:2", "a:1 (3)"])
        self.assertRaises(ConfigError, ChainNodes, self.clock, [])
