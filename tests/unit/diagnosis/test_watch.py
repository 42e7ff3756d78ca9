"""Problems are kept current, and each is told in the log once when it begins and once when it is over."""

from __future__ import annotations

import copy
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from dapi.diagnosis.watch import ProblemWatch
from dapi.errors import StoreBusyError
from dapi.messages import Kind, State
from dapi.outbox.losses import Loss
from tests.logs import log_of
from tests.unit.diagnosis.statuses import STANDING, WELL

NOVEMBER = 1_700_000_000.0
LOSS = Loss(900, Kind.GENERATED, State.EXPIRED, False, 3, "its window ended with block 965")
OFF = "this machine's clock is 60 s ahead of the time of the blocks"
OFF_BY_MORE = "this machine's clock is 61 s ahead of the time of the blocks"


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.status: dict[str, Any] = copy.deepcopy(WELL)
        self.answer: list[Loss] | Exception | Deferred[list[Loss]] = []
        self.asked = self.looks = 0
        self.look_seconds = 0.0
        self.log = log_of(self)
        self.processor_seconds = 0.0
        self.watch = ProblemWatch(
            self.clock,
            self.ask_status,
            self.ask_losses,
            now=lambda: NOVEMBER + self.clock.seconds(),
            processor_seconds=lambda: self.processor_seconds,
        )
        self.watch.startService()
        self.addCleanup(lambda: self.successResultOf(self.watch.stopService()))

    def ask_status(self) -> dict[str, Any]:
        self.looks += 1
        self.processor_seconds += self.look_seconds
        return self.status

    def ask_losses(self) -> Deferred[list[Loss]]:
        self.asked += 1
        if isinstance(self.answer, Deferred):
            return self.answer
        return fail(self.answer) if isinstance(self.answer, Exception) else succeed(self.answer)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([1.0] * round(seconds))

    def ids(self) -> list[str]:
        return [str(problem.id) for problem in self.watch.problems]

    def offset(self, seconds: float) -> None:
        self.status["chain"]["clock_offset_seconds"] = seconds

    def test_looking_takes_a_hundredth_of_the_time_however_many_nodes_there_are(self) -> None:
        self.pass_time(100)
        self.assertEqual(self.looks, 50)
        self.look_seconds = 0.015
        self.pass_time(100)
        self.assertEqual(self.looks, 100)
        self.look_seconds = 0.175
        self.pass_time(2)
        self.looks = 0
        # The clock goes on by whole seconds.
        self.pass_time(180)
        self.assertEqual(self.looks, 10)
        self.look_seconds = 0.0
        self.pass_time(18)
        self.looks = 0
        self.pass_time(100)
        self.assertEqual(self.looks, 50)

    def test_once_when_it_begins_and_once_when_it_is_over(self) -> None:
        self.pass_time(10)
        self.assertEqual((self.ids(), self.log.lines()), ([], []))
        self.offset(60.0)
        self.pass_time(10)
        self.offset(61.0)
        self.pass_time(600)
        self.assertEqual(self.ids(), ["clock-off"])
        self.assertEqual(self.watch.problems[0].problem, OFF_BY_MORE)
        self.assertEqual(self.log.lines(), [f"{OFF}: have the clock set by NTP (chrony, systemd-timesyncd)"])
        self.offset(0.0)
        self.pass_time(10)
        self.assertEqual(self.ids(), [])
        self.assertEqual(self.log.lines()[1:], [f"over: {OFF_BY_MORE}"])

    def test_what_the_part_logs_is_not_logged_twice(self) -> None:
        self.status["database"] |= {"state": "full", "reason": "no room"}
        self.pass_time(10)
        self.assertEqual(self.ids(), ["database-full"])
        self.status["database"]["state"] = "ok"
        self.pass_time(10)
        self.assertEqual((self.ids(), self.log.lines()), ([], []))

    def test_the_level_is_the_severitys(self) -> None:
        self.status["chain"]["poc"]["nodes"]["a"]["silent_seconds"] = 70.0
        self.status["chain"]["poc"]["host"]["hardware_nodes"]["times_undone"] = 1
        self.pass_time(3)
        self.assertEqual(len(self.log.lines(LogLevel.error, "no batch came from it for 70 s")), 1)
        self.assertEqual(len(self.log.warnings("changed by somebody else")), 1)

    def test_a_change_of_its_cause_makes_a_line_but_not_more_than_one_a_minute(self) -> None:
        node = self.status["chain"]["poc"]["nodes"]["a"]
        for number in range(240):
            node |= {"silent_seconds": 70.0 + number, "problem": "refused" if number % 8 < 4 else "no answer"}
            self.pass_time(1)
        self.assertEqual(len(self.log.lines(containing="no batch came")), 5)

    def test_a_node_that_is_down_for_a_day_makes_one_line_an_hour(self) -> None:
        failing = {"failure": "unreachable", "problem": "a: state: refused", "intended": "INFERENCE"}
        self.status["chain"]["poc"]["nodes"]["a"] = STANDING | failing | {"silent_seconds": None}
        self.clock.pump([2.0] * (12 * 3600))
        self.assertEqual(self.ids(), ["node-down"])
        self.assertEqual(set(self.log.lines()), {"still wrong: node-down (a)"})
        self.assertIn(len(self.log.lines()), (23, 24))

    def test_what_lasts_is_named_once_an_hour(self) -> None:
        nodes = {f"n{number}": STANDING | {"silent_seconds": 99.0} for number in range(12)}
        self.status["chain"]["poc"]["nodes"] = nodes
        self.pass_time(3590)
        self.assertEqual(self.log.lines(containing="still wrong"), [])
        self.clock.pump([2.0] * 1800)
        (line,) = self.log.warnings("still wrong: node-without-batches (n0), ")
        self.assertTrue(line.endswith("node-without-batches (n9) and 2 more"))
        self.clock.pump([2.0] * 3600)
        self.assertEqual(len(self.log.warnings("still wrong")), 3)

    def test_what_was_lost_is_asked_for_now_and_then(self) -> None:
        self.answer = [LOSS]
        self.pass_time(3)
        self.assertEqual((self.ids(), self.watch.losses, self.asked), (["messages-expired"], [LOSS], 1))
        # While the database does not answer, what it said before counts, and it is not asked again.
        self.answer = answer = Deferred[list[Loss]]()
        self.pass_time(60)
        self.assertEqual((self.ids(), self.asked), (["messages-expired"], 2))
        answer.errback(StoreBusyError("the disk is full"))
        self.answer = []
        self.pass_time(20)
        self.assertEqual(self.ids(), [])

    def test_a_store_that_fails_says_so_itself(self) -> None:
        self.answer = StoreBusyError("the disk is full")
        self.pass_time(3)
        self.assertEqual((self.ids(), self.log.lines()), ([], []))

    def test_a_status_that_is_known_already(self) -> None:
        status = copy.deepcopy(WELL)
        status["admin"]["host"] = "0.0.0.0"
        self.assertEqual([problem.id for problem in self.watch.look(status)], ["admin-open"])
