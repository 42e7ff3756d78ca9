"""Which events pass, by their levels and their rooms."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.log_levels import LEVELS, ROOMS, filtered
from tests.logs import Log


class FilteredTests(SynchronousTestCase):
    """``filtered``."""

    def passed(self, levels: str, room: str) -> list[str]:
        """The levels of which an event of a room passes."""
        log = Log()
        publisher = LogPublisher(filtered(log, levels))
        for level in LogLevel.iterconstants():
            Logger(f"dapi.{room}.somewhere.Class", observer=publisher).emit(level, "text")
        return [event["log_level"].name for event in log.events]

    def test_one_level_for_all(self) -> None:
        self.assertEqual(self.passed("info", "chain"), ["info", "warn", "error", "critical"])
        self.assertEqual(self.passed("debug", "chain"), list(LEVELS))
        self.assertEqual(self.passed("critical", "chain"), ["critical"])

    def test_rooms_of_their_own(self) -> None:
        levels = "warn,websocket=debug,chain=error"
        self.assertEqual(self.passed(levels, "websocket"), list(LEVELS))
        self.assertEqual(self.passed(levels, "chain"), ["error", "critical"])
        self.assertEqual(self.passed(levels, "chain_service"), ["warn", "error", "critical"])

    def test_each_room_is_known(self) -> None:
        self.assertLessEqual({"websocket", "chain", "tap", "config"}, set(ROOMS))
