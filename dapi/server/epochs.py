"""The admin routes about the phases of the chain: the ledger of its stages, and whether a restart would do harm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.web.server import Request

from dapi.http.answers import HttpError, json_answer, whole_number
from dapi.orchestration.phase_status import PhaseStatus
from dapi.orchestration.restarts import Restarts
from dapi.server.answer_types import EpochsAnswer, RestartAnswer

_DEFAULT_STAGES = 5
MAX_STAGES = 50
_NOT_FOLLOWED = "no chain is followed: set chain_node.url and a key, and poc.follow_chain; or poc_v2.watch"


class EpochRoutes:
    """``GET epochs?limit=N`` and ``GET restart``; where no chain is followed (``phases`` is None), both say so.

    ``poc_v2`` returns the latest stages of PoC v2, None where it is not watched; where it is, both need no chain.
    """

    def __init__(
        self,
        phases: PhaseStatus | None,
        restarts: Restarts,
        poc_v2: Callable[[int], list[dict[str, Any]]] | None = None,
    ) -> None:
        self._phases = phases
        self._restarts = restarts
        self._poc_v2 = poc_v2

    def refuse_unless_forced(self, request: Request) -> None:
        """Raise HttpError for a manual command while the chain drives the nodes, unless it has ``?force=true``."""
        force = _text(request, b"force") or "false"
        if force not in ("true", "false"):
            raise HttpError(400, f"force: is {force!r}, and has to be true or false")
        if self._phases is not None and force != "true":
            raise HttpError(
                409,
                "the chain drives the nodes, and would undo this at its next block: "
                "disable a node to have it left alone, or add ?force=true",
            )

    async def get_epochs(self, request: Request) -> bytes:
        """Answer with the latest stages."""
        text = _text(request, b"limit") or str(_DEFAULT_STAGES)
        limit = whole_number("limit", text, 1, MAX_STAGES)
        if self._poc_v2 is None:
            return json_answer(request, EpochsAnswer(await self._followed().latest_stages(limit)))
        epochs = await self._phases.latest_stages(limit) if self._phases is not None else []
        return json_answer(request, EpochsAnswer(epochs, self._poc_v2(limit)))

    async def get_restart(self, request: Request) -> bytes:
        """Answer whether dapi may be restarted now, and the api container where PoC v2 is watched."""
        if (answer := restart_answer(self._restarts)) is None:
            raise HttpError(404, _NOT_FOLLOWED)
        return json_answer(request, answer)

    def _followed(self) -> PhaseStatus:
        if self._phases is None:
            raise HttpError(404, _NOT_FOLLOWED)
        return self._phases


def restart_answer(restarts: Restarts) -> RestartAnswer | None:
    """Return what ``GET restart`` answers, None where dapi knows nothing of the chain."""
    if (advice := restarts.of_dapi()) is None:
        return None
    container = restarts.of_container()
    fields = msgspec.structs.asdict(advice)
    return RestartAnswer(**fields, api_container=msgspec.UNSET if container is None else container)


def _text(request: Request, name: bytes) -> str:
    values = (request.args or {}).get(name, [])
    if len(values) > 1:
        raise HttpError(400, f"{name.decode()}: is given {len(values)} times")
    return values[-1].decode("utf-8", "replace") if values else ""
