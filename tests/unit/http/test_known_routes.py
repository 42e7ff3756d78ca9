"""The short way to the handlers of a Klein app: the same answers as Klein's own."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Request

from dapi.errors import StoreBusyError
from dapi.http import known_routes
from dapi.http.answers import json_answer, new_app
from dapi.http.known_routes import KnownRoutes
from dapi.http.settings import HttpSettings
from dapi.http.site import JsonSite
from tests.unit.http.connections import Transport

REQUESTS = (
    b"POST /kept/a",
    b"POST /kept/a/",
    b"POST /kept/%61",
    b"POST /kept/a?b=c",
    b"POST /kept/b",
    b"GET /kept/a",
    b"HEAD /kept/a",
    b"POST /kept/a/b",
    b"POST //kept/a",
    b"POST /kept/",
    b"POST /other",
    b"POST /fail/busy",
    b"POST /fail/defect",
    b"OPTIONS *",
)


class KnownRouteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waiting: list[Deferred[bytes]] = []
        self.cancelled = 0
        self.clock = Clock()
        app = self.app = new_app()

        def kept(request: Request, name: str) -> Any:
            return json_answer(request, [name, request.path.decode()])

        def fails(request: Request, name: str) -> Any:
            raise StoreBusyError("busy") if name == "busy" else ValueError("a secret")

        def later(request: Request) -> Deferred[bytes]:
            def cancel(_waiting: Deferred[bytes]) -> None:
                self.cancelled += 1

            self.waiting.append(Deferred(cancel))
            return self.waiting[-1].addCallback(lambda value: json_answer(request, value))

        app.route("/kept/<name>", methods=["POST"], endpoint="kept")(kept)
        app.route("/fail/<name>", methods=["POST"], endpoint="fail")(fails)
        app.route("/later", methods=["POST"], endpoint="later")(later)
        app.route("/other", methods=["POST"], endpoint="other")(lambda request: json_answer(request, "other"))
        self.resource = KnownRoutes(app, ["kept", "fail", "later"])

    def connect(self, resource: Any = None) -> Transport:
        self.site = JsonSite(self.clock, resource or self.resource, HttpSettings())
        return Transport(self.site)

    def ask(self, line: bytes, resource: Any = None) -> bytes:
        transport = self.connect(resource)
        transport.send(line + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        return re.sub(rb"\r\nDate: [^\r]*", b"", transport.value())

    def test_the_same_answers_as_klein_gives(self) -> None:
        for line in REQUESTS * 2:
            self.assertEqual(self.ask(line), self.ask(line, self.app.resource()), line)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 4)
        self.assertIn(b"secret", self.ask(b"POST /kept/secret"))
        self.assertNotIn(b"secret", self.ask(b"POST /fail/defect"))
        self.flushLoggedErrors(ValueError)

    def test_klein_is_not_asked_again(self) -> None:
        self.ask(b"POST /kept/a")

        class Broken:
            def render(self, request: Request) -> Any:
                raise AssertionError("Klein was asked")

        self.patch(self.resource, "_klein", Broken())
        self.patch(self.resource, "_map", None)
        self.assertIn(b'["a","/kept/a"]', self.ask(b"POST /kept/a"))

    def test_only_so_many_paths_are_remembered(self) -> None:
        self.patch(known_routes, "_MAX_PATHS", 3)
        for number in range(10):
            self.assertIn(b'"n%d"' % number, self.ask(b"POST /kept/n%d" % number))
            self.assertLessEqual(len(self.resource._known), 3)
        for line in (b"POST /nowhere", b"GET /kept/a", b"POST /other", b"POST /kept/%61"):
            before = len(self.resource._known)
            self.ask(line)
            self.assertEqual(len(self.resource._known), before)

    def test_an_answer_that_comes_later(self) -> None:
        transport = self.connect()
        transport.send(b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(transport.answers(), [])
        self.waiting.pop().callback(b"x")
        ((code, _, body),) = transport.answers()
        self.assertEqual((code, body), (200, "eA=="))

    def test_a_failure_that_comes_later(self) -> None:
        transport = self.connect()
        transport.send(b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        self.waiting.pop().errback(StoreBusyError("busy"))
        ((code, _, body),) = transport.answers()
        self.assertEqual((code, body), (503, {"error": "busy"}))

    def test_a_client_that_goes_away_cancels_its_handler(self) -> None:
        transport = self.connect()
        transport.send(b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        transport.lose()
        self.assertEqual(self.cancelled, 1)
        self.assertEqual(transport.answers(), [])
        self.assertEqual(self.flushLoggedErrors(CancelledError), [])

    def test_a_handler_that_is_too_slow_is_cancelled(self) -> None:
        transport = self.connect()
        transport.send(b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        self.clock.advance(HttpSettings().deadline_seconds)
        self.assertEqual(self.cancelled, 1)
        ((code, _, body),) = transport.answers()
        self.assertEqual((code, body), (503, {"error": "not done in time, try again"}))

    def test_a_handler_that_fails_after_its_request_is_gone(self) -> None:
        def stubborn(request: Request) -> Deferred[bytes]:
            self.waiting.append(Deferred(lambda waiting: waiting.errback(ValueError("stubborn"))))
            return self.waiting[-1]

        self.app.route("/stubborn", methods=["POST"], endpoint="stubborn")(stubborn)
        transport = self.connect(KnownRoutes(self.app, ["stubborn"]))
        transport.send(b"POST /stubborn HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        transport.lose()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
