"""How long the latest commits took."""

from __future__ import annotations

import sqlite3

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.database.commit_times import CommitTimes
from dapi.timing.histogram import Histogram


class CommitTimesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.histogram = Histogram()
        self.times = CommitTimes(self.clock, self.histogram)
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(self.connection.close)
        self.connection.execute("CREATE TABLE t (x INTEGER)")

    def commit(self, seconds: float) -> None:
        with self.times.timed(self.connection):
            self.connection.execute("INSERT INTO t VALUES (1)")
            self.clock.advance(seconds)

    def test_few_commits_say_nothing(self) -> None:
        for _ in range(19):
            self.commit(2.0)
            self.assertIsNone(self.times.p99_seconds())
        self.commit(0.5)
        self.assertEqual((self.times.p99_seconds(), self.times.last_seconds), (2.0, 0.5))
        self.assertEqual((self.histogram.cumulative()[-1], self.histogram.sum), (20, 38.5))

    def test_what_changes_nothing_is_no_commit(self) -> None:
        for _ in range(30):
            with self.times.timed(self.connection):
                self.clock.advance(2.0)
        self.assertEqual((self.times.p99_seconds(), self.times.last_seconds), (None, 0.0))

    def test_one_of_a_hundred(self) -> None:
        self.commit(9.0)
        for _ in range(98):
            self.commit(0.25)
        self.assertEqual(self.times.p99_seconds(), 9.0)
        self.commit(0.25)
        self.assertEqual(self.times.p99_seconds(), 0.25)

    def test_what_is_old_is_forgotten(self) -> None:
        for _ in range(20):
            self.commit(9.0)
        self.clock.advance(300)
        for _ in range(20):
            self.commit(0.001)
        self.assertEqual(self.times.p99_seconds(), 0.001)

    def test_the_latest_512_count(self) -> None:
        for _ in range(600):
            self.commit(0.1)
        for _ in range(512):
            self.commit(0.01)
        self.assertEqual(self.times.p99_seconds(), 0.01)
