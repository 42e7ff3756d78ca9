"""Advice on a restart that heeds several others."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dapi.phases.restart import RestartAdvice, joined

SAFE = RestartAdvice(True, blocks_left=100)
ANY_TIME = RestartAdvice(True)
UNKNOWN = RestartAdvice(False, "not known")
BUSY = RestartAdvice(False, "a stage is open", 0, 185)


class JoinedTests(SynchronousTestCase):
    def test_safe_where_all_are(self) -> None:
        self.assertIsNone(joined([]))
        self.assertEqual(joined([ANY_TIME]), ANY_TIME)
        self.assertEqual(joined([SAFE, ANY_TIME, RestartAdvice(True, blocks_left=120)]), SAFE)

    def test_one_against_it_is_enough(self) -> None:
        self.assertEqual(joined([SAFE, BUSY]), BUSY)
        self.assertEqual(joined([BUSY, UNKNOWN]), RestartAdvice(False, "a stage is open; not known"))
        later = RestartAdvice(False, "another", 3, 200)
        self.assertEqual(joined([BUSY, later]), RestartAdvice(False, "a stage is open; another", 0, 200))
        self.assertIsNone((joined([BUSY, RestartAdvice(False, "PoC", 0)]) or BUSY).safe_at, "it is not known of both")
