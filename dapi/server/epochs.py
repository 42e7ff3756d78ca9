"""The admin routes about what the chain wants: the ledger of its epochs, and whether a restart would do harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from dapi.http.answers import HttpError, json_answer

if TYPE_CHECKING:
    from klein import Klein

_DEFAULT_STAGES = 5
_MAX_STAGES = 50


class Driver(Protocol):
    """What has the nodes follow the chain."""

    def epochs(self, limit: int) -> Deferred[list[dict[str, Any]]]:
        """Fire with the latest PoC stages, each with what became of each node's work; fails with StoreError."""

    def restart_advice(self) -> dict[str, Any]:
        """Tell whether dapi may be restarted now without harm."""


class EpochRoutes:
    """``GET epochs?limit=N`` and ``GET restart``; without a driver both say that nothing is followed."""

    def __init__(self, driver: Driver | None) -> None:
        self._driver = driver

    def add_to(self, admin: Klein) -> None:
        """Add the routes to the admin API's."""
        admin.route("/epochs", methods=["GET"], endpoint="epochs")(self._get_epochs)
        admin.route("/restart", methods=["GET"], endpoint="restart")(self._get_restart)

    def refuse_unless_forced(self, request: Request) -> None:
        """Raise HttpError for a manual command while the chain drives the nodes, unless ``?force=true`` is said."""
        if self._driver is not None and _text(request, b"force") != "true":
            raise HttpError(
                409,
                "the chain drives the nodes, and would undo this at its next block: "
                "disable a node to have it left alone, or add ?force=true",
            )

    async def _get_epochs(self, request: Request) -> bytes:
        text = _text(request, b"limit") or str(_DEFAULT_STAGES)
        # int() refuses thousands of digits.
        if not text.isdecimal() or len(text) > len(str(_MAX_STAGES)) or not 1 <= int(text) <= _MAX_STAGES:
            raise HttpError(400, f"limit: is {text!r}, and has to be a whole number from 1 to {_MAX_STAGES}")
        return json_answer(request, {"epochs": await self._followed().epochs(int(text))})

    async def _get_restart(self, request: Request) -> bytes:
        return json_answer(request, self._followed().restart_advice())

    def _followed(self) -> Driver:
        if self._driver is None:
            raise HttpError(404, "no chain is followed: set chain_node.url and a key, and poc.follow_chain")
        return self._driver


def _text(request: Request, name: bytes) -> str:
    values = (request.args or {}).get(name, [])
    return values[-1].decode("utf-8", "replace") if values else ""
