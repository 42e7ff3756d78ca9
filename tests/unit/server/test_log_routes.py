"""``GET`` and ``PUT /admin/v1/log``."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dapi.http.answers import new_app
from dapi.http.routes import add_routes
from dapi.server.log_routes import LogRoutes
from dapi.timing.log_levels import LogLevels
from tests.unit.server.resource_client import ResourceClient


class LogRouteTests(SynchronousTestCase):
    def got(self, levels: LogLevels | None, method: str, body: Any = None) -> tuple[int, Any]:
        app = new_app()
        add_routes(app, LogRoutes(levels).routes())
        http = ResourceClient(self, app.resource())
        data = None if body is None else json.dumps(body).encode()
        asked = http.ask(method, "http://127.0.0.1/admin/v1/log", data, {"Content-Type": "application/json"})
        response, answer = http.answered(asked)
        return response.code, json.loads(answer)

    def test_levels_are_told_and_changed(self) -> None:
        levels = LogLevels("info")
        self.assertEqual(self.got(levels, "GET"), (200, {"level": "info", "configured": "info"}))
        changed = {"level": "warn,chain=debug", "configured": "info"}
        self.assertEqual(self.got(levels, "PUT", {"level": "warn,chain=debug"}), (200, changed))
        self.assertEqual(self.got(levels, "GET"), (200, changed))

    def test_what_are_no_levels_is_refused_and_changes_nothing(self) -> None:
        levels = LogLevels("info")
        bodies: tuple[Any, ...] = ({"level": "loud"}, {"level": 5}, {}, [], {"level": "info", "more": 1})
        for body in bodies:
            code, answer = self.got(levels, "PUT", body)
            self.assertEqual((code, list(answer)), (400, ["error"]), body)
        self.assertEqual(levels.levels, "info")

    def test_where_dapi_is_embedded_the_log_is_anothers(self) -> None:
        for method, body in (("GET", None), ("PUT", {"level": "info"})):
            code, answer = self.got(None, method, body)
            self.assertEqual(code, 404)
            self.assertIn("embedded", answer["error"])
