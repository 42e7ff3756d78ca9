"""Since when each finding is there, and which of them count."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from dapi.diagnosis.book import ProblemBook
from dapi.diagnosis.catalogue import ProblemId, Severity
from dapi.diagnosis.problem import Finding

NOVEMBER = 1_700_000_000.0
CLOCK = Finding(ProblemId.CLOCK_OFF, "the clock is wrong", "set it")
NODE = Finding(ProblemId.NODE_DOWN, "a: is away", "look at it", "a", for_seconds=15.0)


class BookTests(SynchronousTestCase):
    """``ProblemBook``."""

    def setUp(self) -> None:
        self.book = ProblemBook()

    def since(self, finding: Finding, seconds: float, now: float) -> list[datetime]:
        return [problem.since for problem in self.book.update([finding], seconds, now).problems]

    def test_what_is_shown(self) -> None:
        shown = msgspec.to_builtins(self.book.update([CLOCK], 5.0, NOVEMBER + 0.7).problems)
        self.assertEqual(
            shown,
            [
                {
                    "id": "clock-off",
                    "severity": "warning",
                    "node_id": None,
                    "part": "process",
                    "since": "2023-11-14T22:13:20Z",
                    "problem": "the clock is wrong",
                    "to_do": "set it",
                    "chapter": "clock-off",
                }
            ],
        )

    def test_a_check_may_know_better(self) -> None:
        finding = Finding(ProblemId.CLOCK_OFF, "x", "y", part="the other clock", severity=Severity.INFO, since=60.0)
        (problem,) = self.book.update([finding], 5.0, NOVEMBER).problems
        self.assertEqual((problem.part, problem.severity), ("the other clock", "info"))
        self.assertEqual(problem.since, datetime(1970, 1, 1, 0, 1, tzinfo=UTC))

    def test_since_when(self) -> None:
        changes = self.book.update([CLOCK], 5.0, NOVEMBER)
        self.assertEqual((changes.counting, changes.over), ([CLOCK], []))
        # The clock of the machine is set back, and the words change: that is no other problem.
        words = Finding(ProblemId.CLOCK_OFF, "the clock is very wrong", "set it")
        again = self.book.update([words], 6.0, NOVEMBER - 1e8)
        self.assertEqual((again.counting, again.over), ([words], []))
        self.assertEqual(again.problems[0].since, changes.problems[0].since)
        self.assertEqual(again.problems[0].problem, "the clock is very wrong")

    def test_what_is_over_begins_anew(self) -> None:
        self.book.update([CLOCK], 5.0, NOVEMBER)
        self.assertEqual(self.book.update([], 6.0, NOVEMBER + 1), ([], [], [CLOCK]))
        changes = self.book.update([CLOCK], 7.0, NOVEMBER + 2)
        self.assertEqual(changes.counting, [CLOCK])
        self.assertEqual(changes.problems[0].since, datetime.fromtimestamp(NOVEMBER + 2, UTC))

    def test_what_has_to_last(self) -> None:
        self.assertEqual(self.book.update([NODE], 0.0, NOVEMBER), ([], [], []))
        self.assertEqual(self.book.update([NODE], 14.0, NOVEMBER + 14), ([], [], []))
        changes = self.book.update([NODE], 15.0, NOVEMBER + 15)
        self.assertEqual(changes.counting, [NODE])
        self.assertEqual(changes.problems[0].since, datetime.fromtimestamp(NOVEMBER, UTC))
        # What never counted is not over either.
        self.book.update([], 16.0, NOVEMBER + 16)
        self.book.update([NODE], 17.0, NOVEMBER + 17)
        self.assertEqual(self.book.update([], 18.0, NOVEMBER + 18), ([], [], []))

    def test_the_same_of_two_nodes_is_two_problems(self) -> None:
        other = msgspec.structs.replace(NODE, node_id="b")
        self.book.update([NODE], 0.0, NOVEMBER)
        changes = self.book.update([NODE, other], 15.0, NOVEMBER + 15)
        self.assertEqual([problem.node_id for problem in changes.problems], ["a"])

    def test_the_gravest_come_first(self) -> None:
        found = [
            Finding(ProblemId.NOT_DRIVING, "x", "y"),
            CLOCK,
            Finding(ProblemId.CHAIN_HALTED, "x", "y"),
            Finding(ProblemId.ADMIN_OPEN, "x", "y"),
        ]
        problems = self.book.update(found, 0.0, NOVEMBER).problems
        self.assertEqual(
            [problem.id for problem in problems], ["chain-halted", "clock-off", "not-driving", "admin-open"]
        )
