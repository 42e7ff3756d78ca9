# mypy: disallow-untyped-calls=False
# twisted.web is mostly without annotations.
"""``GET /metrics`` for Prometheus: what the parts tell at the moment of the scrape; metric_families.py has the names.

Nothing is counted twice: a scrape copies the parts' own numbers into a Snapshot on the reactor's thread, which takes
milliseconds, and another thread makes the text of it, which takes longer with many nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Metric, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from twisted.internet.defer import Deferred
from twisted.web.server import Request

from dapi.http.routes import Route
from dapi.server.metric_families import Snapshot, families
from dapi.timing.pool_thread import PoolThread
from dapi.timing.waiters import Waiters


class Metrics:
    """The metrics of one dapi, in a registry of its own: several of them in one process do not mix.

    ``snapshot`` fires with the Snapshot of now. One scrape is made at a time; who asks meanwhile gets the same answer.
    """

    def __init__(self, reactor: Any, snapshot: Callable[[], Deferred[Snapshot]]) -> None:
        self._thread = PoolThread(reactor)
        self._take_snapshot = snapshot
        self._snapshot: Snapshot | None = None
        self._is_making = False
        self._made: Waiters[bytes] = Waiters()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def routes(self) -> tuple[Route, ...]:
        """Return the route."""
        return (Route("GET", "/metrics", self._get_metrics),)

    def collect(self) -> Iterable[Metric]:
        """Return the families of the last snapshot; prometheus_client calls this."""
        return families(self._snapshot) if self._snapshot is not None else ()

    async def _get_metrics(self, request: Request) -> bytes:
        text = await self.text()
        request.setHeader(b"Content-Type", CONTENT_TYPE_PLAIN_0_0_4.encode())
        return text

    def text(self) -> Deferred[bytes]:
        """Fire with all metrics in Prometheus' text format."""
        made = self._made.wait()
        if not self._is_making:
            self._is_making = True
            Deferred.fromCoroutine(self._make()).addBoth(self._tell)
        return made

    async def _make(self) -> bytes:
        self._snapshot = await self._take_snapshot()
        return await self._thread.run(generate_latest, self.registry)

    def _tell(self, made: Any) -> None:
        self._is_making = False
        self._made.fire(made)
