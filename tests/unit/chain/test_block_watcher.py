"""The head is followed, and what keeps the chain from taking anything is told in words."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.rpc_answers import ChainStatus
from dapi.errors import ChainUnavailableError
from tests.logs import log_of
from tests.unit.chain.events_in_memory import StatusOnDemand, status_at


class BlockWatcherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rpc = StatusOnDemand(self.clock)
        self.watcher = BlockWatcher(self.clock, self.rpc)
        self.heights: list[int] = []
        self.watcher.observe(lambda: self.heights.append(self.watcher.head.height if self.watcher.head else 0))
        self.watcher.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.successResultOf(self.watcher.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def answer(self, status: ChainStatus) -> None:
        """Answer what is asked, and let the next second come."""
        self.rpc.asked[-1].callback(status)
        self.clock.advance(1)

    def test_each_new_head_is_told_once(self) -> None:
        for height in (7, 7, 8, 10):
            self.answer(status_at(height))
        self.assertEqual(self.heights, [7, 8, 10])
        self.assertEqual(self.watcher.head, status_at(10))
        self.assertIs(self.watcher.problem, None)

    def test_who_acts_on_a_head_finds_that_the_chain_can_be_relied_on(self) -> None:
        problems: list[str | None] = []
        self.watcher.observe(lambda: problems.append(self.watcher.problem))
        self.answer(status_at(7))
        self.rpc.asked[-1].errback(ChainUnavailableError("refused"))
        self.clock.advance(1)
        self.answer(status_at(8))
        self.assertEqual(problems, [None, None])

    def test_the_end_of_a_problem_is_told_without_a_new_head(self) -> None:
        self.answer(status_at(7))
        self.answer(status_at(7, catching_up=True))
        self.answer(status_at(7))
        self.assertEqual(self.heights, [7, 7])

    def test_a_node_that_lags_behind_does_not_turn_the_time_back(self) -> None:
        self.answer(status_at(7))
        self.answer(status_at(5))
        self.assertEqual(self.watcher.head, status_at(7))
        self.assertEqual(self.heights, [7])

    def test_before_the_first_answer_nothing_is_to_be_sent(self) -> None:
        self.assertEqual(self.watcher.problem, "not asked yet")

    def test_catching_up_and_not_any_more(self) -> None:
        self.answer(status_at(7, catching_up=True))
        self.assertEqual(self.watcher.problem, "catching up")
        self.answer(status_at(7))
        self.assertIs(self.watcher.problem, None)

    def test_unreachable_and_back(self) -> None:
        self.answer(status_at(7))
        self.rpc.asked[-1].errback(ChainUnavailableError("refused"))
        self.assertEqual(self.watcher.problem, "not reachable: refused")
        self.clock.advance(1)
        self.answer(status_at(8))
        self.assertIs(self.watcher.problem, None)

    def test_halted_when_no_block_came_for_ten_seconds(self) -> None:
        self.answer(status_at(7))
        for _ in range(9):
            self.answer(status_at(7))
        self.assertIs(self.watcher.problem, None)
        self.answer(status_at(7))
        self.assertEqual(self.watcher.problem, "halted: no block for 11 s")
        self.answer(status_at(8))
        self.assertIs(self.watcher.problem, None)

    def test_a_problem_is_logged_once_and_so_is_its_end(self) -> None:
        log = log_of(self)
        for _ in range(3):
            self.rpc.asked[-1].errback(ChainUnavailableError("refused"))
            self.clock.advance(1)
        self.assertEqual(log.warnings(), ["the chain is not reachable: refused; everything waits"])
        self.answer(status_at(7))
        self.assertEqual(log.lines()[1:], ["the chain moves again, at height 7"])

    def test_stopped_while_it_asks(self) -> None:
        self.successResultOf(self.watcher.stopService())
        self.assertTrue(self.rpc.asked[-1].called)
        self.assertEqual(len(self.rpc.asked), 1)

    def test_a_defect_is_logged_and_not_hidden(self) -> None:
        self.rpc.asked[-1].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
