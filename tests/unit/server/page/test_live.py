"""The page's files and its stream, over in-memory connections and a clock."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.http.answers import new_app
from dapi.http.routes import add_routes
from dapi.http.site import JsonSite
from dapi.server.page.live import LOOK_SECONDS, MAX_READERS, LivePage
from dapi.server.page.routes import PageRoutes
from tests.logs import log_of
from tests.page_data import status
from tests.unit.http.connections import Transport

_EVENT = re.compile(rb"event: (\w+)\ndata: (.*)\n\n")


class PageTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.status: Any = status()
        self.asked = 0
        self.live = LivePage(self.clock, status=self.ask, restart=lambda: {"safe": True}, counts=dict)
        app = new_app()
        add_routes(app, PageRoutes(self.live).routes())
        self.site = JsonSite(self.clock, app.resource())
        self.live.startService()
        self.addCleanup(self.live.stopService)

    def ask(self) -> Any:
        self.asked += 1
        return self.status

    def get(self, path: str) -> Transport:
        transport = Transport(self.site)
        transport.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return transport

    def look(self) -> None:
        self.clock.advance(LOOK_SECONDS)

    def events(self, reader: Transport) -> list[tuple[str, Any]]:
        """The events that a reader got since the last call."""
        found = [(name.decode(), json.loads(data)) for name, data in _EVENT.findall(reader.value())]
        reader.clear()
        return found


class FileTests(PageTestCase):
    def test_the_page_asks_only_for_what_is_there(self) -> None:
        page = self.get("/").value().decode()
        asked = re.findall(r'(?:src|href)="(/[^"]*)"', page)
        self.assertIn("/page/page.js", asked)
        for path in asked:
            self.assertTrue(self.get(path).value().startswith(b"HTTP/1.1 200 "), path)
        scripts = self.get("/page/page.js").value().decode()
        for name in re.findall(r'from "\./([^"]+)"', scripts):
            self.assertTrue(self.get(f"/page/{name}").value().startswith(b"HTTP/1.1 200 "), name)

    def test_nothing_from_elsewhere_and_nothing_in_line(self) -> None:
        for path in ("/", "/page/page.css", "/page/page.js"):
            head, _, body = self.get(path).value().decode().partition("\r\n\r\n")
            policy = re.search(r"Content-Security-Policy: (.*)", head, re.IGNORECASE)
            assert policy is not None
            self.assertIn("default-src 'none'; script-src 'self'; style-src 'self'", policy[1])
            self.assertNotIn("unsafe", policy[1])
            self.assertIn("nosniff", head)
            self.assertNotRegex(body, r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=")
            self.assertNotRegex(body.replace("http://www.w3.org/2000/svg", ""), r"https?://")

    def test_other_names_are_not_there(self) -> None:
        for path in ("/page/", "/page/__init__.py", "/page/../routes.py", "/page/%2e%2e/routes.py"):
            self.assertTrue(self.get(path).value().startswith(b"HTTP/1.1 404 "), path)


class StreamTests(PageTestCase):
    def test_a_snapshot_and_then_what_changes(self) -> None:
        reader = self.get("/events")
        self.assertIn(b"text/event-stream", reader.value())
        self.look()
        [(name, whole)] = self.events(reader)
        self.assertEqual(("snapshot", "1.2.3"), (name, whole["version"]))
        self.assertEqual({"safe": True}, whole["restart"])
        self.assertEqual({"node1", "node2"}, set(whole["nodes"]))
        self.look()
        [(name, change)] = self.events(reader)
        # It says when it is of even if nothing has changed: that is how the page knows that it is current.
        self.assertEqual(("patch", {"at"}), (name, set(change)))
        self.status = status(version="1.2.4")
        self.look()
        self.assertEqual("1.2.4", self.events(reader)[0][1]["version"])

    def test_nobody_asks_while_nobody_reads(self) -> None:
        for _ in range(5):
            self.look()
        self.assertEqual(0, self.asked)
        reader = self.get("/events")
        self.look()
        self.assertEqual(1, self.asked)
        reader.lose()
        self.look()
        self.assertEqual(1, self.asked)

    def test_a_second_reader_gets_a_snapshot_at_once(self) -> None:
        first = self.get("/events")
        self.look()
        second = self.get("/events")
        self.assertEqual(["snapshot"], [name for name, _ in self.events(second)])
        self.events(first)
        self.look()
        self.assertEqual(["patch"], [name for name, _ in self.events(first)])
        self.assertEqual(["patch"], [name for name, _ in self.events(second)])

    def test_one_that_reads_too_slowly_gets_a_snapshot_later(self) -> None:
        reader = self.get("/events")
        self.look()
        self.events(reader)
        producer: Any = reader.producer
        producer.pauseProducing()
        for _ in range(3):
            self.look()
        self.assertEqual([], self.events(reader))
        producer.resumeProducing()
        self.look()
        self.assertEqual(["snapshot"], [name for name, _ in self.events(reader)])
        self.look()
        self.assertEqual(["patch"], [name for name, _ in self.events(reader)])

    def test_so_many_read_and_no_more(self) -> None:
        readers = [self.get("/events") for _ in range(MAX_READERS)]
        [(code, _, body)] = self.get("/events").answers()
        self.assertEqual((503, {"error": "16 pages read already: close one"}), (code, body))
        readers.pop().lose()
        self.assertIn(b"200 OK", self.get("/events").value())

    def test_a_status_that_fails_ends_nothing(self) -> None:
        log = log_of(self)
        reader = self.get("/events")
        self.status = Deferred()
        self.look()
        self.status.errback(RuntimeError("broken"))
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        self.assertTrue(log.lines(containing="LivePage broke"))
        self.status = status()
        self.clock.pump([30.0, LOOK_SECONDS])
        self.assertEqual("snapshot", self.events(reader)[0][0])

    def test_a_stop_ends_the_streams(self) -> None:
        reader = self.get("/events")
        self.look()
        self.successResultOf(self.live.stopService())
        self.successResultOf(self.site.close_connections())
        self.assertTrue(reader.aborted)
        self.assertEqual([], self.clock.getDelayedCalls())
