"""Events move the head; where they fail, the status does, and what was passed over is counted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, repeat

from twisted.internet.error import ConnectionLost
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.rpc_answers import ChainStatus
from dapi.errors import ChainUnavailableError
from dapi.websocket.client import WebSocketState
from tests.logs import log_of
from tests.unit.chain.events_in_memory import ChainPeer, EventsInMemory, StatusOnDemand, status_at
from tests.unit.websocket.links import STEP_SECONDS, Link


class WatcherInMemory(EventsInMemory):
    """A watcher, its events in memory, and a source that answers what ``current`` gives as soon as it is asked."""

    def __init__(self, *urls: str) -> None:
        super().__init__(*urls)
        self.rpc = StatusOnDemand(self.clock)
        self.watcher = BlockWatcher(self.clock, self.rpc, self.events)
        self.told: list[int] = []
        self.watcher.observe(lambda: self.told.append(self.watcher.head.height if self.watcher.head else 0))
        self.current: Callable[[], ChainStatus | Exception] | None = None
        self.asked_at: list[float] = []

    def settle(self) -> None:
        """Answer what is asked."""
        while len(self.asked_at) < len(self.rpc.asked):
            self.asked_at.append(self.clock.seconds())
            if self.current is not None:
                answer = self.current()
                asked = self.rpc.asked[-1]
                if isinstance(answer, Exception):
                    asked.errback(answer)
                else:
                    asked.callback(answer)

    def pass_time(self, seconds: float) -> list[float]:
        """Let time pass, with every question answered at once; return when the status was asked for."""
        before = len(self.asked_at)
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.advance(STEP_SECONDS)
            self.settle()
        return self.asked_at[before:]

    def announce(self, link: Link[ChainPeer], height: int) -> None:
        link.server.announce(height)
        link.flush()


class EventsTests(SynchronousTestCase):
    """A chain at height 7, whose status does not move by itself, and an open connection."""

    def setUp(self) -> None:
        self.watched = WatcherInMemory()
        self.watcher = self.watched.watcher
        self.height = 7
        self.catching_up = False
        self.watched.current = lambda: status_at(self.height, catching_up=self.catching_up)
        self.watcher.startService()
        self.watched.settle()
        self.link = self.watched.accept()
        self.addCleanup(self._stop)

    def _stop(self) -> None:
        stopped = self.watcher.stopService()
        self.watched.advance(1.125)
        self.successResultOf(stopped)
        self.assertEqual(self.watched.clock.getDelayedCalls(), [])

    def _announce(self, height: int) -> None:
        self.watched.announce(self.link, height)

    def _block(self) -> None:
        """Make a block, as the node's status and its events see it."""
        self.height += 1
        self._announce(self.height)

    def test_a_block_is_the_head_at_once(self) -> None:
        self._announce(8)
        head = self.watcher.head
        assert head is not None
        self.assertEqual((head.height, head.block_hash, head.block_time_ns), (8, "B8", 8 * 10**9))
        self.assertEqual((head.chain_id, head.node), ("chain", "127.0.0.1:26657"))
        self.assertEqual(self.watched.told, [7, 8])

    def test_told_once_when_status_and_event_both_have_it(self) -> None:
        self._block()
        self.watched.pass_time(6)
        self._announce(8)
        self.assertEqual(self.watched.told, [7, 8])

    def test_with_blocks_coming_the_status_is_asked_for_every_five_seconds(self) -> None:
        asked_at = []
        for _ in range(5):
            asked_at += self.watched.pass_time(6)
            self._block()
        self.assertEqual(asked_at, [5, 10, 15, 20, 25, 30])

    def test_quiet_for_ten_seconds_it_asks_every_second(self) -> None:
        self._announce(8)
        self.assertEqual(self.watched.pass_time(20)[:8], [5, 10, 11, 12, 13, 14, 15, 16])
        self.height = 9
        self._announce(9)
        self.assertEqual(self.watched.pass_time(9), [25])

    def test_a_head_found_by_asking_in_the_quiet(self) -> None:
        self._announce(8)
        self.watched.pass_time(15)
        self.height = 20
        self.watched.pass_time(1)
        self.assertEqual(self.watched.told, [7, 8, 20])
        self.assertIs(self.watcher.problem, None)

    def test_without_a_connection_it_asks_every_second_and_hears_again_after_it(self) -> None:
        self._announce(8)
        self.link.drop(ConnectionLost())
        self.height = 9
        asked_at = self.watched.pass_time(2)
        self.assertEqual(asked_at, [1, 2])
        self.assertEqual(self.watched.told, [7, 8, 9])
        self.watched.until_next_attempt()
        self.watched.settle()
        self.link = self.watched.accept()
        self._announce(10)
        self.assertEqual(self.watched.told, [7, 8, 9, 10])
        self.assertLessEqual(len(self.watched.pass_time(9)), 2)

    def test_jumps_are_logged(self) -> None:
        log = log_of(self)
        self._announce(58)
        self.height = 60
        self.watched.pass_time(5)
        self._announce(61)
        self.assertEqual(self.watched.told, [7, 58, 60, 61])
        self.assertEqual(
            log.lines(LogLevel.info, "one by one"),
            [
                "50 blocks were not seen one by one: from 7 to 58 in one step",
                "1 blocks were not seen one by one: from 58 to 60 in one step",
            ],
        )

    def test_blocks_of_the_past_and_of_another_chain_are_left_alone(self) -> None:
        self._announce(5)
        self.link.server.announce(9, chain_id="other")
        self.link.flush()
        self.assertEqual(self.watched.told, [7])

    def test_catching_up_is_taken_from_the_status_even_when_events_are_faster(self) -> None:
        self._announce(8)
        self.catching_up = True
        self.watched.pass_time(5)
        head = self.watcher.head
        assert head is not None
        self.assertEqual((head.height, self.watcher.problem), (8, "catching up"))
        self._announce(9)
        self.assertEqual(self.watcher.problem, "catching up")
        self.catching_up, self.height = False, 10
        self.watched.pass_time(5)
        self.assertIs(self.watcher.problem, None)

    def test_halted_and_not_any_more(self) -> None:
        self._announce(8)
        self.watched.pass_time(11)
        self.assertEqual(self.watcher.problem, "halted: no block for 11 s")
        self._announce(9)
        self.assertIs(self.watcher.problem, None)

    def test_a_halted_chain_costs_no_connection(self) -> None:
        self._announce(8)
        self.watched.pass_time(120)
        self.assertEqual(self.watched.attempts, 1)

    def test_blocks_that_come_slowly_cost_no_connection(self) -> None:
        for _ in range(10):
            self.watched.pass_time(14)
            self.height += 1
            # The status has it a second before its event comes.
            self.watched.pass_time(1)
            self._announce(self.height)
        self.assertEqual(self.watched.attempts, 1)

    def test_a_silent_connection_is_replaced_when_the_chain_moves(self) -> None:
        self._announce(8)
        self.height = 8
        for _ in range(5):
            self.height += 1
            self.watched.pass_time(5)
        status = self.watched.events.connection_status()
        self.assertNotEqual(status.state, WebSocketState.OPEN)
        self.assertEqual(status.reason, "replaced: no block for 10 s while the chain moves")
        self.assertEqual(self.watched.told, [7, 8, 9, 10, 11, 12, 13])

    def test_what_an_earlier_connection_did_not_tell_is_not_held_against_the_next(self) -> None:
        self._announce(8)
        self.height = 9
        self.watched.pass_time(5)
        self.link.drop(ConnectionLost())
        while self.watched.attempts == 1:
            self.watched.pass_time(STEP_SECONDS)
        self.link = self.watched.accept()
        self.watched.pass_time(60)
        self.assertEqual(self.watched.attempts, 2)

    def test_not_reachable_over_http_it_asks_every_second_though_blocks_come(self) -> None:
        self.watched.current = lambda: ChainUnavailableError("refused")
        self._announce(8)
        self.assertEqual(self.watched.pass_time(7), [5, 6, 7])
        self._announce(9)
        self.assertEqual(self.watcher.problem, "not reachable: refused")
        self.assertEqual(self.watched.told, [7, 8, 9])

    def test_it_can_be_started_again(self) -> None:
        stopped = self.watcher.stopService()
        self.watched.advance(0.125)
        self.successResultOf(stopped)
        self.watcher.startService()
        self.watched.settle()
        self.watched.until_next_attempt()
        self.link = self.watched.accept()
        self._announce(8)
        self.assertEqual(self.watched.told, [7, 8])


