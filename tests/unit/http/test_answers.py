"""What the HTTP server's routes answer to faults, and work that goes on when the client is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Request

from dapi.errors import (
    ConfigError,
    DapiError,
    MessageError,
    NotReadyError,
    StoreBrokenError,
    StoreBusyError,
    StoreClosedError,
    UnknownNodeError,
)
from dapi.http.answers import STATUSES, HttpError, json_answer, new_app, shielded, status_of
from dapi.http.site import JsonSite
from tests.unit.http.connections import Transport


class RouteTests(SynchronousTestCase):
    """What Klein's routes answer to faults."""

    def setUp(self) -> None:
        app = new_app()
        self.error: Exception = ValueError("a secret")

        def fail(request: Request) -> bytes:
            raise self.error

        def fine(request: Request, name: str) -> bytes:
            return json_answer(request, name)

        app.route("/fail", methods=["GET"])(fail)
        app.route("/fine/<name>", methods=["GET"])(fine)
        self.site = JsonSite(Clock(), app.resource())

    def ask(self, line: bytes, headers: bytes = b"Host: a\r\n") -> tuple[int, dict[str, str], Any]:
        transport = Transport(self.site)
        transport.send(line + b" HTTP/1.1\r\n" + headers + b"\r\n")
        (found,) = transport.answers()
        self.assertEqual(found[1]["content-type"], "application/json")
        return found

    def test_found(self) -> None:
        self.assertEqual(self.ask(b"GET /fine/n%C3%B6")[::2], (200, "nö"))
        self.assertEqual(self.ask(b"GET /fine/x/")[::2], (200, "x"))

    def test_not_found(self) -> None:
        status, _, body = self.ask(b"GET /nowhere?a=b")
        self.assertEqual((status, body), (404, {"error": "Not Found: /nowhere?a=b"}))
        self.assertEqual(self.ask(b"GET //fine//x")[0], 404)

    def test_wrong_method(self) -> None:
        for method in (b"POST", b"DELETE", b"OPTIONS", b"BREW"):
            status, headers, body = self.ask(method + b" /fail")
            self.assertEqual((status, body), (405, {"error": "Method Not Allowed: /fail"}))
            self.assertIn("GET", headers["allow"])

    def test_path_that_is_not_utf8(self) -> None:
        self.assertEqual(self.ask(b"GET /fine/%ff")[::2], (400, {"error": "the path is not UTF-8"}))

    def test_host_that_is_no_host_name(self) -> None:
        for host in (b"", b"Host: a..b\r\n", b"Host: " + b"x" * 200 + b"\r\n", b"Host: \xff\xfe\r\n"):
            self.assertEqual(self.ask(b"GET /fine/x", host)[0], 200, host)

    def test_defect(self) -> None:
        status, _, body = self.ask(b"GET /fail")
        self.assertEqual((status, body), (500, {"error": "internal error: see the log of dapi"}))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_defect_outside_of_klein(self) -> None:
        self.site.resource = object()
        self.assertEqual(self.ask(b"GET /fail")[0], 500)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_errors_of_ours(self) -> None:
        for error, expected in (
            (HttpError(415, "no"), 415),
            (MessageError("$.dist", "is wrong"), 400),
            (ConfigError("port: no"), 400),
            (UnknownNodeError("node 7"), 404),
            (StoreBusyError("full"), 503),
            (NotReadyError("not loaded"), 503),
            (StoreBrokenError("gone"), 503),
        ):
            self.error = error
            status, headers, body = self.ask(b"GET /fail")
            self.assertEqual((status, body), (expected, {"error": str(error)}))
            self.assertEqual("retry-after" in headers, expected == 503)

    def test_the_status_of_every_error_of_ours_is_chosen(self) -> None:
        def derived(error: type[DapiError]) -> Iterator[type[DapiError]]:
            for each in error.__subclasses__():
                yield each
                yield from derived(each)

        for error in derived(DapiError):
            bases = [base for base in error.__mro__ if base in STATUSES]
            self.assertTrue(bases, f"{error.__name__} has no status in STATUSES")
        self.assertEqual(set(DapiError.__subclasses__()), set(STATUSES))
        for raised, status in ((DapiError("new"), 500), (KeyError("a defect"), 500), (StoreClosedError("closed"), 503)):
            self.assertEqual(status_of(raised), status)


class ShieldTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.work: Deferred[int] = Deferred(lambda _: self.fail("cancelled"))
        self.outer = shielded(self.work, "storing")

    def test_result_passes(self) -> None:
        self.work.callback(1)
        self.assertEqual(self.successResultOf(self.outer), 1)

    def test_failure_passes(self) -> None:
        self.work.errback(StoreBusyError("full"))
        self.failureResultOf(self.outer, StoreBusyError)

    def test_cancelled_then_done(self) -> None:
        self.outer.cancel()
        self.failureResultOf(self.outer, CancelledError)
        self.work.callback(1)

    def test_cancelled_then_failed(self) -> None:
        self.outer.cancel()
        self.failureResultOf(self.outer, CancelledError)
        self.work.errback(StoreBusyError("full"))
        self.assertIsNone(self.successResultOf(self.work))
