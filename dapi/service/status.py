"""What ``GET /admin/v1/status`` shows."""

from __future__ import annotations

import time
from typing import Any, TypeVar, cast

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
from dapi.service.process import process_status

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
        return Deferred.fromCoroutine(self._collect())

    async def _collect(self) -> dict[str, Any]:
        chain = self._parts.chain
        batches = await self._if_in_time(self._parts.outbox.counts())
        oldest = await self._if_in_time(chain.submissions.oldest_received_at()) if chain is not None else None
        status = self.of_parts()
        status["batches"] = _json_data(batches)
        if chain is not None:
            seconds = None if oldest is None else max(0.0, round(time.time() - oldest, 1))
            status["chain"]["oldest_unfinished_seconds"] = seconds
        return status

    def of_parts(self) -> dict[str, Any]:
        """Return the states of all parts as JSON data, without what only the database can tell."""
        parts = self._parts
        nodes, listener, admin = parts.broker.status(), parts.callback_listener, parts.admin_listener
        status = {
            "version": __version__,
            "uptime_seconds": round(self._reactor.seconds() - self._started_at, 3),
            "database": parts.database.status(),
            "batches": None,
            "outbox": {name: value for name, value in parts.outbox.status().items() if name != "database"}
            | {"node_quota": parts.node_quota.status()},
            "callbacks": {
                "port": listener.port,
                "url": without_user(parts.callback_url()),
                "is_url_set": parts.is_callback_url_set,
                "connections": listener.site.connections,
                **parts.callback_door.status(),
                "batches": parts.callbacks.counts,
                "answers": listener.site.counts.answers,
                "connections_refused": listener.site.counts.connections_refused,
                "tls": listener.tls.status() if listener.tls is not None else None,
            },
            "admin": {
                "host": admin.interface,
                "port": admin.port,
                "tls": admin.tls.status() if admin.tls is not None else None,
            },
            "broker": {"is_loaded": nodes.is_loaded, "problem": nodes.problem, "highest_num": nodes.highest_num},
            "nodes": nodes.nodes,
            "chain": _chain_status(parts.chain),
            "relay": parts.relay.status() if parts.relay is not None else None,
            "poc_v2_watch": parts.poc_v2_watch.status() if parts.poc_v2_watch is not None else None,
            "process": process_status(),
        }
        # The parts tell enums and structs.
        return cast(dict[str, Any], _json_data(status))

    async def _if_in_time(self, answer: Deferred[T]) -> T | None:
        try:
            return await answer.addTimeout(_ANSWER_SECONDS, self._reactor)
        except (StoreError, DeferredTimeoutError):
            return None


def _chain_status(chain: ChainService | None) -> dict[str, Any]:
    if chain is None:
        return {"state": "not configured", "reason": NO_CHAIN}
    return {
        **chain.submitter.status(),
        "oldest_unfinished_seconds": None,
        "clock_offset_seconds": chain.clock_offset_seconds,
        "nodes": chain.nodes_status(),
        "poc": chain.phase_status.status() if chain.phase_status is not None else None,
    }


def _json_data(value: object) -> Any:
    return msgspec.to_builtins(value, str_keys=True)
