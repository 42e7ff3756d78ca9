"""The sender of a simulated ML node: it delivers what a PoW computes, over the WebSocket or by HTTP."""

from __future__ import annotations

import json
import random
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionLost, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import RequestGenerationFailed, RequestTransmissionFailed, ResponseFailed
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers

from dapi.simulator.ml_node.ledger import Attempt, BatchEntry, Kind, Ledger
from dapi.simulator.ml_node.run import DistanceError, PowRun
from dapi.simulator.ml_node.settings import MLNodeSettings

# The method with which the node follows a redirect: as a GET, or by another POST.
_REDIRECTS = {301: "GET", 302: "GET", 303: "GET", 307: "POST", 308: "POST"}
_MAX_REDIRECTS = 30
_NO_ANSWER = (
    ConnectError,
    ConnectionLost,
    DNSLookupError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    SchemeNotSupported,
)


@dataclass
class _AwaitedAck:
    attempt: Attempt
    came: Deferred[None]
    to_be_lost: bool


class Sender:
    """Delivers what one PoW computes; it does not outlive that PoW (docs/protocol/node.md, 'How a node delivers')."""

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        random_source: random.Random,
        run: PowRun,
        *,
        name: str,
        settings: MLNodeSettings,
        ledger: Ledger,
        http: HTTPClient,
    ) -> None:
        self.is_alive = True
        self._run = run
        self._clock = clock
        self._random = random_source
        self._name = name
        self._settings = settings
        self._ledger = ledger
        self._http = http
        self._unsent: dict[Kind, list[BatchEntry]] = {"generated": [], "validated": []}
        self._acks: dict[str, _AwaitedAck] = {}
        self._posting: Deferred[None] | None = None
        self._sending: Deferred[None] | None = None

    def start(self) -> None:
        """Start to walk."""
        self._sending = Deferred.fromCoroutine(self._send())
        self._sending.addErrback(self._sender_broke)

    def kill(self) -> None:
        """Deliver nothing any more; what is not delivered stays so."""
        self.is_alive = False
        if self._sending is not None:
            self._sending.cancel()

    def abandon(self) -> None:
        """End at once; all undelivered batches are lost."""
        self.kill()
        for unsent in self._unsent.values():
            self._ledger.record_lost(unsent)
            unsent.clear()

    async def finish_posting(self) -> None:
        """Return when the HTTP call that is under way, if any, has ended, or after ``hung_stop_seconds``."""
        if self._posting is not None:
            try:
                await self._posting.addTimeout(self._settings.hung_stop_seconds, self._clock)
            except DeferredTimeoutError:
                self.log.info("{node_id}: the sender hangs in an HTTP call and is killed", node_id=self._name)

    def acknowledge(self, message_id: str, connection: int) -> None:
        """Handle an ack that came on the connection of this number."""
        awaited = self._acks.get(message_id)
        if awaited is None:
            self._ledger.record_late_ack(message_id)
            return
        awaited.attempt.ack_connection = connection
        if not awaited.to_be_lost and not self._settings.ignore_acks and not awaited.came.called:
            awaited.came.callback(None)

    def _sender_broke(self, failure: Failure) -> None:
        # A call that is cancelled may fail with its own error first.
        if not failure.check(CancelledError, ConnectingCancelledError):
            self.is_alive = False
            self.log.failure("{node_id}: the simulated sender has a defect", failure, node_id=self._name)

    async def _send(self) -> None:
        while self.is_alive:
            await deferLater(self._clock, self._settings.walk_seconds)
            try:
                computed = self._run.compute()
            except DistanceError:
                self.log.warn(
                    "{node_id}: a claimed distance is not below the target: the sender ends", node_id=self._name
                )
                self.is_alive = False
                return
            for kind, batch in computed:
                self._unsent[kind].append(self._ledger.record_batch(kind, batch, self._clock.seconds()))
            await self._walk()

    async def _walk(self) -> None:
        phase = self._run.phase
        if phase is None:
            return
        unsent = self._unsent["generated" if phase == "generate" else "validated"]
        for entry in list(unsent):
            # When the phase changes, the rest stays in the list until the phase comes back.
            if phase != self._run.phase or not self.is_alive:
                return
            delivered = self._run.client_connected and await self._by_websocket(entry)
            if not delivered and self.is_alive:
                delivered = await self._by_http(entry)
            if delivered and entry in unsent:
                unsent.remove(entry)

    async def _by_websocket(self, entry: BatchEntry) -> bool:
        message_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        attempt = Attempt("websocket", self._clock.seconds(), message_id=message_id)
        self._ledger.record_attempt(entry, attempt)
        every = self._settings.double_every
        awaited = _AwaitedAck(attempt, Deferred(), bool(every) and self._ledger.counts["offered"] % every == 0)
        self._acks[message_id] = awaited
        message = {"type": entry.kind, "batch": entry.batch, "id": message_id}
        self._run.send(json.dumps(message, separators=(",", ":")).encode(), attempt)
        try:
            await awaited.came.addTimeout(self._settings.ack_wait_seconds, self._clock)
        except DeferredTimeoutError:
            outcome = "no ack" if attempt.ack_connection is None else "ack lost"
        except CancelledError:
            self._ledger.record_outcome(entry, attempt, "cut off", self._clock.seconds())
            raise
        else:
            outcome = "acknowledged"
        finally:
            del self._acks[message_id]
        self._ledger.record_outcome(entry, attempt, outcome, self._clock.seconds())
        return outcome == "acknowledged"

    async def _by_http(self, entry: BatchEntry) -> bool:
        attempt = Attempt("http", self._clock.seconds())
        self._ledger.record_attempt(entry, attempt)
        self._posting = Deferred()
        outcome = "cut off"
        try:
            attempt.status = await self._post(entry)
            outcome = "accepted" if attempt.status < 400 else "refused"
        except ValueError as error:
            # A NaN, which the node cannot encode for HTTP, a callback base that is no URL, or too many redirects.
            self.log.info("{node_id}: no HTTP call can be made: {reason}", node_id=self._name, reason=error)
            outcome = "failed"
        except _NO_ANSWER as error:
            self.log.info("{node_id}: callback failed: {reason!r}", node_id=self._name, reason=error)
            # A call that is cancelled fails like any other.
            outcome = "failed" if self.is_alive else "cut off"
        finally:
            posted, self._posting = self._posting, None
            self._ledger.record_outcome(entry, attempt, outcome, self._clock.seconds())
            if not posted.called:
                posted.callback(None)
        return outcome == "accepted"

    async def _post(self, entry: BatchEntry) -> int:
        body = json.dumps(entry.batch, allow_nan=False).encode()
        headers = Headers({"Content-Type": ["application/json"]})
        method, url = "POST", f"{self._run.request.url}/{entry.kind}"
        for _ in range(_MAX_REDIRECTS):
            posted: dict[str, Any] = {"data": body, "headers": headers} if method == "POST" else {}
            response = await self._http.request(method, url, allow_redirects=False, **posted)
            await response.content()
            location = response.headers.getRawHeaders("location")
            if response.code not in _REDIRECTS or not location:
                return int(response.code)
            method, url = _REDIRECTS[response.code], urljoin(url, location[0])
        raise ValueError("redirects without end")
