"""A watcher of several nodes: it goes on with a sound one, and says what is wrong when there is none."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as TCPConnectionRefusedError
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.nodes import ChainTrouble
from dapi.chain.rpc_answers import BlockInfo
from tests.logs import log_of
from tests.unit.chain.chain_nodes import Nodes, RpcTestCase, status
from tests.unit.chain.events_in_memory import ChainPeer, EventsInMemory, NodesAtHeights
from tests.unit.websocket.links import Link


class SeveralNodesTests(RpcTestCase):
    """Nodes a and b, asked every second, without events."""

    def setUp(self) -> None:
        super().setUp()
        self.heights = {"a": 10, "b": 10}
        self.nodes = Nodes(a={"status": self.status_of("a")}, b={"status": self.status_of("b")})
        self.others: list[str] = []
        self.watcher = self.make_watcher()
        self.log = log_of(self)
        self.watcher.startService()
        self.addCleanup(self.stop)

    def make_watcher(self, *, takes_other_at_once: bool = False) -> BlockWatcher:
        return BlockWatcher(
            self.clock,
            self.client(self.nodes),
            on_another_chain=self.others.append,
            takes_other_at_once=takes_other_at_once,
        )

    def stop(self) -> None:
        self.successResultOf(self.watcher.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def status_of(self, host: str) -> Any:
        return lambda _: status(self.heights[host])

    def pass_time(self, seconds: int, **moves: int) -> None:
        """Let seconds pass; in each of them the named nodes move so many blocks."""
        for _ in range(seconds):
            for host, blocks in moves.items():
                self.heights[host] += blocks
            self.clock.advance(1)

    @property
    def height(self) -> int:
        return self.watcher.head.height if self.watcher.head is not None else 0

    def problems(self) -> list[str]:
        return self.log.lines(containing="the chain ")

    def test_the_head_is_the_highest_that_any_node_told(self) -> None:
        self.pass_time(20, b=1)
        self.assertEqual((self.height, self.watcher.problem), (30, None))
        self.assertEqual(self.problems(), [])
        [line] = self.log.warnings()
        self.assertEqual(line, "chain node a:26657 is 2 blocks behind: the others go first until it has caught up")

    def test_one_that_does_not_answer_is_no_problem_of_the_chain(self) -> None:
        self.nodes.answers["a"] = TCPConnectionRefusedError()
        self.pass_time(60, b=1)
        self.assertEqual((self.height, self.watcher.problem), (70, None))
        self.assertEqual(len(self.log.warnings()), 1)
        # After 5, 10, 20 and 40 s more.
        self.assertEqual([host for host, _ in self.nodes.asked].count("a"), 1 + 4)

    def test_when_the_chain_halts_it_is_said_by_the_loop(self) -> None:
        self.pass_time(10, a=1, b=1)
        self.pass_time(30)
        self.assertEqual(self.watcher.problem, "halted: no block for 30 s")
        self.assertEqual(self.problems(), ["the chain is halted: no block for 11 s; everything waits"])
        self.pass_time(2, a=1, b=1)
        self.assertEqual(self.problems()[1:], ["the chain moves again, at height 21"])

    def test_when_no_node_is_reachable_it_is_said_by_the_loop(self) -> None:
        usual = dict(self.nodes.answers)
        self.pass_time(3, a=1, b=1)
        for host in usual:
            self.nodes.answers[host] = TCPConnectionRefusedError()
        self.pass_time(30)
        [line] = self.problems()
        self.assertTrue(line.startswith("the chain is not reachable: a:26657: "), line)
        self.assertIn("; b:26657: ", line)
        self.nodes.answers.update(usual)
        self.pass_time(2, a=1, b=1)
        self.assertEqual(self.problems()[1:], ["the chain moves again, at height 14"])

    def test_when_all_are_of_another_chain_it_is_said_by_the_loop(self) -> None:
        for host in ("a", "b"):
            self.nodes.answers[host] = status(3, seconds=40)
        self.pass_time(10)
        self.assertTrue(str(self.watcher.problem).startswith("another one: a:26657: it is at block 3"))
        self.assertEqual(self.height, 10)
        self.assertEqual(len(self.problems()), 1)
        self.assertEqual(len(self.log.lines(LogLevel.critical)), 2)

    def test_when_all_are_of_another_chain_for_a_minute_dapi_is_told(self) -> None:
        self.nodes.answers["b"] = TCPConnectionRefusedError()
        self.nodes.answers["a"] = status(3, seconds=40)
        # One of them that cannot be asked may be of the old chain.
        self.pass_time(90)
        self.assertEqual(self.others, [])
        self.nodes.answers["b"] = status(3, seconds=41)
        self.pass_time(50)
        self.nodes.answers["b"] = status(11)
        self.pass_time(2)
        self.nodes.answers["b"] = status(4, seconds=45)
        self.pass_time(55)
        self.assertEqual((self.others, self.height), ([], 11))
        self.pass_time(10)
        self.assertTrue(self.others[0].startswith("a:26657: it is at block 3"), self.others)

    def watch_another_chain_from_the_start(self, *, takes_other_at_once: bool = False) -> None:
        self.stop()
        self.watcher = self.make_watcher(takes_other_at_once=takes_other_at_once)
        self.watcher._nodes.expect_chain_of(BlockInfo("gonka-test", 90, 1, "AB90"))
        self.watcher.startService()

    def test_without_a_block_of_the_expected_one_another_chain_is_followed_after_a_minute(self) -> None:
        self.watch_another_chain_from_the_start()
        self.pass_time(55)
        self.assertIsNone(self.watcher.head)
        self.assertTrue(str(self.watcher.problem).startswith("another one: a:26657: "))
        self.assertIs(self.watcher.trouble, ChainTrouble.OTHER_CHAIN)
        self.pass_time(10)
        self.assertEqual((self.height, self.watcher.problem, self.others), (10, None, []))

    def test_after_dapi_began_afresh_the_other_chain_is_followed_at_once(self) -> None:
        self.watch_another_chain_from_the_start(takes_other_at_once=True)
        self.pass_time(3)
        self.assertEqual((self.height, self.watcher.problem, self.others), (10, None, []))

    def test_a_node_of_the_expected_one_goes_before_the_first_url(self) -> None:
        self.stop()
        self.nodes.answers["a"] = status(10, network="other")
        self.watcher = self.make_watcher()
        self.watcher._nodes.expect_chain_of(BlockInfo("gonka-test", 9, 1, "AB9"))
        self.watcher.startService()
        self.pass_time(3)
        assert self.watcher.head is not None
        self.assertEqual((self.watcher.head.chain_id, self.watcher.head.node), ("gonka-test", "b:26657"))

    def test_when_all_are_catching_up(self) -> None:
        for host in ("a", "b"):
            self.nodes.answers[host] = status(10, catching_up=True)
        self.pass_time(5)
        self.assertEqual(self.problems(), ["the chain is catching up; everything waits"])


class FollowedEventsTests(SynchronousTestCase):
    """The events are those of a node that is where the chain is: nodes a and b at height 10, and a's events open."""

    def setUp(self) -> None:
        self.in_memory = EventsInMemory("http://127.0.0.1:8080", "http://127.0.0.1:8081", knows_nodes=True)
        self.rpc = NodesAtHeights(self.in_memory.clock, self.in_memory.nodes, [10, 10])
        self.watcher = BlockWatcher(self.in_memory.clock, self.rpc, self.in_memory.events)
        self.watcher.startService()
        self.link = self.in_memory.accept()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        stopped = self.watcher.stopService()
        self.in_memory.advance(0.125)
        self.successResultOf(stopped)
        self.assertEqual(self.in_memory.clock.getDelayedCalls(), [])

    @property
    def port(self) -> int:
        """Where the last try went to."""
        return int(self.in_memory.clock.tcpClients[-1][1])

    @property
    def reason(self) -> str:
        return str(self.in_memory.events.connection_status().reason)

    def make_blocks(self, number: int, *, by: Link[ChainPeer] | None) -> None:
        """Have node b tell one more block every 5 s; the link announces it, too, unless it is None."""
        for _ in range(number):
            assert self.rpc.heights[1] is not None
            self.rpc.heights[1] += 1
            if by is not None:
                by.server.announce(self.rpc.heights[1])
                by.flush()
            self.in_memory.advance(5)

    def next_link(self) -> Link[ChainPeer]:
        """Accept the next try, which may have been made already."""
        if self.in_memory.attempts == len(self.in_memory.links):
            self.in_memory.until_next_attempt()
        return self.in_memory.accept()

    def test_a_node_that_falls_behind_is_left_for_the_next(self) -> None:
        self.make_blocks(1, by=None)
        self.assertEqual(self.in_memory.attempts, 1)
        # From the first block that it lacks on, all are asked every second.
        self.make_blocks(1, by=None)
        self.assertIn("replaced: 127.0.0.1:8080: 2 blocks behind", self.reason)
        link = self.next_link()
        self.assertEqual(self.port, 8081)
        self.make_blocks(5, by=link)
        self.assertEqual(self.in_memory.attempts, 2)
        assert self.watcher.head is not None
        self.assertEqual((self.watcher.head.height, self.watcher.head.node), (17, "127.0.0.1:8081"))

    def test_a_node_that_does_not_answer_is_left_though_its_events_come(self) -> None:
        self.make_blocks(1, by=self.link)
        self.rpc.heights[0] = None
        self.make_blocks(1, by=self.link)
        self.assertIn("replaced: 127.0.0.1:8080: failed at status: refused", self.reason)
        self.next_link()
        self.assertEqual(self.port, 8081)

    def test_it_stays_where_no_other_is_better(self) -> None:
        self.rpc.heights = [None, None]
        self.in_memory.advance(60)
        self.assertEqual(self.in_memory.attempts, 1)

    def test_after_a_useful_connection_it_begins_with_the_best(self) -> None:
        self.rpc.heights[0] = self.rpc.heights[1] = 11
        self.link.server.announce(11)
        self.link.flush()
        self.link.drop(ConnectionLost())
        self.next_link()
        self.assertEqual(self.port, 8080)
        self.make_blocks(4, by=None)
        link = self.next_link()
        self.make_blocks(1, by=link)
        link.drop(ConnectionLost())
        link = self.next_link()
        self.assertEqual(self.port, 8081)
        self.rpc.heights[0] = self.rpc.heights[1]
        self.make_blocks(1, by=link)
        link.drop(ConnectionLost())
        self.next_link()
        self.assertEqual(self.port, 8080)

    def test_one_whose_events_do_not_come_is_left_after_ten_seconds_though_it_is_sound(self) -> None:
        for height in range(11, 15):
            self.rpc.heights = [height, height]
            self.in_memory.advance(5)
        self.assertIn("no block for 10 s while the chain moves", self.reason)
        self.next_link()
        self.assertEqual(self.port, 8081)
