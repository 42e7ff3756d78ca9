"""The admin routes about the levels of the log: what is written, and more or less from now on."""

from __future__ import annotations

from typing import Annotated

import msgspec
from twisted.web.server import Request

from dapi.http.answers import HttpError, json_answer
from dapi.http.routes import Route
from dapi.server.json_body import decode_body
from dapi.timing.log_levels import PATTERN, LogLevels

_PATH = "/admin/v1/log"


class LogParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The levels from now on, such as ``info,websocket=debug``."""

    # LogLevels says in words what is wrong with a text.
    level: Annotated[str, msgspec.Meta(extra_json_schema={"pattern": PATTERN})]


class LogState(msgspec.Struct, frozen=True):
    """The levels that are written now, and those of the settings, with which the next start begins."""

    level: str
    configured: str


class LogRoutes:
    """``GET /admin/v1/log`` and ``PUT /admin/v1/log``; ``levels`` is None where dapi does not write the log."""

    def __init__(self, levels: LogLevels | None) -> None:
        self._levels = levels

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return Route("GET", _PATH, self._get_levels), Route("PUT", _PATH, self._put_levels)

    def _get_levels(self, request: Request) -> bytes:
        levels = self._known()
        return json_answer(request, LogState(levels.levels, levels.configured))

    def _put_levels(self, request: Request) -> bytes:
        self._known().change(decode_body(request, LogParameters).level)
        return self._get_levels(request)

    def _known(self) -> LogLevels:
        if self._levels is None:
            raise HttpError(404, "dapi does not write the log here: the process that it is embedded in does")
        return self._levels
