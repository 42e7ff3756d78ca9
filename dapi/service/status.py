"""What ``GET /admin/v1/status`` shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime

from dapi import __version__
from dapi.broker.broker import Broker
from dapi.chain_service import ChainService
from dapi.database import Database
from dapi.errors import StoreError
from dapi.http.listener import HttpListener
from dapi.messages.urls import without_user
from dapi.outbox.outbox import Outbox
from dapi.server.callbacks import Callbacks

NO_CHAIN = "no chain is configured (chain_node.url): batches are kept, nothing is submitted"

# What the database is asked has to be answered within this time, or is left out.
_ANSWER_SECONDS = 2.0

T = TypeVar("T")


@attrs.define(kw_only=True)
class ServiceStatus:
    """Asks each part how it is. ``started_at`` is when the service was started, on the reactor's clock."""

    _reactor: IReactorTime
    _database: Database
    _outbox: Outbox
    _broker: Broker
    _chain: ChainService | None
    _callbacks: Callbacks
    _callback_listener: HttpListener
    _callback_url: Callable[[], str]
    started_at: float = 0.0

    def collect(self) -> Deferred[dict[str, Any]]:
        """Fire with the whole status; never fails for a store that is slow or broken.

        ``batches`` counts them by state, and is None while the store cannot say (``database`` says why).
        """
        return Deferred.fromCoroutine(self._collect())

    async def _collect(self) -> dict[str, Any]:
        nodes = self._broker.status()
        site = self._callback_listener.site
        return {
            "version": __version__,
            "uptime_seconds": round(self._reactor.seconds() - self.started_at, 3),
            "database": self._database.status(),
            "batches": await self._if_in_time(self._outbox.counts()),
            "outbox": {name: value for name, value in self._outbox.status().items() if name != "database"},
            "callbacks": {
                "port": self._callback_listener.port,
                "url": without_user(self._callback_url()),
                "connections": site.connections,
                "batches": self._callbacks.counts,
                "answers": site.counts.answers,
                "connections_refused": site.counts.connections_refused,
            },
            "broker": {"is_loaded": nodes.is_loaded, "problem": nodes.problem, "highest_num": nodes.highest_num},
            "nodes": nodes.nodes,
            "chain": await self._chain_status(),
        }

    async def _chain_status(self) -> dict[str, Any]:
        if self._chain is None:
            return {"state": "not configured", "reason": NO_CHAIN}
        submitter, phases = self._chain.submitter.status(), self._chain.phase_status
        oldest = await self._if_in_time(self._chain.submissions.oldest_received_at())
        return {
            **submitter,
            "oldest_waiting_seconds": None if oldest is None else max(0.0, round(time.time() - oldest, 1)),
            "poc": phases.status() if phases is not None else None,
        }

    async def _if_in_time(self, answer: Deferred[T]) -> T | None:
        try:
            return await answer.addTimeout(_ANSWER_SECONDS, self._reactor)
        except (StoreError, DeferredTimeoutError):
            return None
