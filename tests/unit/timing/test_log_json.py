"""A line of the log as a JSON object."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import FileLogObserver, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.python.log import msg
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing.log_json import json_line
from tests.logs import Log, log_of


def event_of(text: str, level: LogLevel = LogLevel.warn, **fields: Any) -> Any:
    log = Log()
    Logger("dapi.poc.batch_handler.BatchHandler", observer=LogPublisher(log)).emit(level, text, **fields)
    (event,) = log.events
    return event


class JsonLineTests(SynchronousTestCase):
    def line(self, text: str, **fields: Any) -> dict[str, Any]:
        written = json_line(event_of(text, **fields))
        assert written is not None
        self.assertTrue(written.endswith("\n"))
        self.assertEqual(written.count("\n"), 1)
        line: dict[str, Any] = json.loads(written)
        return line

    def test_has_what_the_text_has_apart(self) -> None:
        event = event_of("{node_id}: {number} batches in {seconds:.1f} s", node_id="a", number=3, seconds=1.25)
        event["log_time"] = 1_000_000_000.25
        written = json_line(event)
        assert written is not None
        self.assertEqual(
            json.loads(written),
            {
                "time": "2001-09-09T01:46:40.250Z",
                "level": "warn",
                "logger": "dapi.poc.batch_handler.BatchHandler",
                "message": "a: 3 batches in 1.2 s",
                "fields": {"node_id": "a", "number": 3, "seconds": 1.25},
            },
        )

    def test_has_no_more_than_the_text(self) -> None:
        class Stage:
            height = 5

        line = self.line("stage {stage.height}: {reason}", stage=Stage(), reason="why", secret="hush")
        self.assertEqual((line["message"], line["fields"]), ("stage 5: why", {"reason": "why"}))

    def test_one_line_whatever_is_in_it(self) -> None:
        self.assertEqual(self.line("{said}", said="a\nb\x1b\u2028")["message"], "a\nb\x1b\u2028")

    @given(st.text(), st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.none()))
    def test_whatever_is_logged(self, text: str, value: Any) -> None:
        event = event_of("{value} " + text.replace("{", "").replace("}", ""), value=value)
        written = json_line(event)
        assert written is not None
        self.assertEqual(written.count("\n"), 1)
        json.loads(written)

    def test_a_format_that_is_none_is_no_end(self) -> None:
        self.assertIn("message", self.line("{"))

    def test_what_broke_has_its_traceback(self) -> None:
        log = Log()
        failure = Failure(ValueError("a defect"))
        Logger("dapi.x", observer=LogPublisher(log)).failure("{what} broke", failure, what="it")
        written = json_line(log.events[0])
        assert written is not None
        line = json.loads(written)
        self.assertEqual((line["message"], line["level"]), ("it broke", "critical"))
        self.assertIn("ValueError: a defect", line["traceback"])

    def test_older_events(self) -> None:
        log = log_of(self)
        msg("by an older library")
        (event,) = log.events
        self.assertIn('"message":"by an older library"', str(json_line(event)))
        self.assertIsNone(json_line({"log_format": ""}))

    def test_is_written_by_twisteds_observer(self) -> None:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            FileLogObserver(file, json_line)(event_of("{node_id}: ü", node_id="a"))
        with open(path, encoding="utf-8") as file:
            self.assertEqual(json.loads(file.read())["message"], "a: ü")
