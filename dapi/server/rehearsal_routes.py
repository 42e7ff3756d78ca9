"""The admin routes about a rehearsal of PoC on one node."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.web.server import Request

from dapi.broker.rehearsal import RehearsalStatus
from dapi.broker.rehearsals import Rehearsals
from dapi.http.answers import HttpError, json_answer
from dapi.http.routes import Route
from dapi.orchestration.phase_status import PhaseStatus
from dapi.server.batch_list import with_times

_PATH = "/admin/v1/nodes/<node_id>/test"
# Blocks come every 5 to 6 s. Where they come faster, the command of the PoC cuts a rehearsal short all the same.
_BLOCK_SECONDS = 5.0


class RehearsalRoutes:
    """``POST nodes/<id>/test`` and ``GET nodes/<id>/test``; ``phases`` is None where no chain is followed."""

    def __init__(self, rehearsals: Rehearsals, phases: PhaseStatus | None) -> None:
        self._rehearsals = rehearsals
        self._phases = phases

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        return Route("POST", _PATH, self._begin), Route("GET", _PATH, self._get_status)

    def _begin(self, request: Request, node_id: str) -> bytes:
        self._refuse_near_poc()
        return json_answer(request, _shown(self._rehearsals.begin(node_id)), 202)

    def _get_status(self, request: Request, node_id: str) -> bytes:
        return json_answer(request, _shown(self._rehearsals.status(node_id)))

    def _refuse_near_poc(self) -> None:
        """Raise HttpError unless a rehearsal ends before the next PoC, as far as that is known."""
        if self._phases is None:
            return
        advice = self._phases.restart_advice()
        needed = int(self._rehearsals.times.longest / _BLOCK_SECONDS)
        if not advice.safe:
            raise HttpError(409, f"no test now: {advice.reason}")
        if (left := advice.blocks_left) is None:
            raise HttpError(409, "no test now: the network runs PoC v2, in which the api container drives the nodes")
        if left < needed:
            raise HttpError(409, f"no test now: PoC starts in {left} blocks, and a test may take {needed}")


def _shown(status: RehearsalStatus) -> dict[str, Any]:
    return with_times(msgspec.to_builtins(status))
