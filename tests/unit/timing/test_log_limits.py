"""Which of many equal events get a line in the log."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.log_limits import OncePerMinute, SayOnce


class SayOnceTests(SynchronousTestCase):
    def test_a_cause_is_said_once_until_another_comes(self) -> None:
        once = SayOnce()
        said = [once.is_new(cause) for cause in ("a", "a", "b", "a", None, "a")]
        self.assertEqual(said, [True, False, True, True, False, True])


class OncePerMinuteTests(SynchronousTestCase):
    def test_each_kind_is_said_once_a_minute(self) -> None:
        clock = Clock()
        limit = OncePerMinute(clock)
        self.assertEqual([limit.is_due(kind) for kind in ("a", "a", "b")], [True, False, True])
        clock.advance(59.9)
        self.assertFalse(limit.is_due("a"))
        clock.advance(0.1)
        self.assertEqual([limit.is_due(kind) for kind in ("a", "a")], [True, False])
