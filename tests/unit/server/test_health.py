"""``GET /healthz`` and ``GET /readyz``, with a real database."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from dapi.errors import StoreError
from dapi.http.answers import new_app
from dapi.http.routes import add_routes
from dapi.server.health import HealthRoutes
from tests.unit.database.store_tools import Obstacle, StoreTestCase
from tests.unit.server.resource_client import ResourceClient


class HealthTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.room = 10**9
        self.database = self.open_database(free_bytes=lambda _: self.room)
        self.is_loaded = True
        self.pending, self.connections = (0, 10), (0, 10)
        self.health = HealthRoutes(
            self.clock,
            self.database,
            is_loaded=lambda: self.is_loaded,
            pending=lambda: self.pending,
            connections=lambda: self.connections,
        )
        app = new_app()
        add_routes(app, self.health.routes())
        self.http = ResourceClient(self, app.resource())

    def ask(self, path: str) -> Deferred[IResponse]:
        return self.http.ask("GET", f"http://127.0.0.1{path}", None, {})

    def answered(self, asked: Deferred[IResponse]) -> tuple[int, Any]:
        response, body = self.http.answered(asked)
        self.assertEqual(response.headers.getRawHeaders("cache-control"), ["no-store"])
        # Whoever asks need not know where anything is.
        self.assertNotIn(str(self.path.parent), body.decode())
        return response.code, json.loads(body)

    def reasons(self) -> list[str]:
        return self.clock.wait_for(Deferred.fromCoroutine(self.health.reasons()))

    def fail_with(self, code: int) -> None:
        def write(_: sqlite3.Connection) -> None:
            error = sqlite3.OperationalError("made up")
            error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_MADE_UP"
            raise error

        with self.assertRaises(StoreError):
            self.clock.wait_for(self.database.write(write))


class AnswerTests(HealthTestCase):
    def test_the_reactor_turns(self) -> None:
        self.assertEqual(self.answered(self.ask("/healthz")), (200, {"status": "ok"}))

    def test_ready(self) -> None:
        asked = self.ask("/readyz")
        self.assertNoResult(asked)
        self.clock.wait_for(self.database.write(lambda _: None))
        self.assertEqual(self.answered(asked), (200, {"ready": True, "reasons": []}))

    def test_not_ready_with_all_reasons(self) -> None:
        self.is_loaded = False
        self.pending = self.connections = (10, 10)
        asked = self.ask("/readyz")
        self.clock.wait_for(self.database.write(lambda _: None))
        code, answer = self.answered(asked)
        self.assertEqual((code, answer["ready"]), (503, False))
        for reason, part in zip(answer["reasons"], ("nodes", "bytes", "connections"), strict=True):
            self.assertIn(part, reason)


class DiskTests(HealthTestCase):
    def test_full_until_there_is_room(self) -> None:
        self.room = 0
        self.fail_with(sqlite3.SQLITE_FULL)
        self.assertEqual(self.reasons(), ["the disk is full"])
        self.room = 10**9
        self.clock.turn()
        self.clock.advance(1)
        self.clock.wait_for(self.database.write(lambda _: None))
        self.assertEqual(self.reasons(), [])

    def test_locked(self) -> None:
        self.fail_with(sqlite3.SQLITE_BUSY)
        self.assertEqual(self.reasons(), ["another program holds the database"])

    def test_broken(self) -> None:
        self.fail_with(sqlite3.SQLITE_IOERR_FSYNC)
        self.assertEqual(self.reasons(), ["the database is broken: dapi has to start anew"])

    def test_closed(self) -> None:
        self.close_database(self.database)
        self.assertEqual(self.reasons(), ["the database is not open: dapi stops"])

    def test_a_disk_that_hangs_is_asked_once_however_many_want_to_know(self) -> None:
        asked: list[object] = []
        write = self.database.write

        def counted(*arguments: Any, **options: Any) -> Deferred[Any]:
            asked.append(options)
            return write(*arguments, **options)

        obstacle = Obstacle(self.database)
        self.patch(self.database, "write", counted)
        for _ in range(2):
            waiting = [Deferred.fromCoroutine(self.health.reasons()) for _ in range(5)]
            self.clock.advance(1.9)
            for each in waiting:
                self.assertNoResult(each)
            self.clock.advance(0.2)
            for each in waiting:
                self.assertEqual(self.successResultOf(each), ["the disk has not answered for 2 s"])
        self.assertEqual(asked, [{"intake": True}])
        obstacle.remove()
        self.clock.wait_for(obstacle.passed)
        self.assertEqual(self.reasons(), [])
        self.assertEqual(self.reasons(), [])
