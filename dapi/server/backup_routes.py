"""The admin routes about a copy of the database: begin one, and see how far it is."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.web.server import Request

from dapi.database.backup import Backups, BackupStatus
from dapi.http.answers import json_answer, shielded
from dapi.http.routes import Route
from dapi.server.batch_list import with_times
from dapi.server.json_body import decode_body

_PATH = "/admin/v1/backup"


class BackupParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole path of the new file, where dapi runs."""

    path: str


class BackupRoutes:
    """``POST /admin/v1/backup`` and ``GET /admin/v1/backup``."""

    def __init__(self, backups: Backups) -> None:
        self._backups = backups

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return Route("POST", _PATH, self._begin), Route("GET", _PATH, self._get_status)

    async def _begin(self, request: Request) -> bytes:
        """Begin a copy, and answer with 202: it goes on."""
        parameters = decode_body(request, BackupParameters)
        status = await shielded(self._backups.begin(parameters.path), "beginning a backup")
        return json_answer(request, _shown(status), 202)

    def _get_status(self, request: Request) -> bytes:
        """Answer how far the copy is that was begun last."""
        return json_answer(request, _shown(self._backups.status()))


def _shown(status: BackupStatus) -> dict[str, Any]:
    return with_times(msgspec.structs.asdict(status))
