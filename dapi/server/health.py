# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""``GET /healthz`` and ``GET /readyz``, on both ports: for whoever restarts dapi, or sends batches to it.

They ask for no password and tell no secret, no address and no path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from dapi.database import Database
from dapi.database.service import DatabaseState
from dapi.errors import StoreBrokenError, StoreClosedError, StoreError
from dapi.http.answers import json_answer
from dapi.http.routes import Route
from dapi.timing.waiters import Waiters

_DISK_SECONDS = 2.0


class Health(msgspec.Struct, frozen=True):
    """The answer of ``GET /healthz``: that there is one says all."""

    status: str = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """The answer of ``GET /readyz``: whether a batch can be taken and kept now, and else why not."""

    ready: bool
    reasons: list[str]


class HealthRoutes:
    """Tells whether the reactor turns, and whether dapi can take and keep a batch now.

    The chain and the nodes do not count: batches are kept without them. ``is_loaded`` tells whether the nodes are
    known, ``pending`` the bytes that wait for the disk and how many may, ``connections`` the open connections of the
    callback port and how many there may be. The disk is asked, within 2 s, and once at a time, whoever wants to know.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        database: Database,
        *,
        is_loaded: Callable[[], bool],
        pending: Callable[[], tuple[int, int]],
        connections: Callable[[], tuple[int, int]],
    ) -> None:
        self._reactor = reactor
        self._database = database
        self._is_loaded = is_loaded
        self._pending = pending
        self._connections = connections
        self._is_asking = False
        self._answered: Waiters[None] = Waiters()

    def routes(self) -> tuple[Route, ...]:
        """Return the two routes."""
        health = Route("GET", "/healthz", self._get_health, is_open=True)
        return health, Route("GET", "/readyz", self._get_readiness, is_open=True)

    def _get_health(self, request: Request) -> bytes:
        return self._answer(request, Health(), 200)

    async def _get_readiness(self, request: Request) -> bytes:
        reasons = await self.reasons()
        return self._answer(request, Readiness(not reasons, reasons), 503 if reasons else 200)

    def _answer(self, request: Request, value: Any, code: int) -> bytes:
        request.setHeader(b"Cache-Control", b"no-store")
        return json_answer(request, value, code)

    async def reasons(self) -> list[str]:
        """Return why no batch can be taken and kept now; nothing when one can."""
        disk = await self._disk_problem()
        reasons = [disk] if disk is not None else []
        if not self._is_loaded():
            reasons.append("the nodes are not loaded from the database yet")
        bytes_pending, bytes_allowed = self._pending()
        if bytes_pending >= bytes_allowed:
            reasons.append("as many bytes wait for the disk as may wait")
        open_now, allowed = self._connections()
        if open_now >= allowed:
            reasons.append("the callback port has as many connections as it takes")
        return reasons

    async def _disk_problem(self) -> str | None:
        """Return why nothing can be stored, or None."""
        answered = self._answered.wait()
        if not self._is_asking:
            self._is_asking = True
            # As a batch is written, behind what is queued, but with nothing in it. A disk that hangs is asked once.
            self._database.write(lambda connection: None, intake=True).addBoth(self._disk_answered)
        try:
            await answered.addTimeout(_DISK_SECONDS, self._reactor)
        except DeferredTimeoutError:
            return f"the disk has not answered for {_DISK_SECONDS:g} s"
        except StoreBrokenError:
            return "the database is broken: dapi has to start anew"
        except StoreClosedError:
            return "the database is not open: dapi stops"
        except StoreError:
            return "the disk is full" if self._is_in(DatabaseState.FULL) else "too much waits for the disk"
        return "another program holds the database" if self._is_in(DatabaseState.LOCKED) else None

    def _is_in(self, state: DatabaseState) -> bool:
        return self._database.status()["state"] is state

    def _disk_answered(self, answer: object) -> None:
        self._is_asking = False
        self._answered.fire(answer if isinstance(answer, Failure) else None)
