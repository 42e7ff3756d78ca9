"""Which events pass, by their levels and their rooms."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dapi.errors import ConfigError
from dapi.timing.log_levels import LEVELS, ROOMS, LogLevels
from tests.logs import Log


class LevelTests(SynchronousTestCase):
    """``LogLevels``."""

    def passed(self, levels: str, room: str) -> list[str]:
        """The levels of which an event of a room passes."""
        log = Log()
        publisher = LogPublisher(LogLevels(levels).filtered(log))
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

    def test_changed_while_the_log_is_written(self) -> None:
        log, levels = Log(), LogLevels("warn")
        logger = Logger("dapi.chain.rpc", observer=LogPublisher(levels.filtered(log)))
        logger.debug("left out")
        levels.change("warn,chain=debug")
        logger.debug("written")
        levels.change("error")
        logger.warn("left out")
        self.assertEqual(log.lines(), ["written"])
        self.assertEqual((levels.levels, levels.configured), ("error", "warn"))

    def test_what_are_no_levels_changes_nothing(self) -> None:
        levels = LogLevels("warn")
        for wrong in ("", "loud", "info,nowhere=debug", "info,chain", "info\n", "x" * 10_000):
            error = self.assertRaises(ConfigError, levels.change, wrong)
            self.assertIn("websocket", str(error))
            self.assertLess(len(str(error)), 1000)
        self.assertEqual(levels.levels, "warn")

    def test_each_room_is_known(self) -> None:
        self.assertLessEqual({"websocket", "chain", "tap", "config"}, set(ROOMS))
