"""What ``GET /admin/v1/status`` shows."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, TypeVar

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime

from dapi import __version__
from dapi.chain_service import ChainService
from dapi.errors import StoreError
from dapi.messages.urls import without_user
from dapi.service.assembly import Parts

NO_CHAIN = "no chain is configured (chain_node.url): batches are kept, nothing is submitted"

# What the database is asked has to be answered within this time, or is left out.
_ANSWER_SECONDS = 2.0

T = TypeVar("T")


@attrs.frozen
class ServiceStatus:
    """Asks each part how it is. ``started_at`` is when the service was started, on the reactor's clock."""

    _reactor: IReactorTime
    _parts: Parts
    _started_at: float

    def collect(self) -> Deferred[dict[str, Any]]:
        """Fire with the whole status as JSON data; never fails for a store that is slow or broken.

        ``batches`` counts them by state, and is None while the store cannot say (``database`` says why).
        """
        # The parts tell enums and structs.
        return Deferred.fromCoroutine(self._collect()).addCallback(partial(msgspec.to_builtins, str_keys=True))

    async def _collect(self) -> dict[str, Any]:
        parts = self._parts
        nodes, listener = parts.broker.status(), parts.callback_listener
        return {
            "version": __version__,
            "uptime_seconds": round(self._reactor.seconds() - self._started_at, 3),
            "database": parts.database.status(),
            "batches": await self._if_in_time(parts.outbox.counts()),
            "outbox": {name: value for name, value in parts.outbox.status().items() if name != "database"},
            "callbacks": {
                "port": listener.port,
                "url": without_user(parts.callback_url()),
                "connections": listener.site.connections,
                "batches": parts.callbacks.counts,
                "answers": listener.site.counts.answers,
                "connections_refused": listener.site.counts.connections_refused,
            },
            "broker": {"is_loaded": nodes.is_loaded, "problem": nodes.problem, "highest_num": nodes.highest_num},
            "nodes": nodes.nodes,
            "chain": await self._chain_status(parts.chain),
        }

    async def _chain_status(self, chain: ChainService | None) -> dict[str, Any]:
        if chain is None:
            return {"state": "not configured", "reason": NO_CHAIN}
        submitter = chain.submitter.status()
        oldest = await self._if_in_time(chain.submissions.oldest_received_at())
        return {
            **submitter,
            "oldest_unfinished_seconds": None if oldest is None else max(0.0, round(time.time() - oldest, 1)),
            "nodes": chain.nodes_status(),
            "poc": chain.phase_status.status() if chain.phase_status is not None else None,
        }

    async def _if_in_time(self, answer: Deferred[T]) -> T | None:
        try:
            return await answer.addTimeout(_ANSWER_SECONDS, self._reactor)
        except (StoreError, DeferredTimeoutError):
            return None