class BeforeTheFirstStatusTests(SynchronousTestCase):
    def test_no_block_counts(self) -> None:
        watched = WatcherInMemory()
        watched.watcher.startService()
        link = watched.accept()
        watched.announce(link, 8)
        self.assertIs(watched.watcher.head, None)
        self.assertEqual(watched.watcher.problem, "not asked yet")
        watched.rpc.asked[0].callback(status_at(8))
        self.assertEqual(watched.told, [8])
        stopped = watched.watcher.stopService()
        watched.advance(0.125)
        self.successResultOf(stopped)
        self.assertEqual(watched.clock.getDelayedCalls(), [])

    def test_the_first_head_is_no_sign_of_a_silent_connection(self) -> None:
        watched = WatcherInMemory()
        watched.watcher.startService()
        watched.accept()
        watched.current = lambda: status_at(8)
        watched.pass_time(60)
        self.assertEqual((watched.told, watched.attempts), ([8], 1))
        stopped = watched.watcher.stopService()
        watched.advance(0.125)
        self.successResultOf(stopped)

    def test_while_catching_up_leaps_are_not_logged(self) -> None:
        log = log_of(self)
        watched = WatcherInMemory()
        heights = chain((7, 100), repeat(200))
        watched.current = lambda: status_at(next(heights), catching_up=True)
        watched.watcher.startService()
        watched.settle()
        watched.accept()
        watched.pass_time(10)
        self.assertEqual(watched.told, [7, 100, 200])
        self.assertEqual(log.lines(containing="one by one"), [])
        stopped = watched.watcher.stopService()
        watched.advance(0.125)
        self.successResultOf(stopped)
