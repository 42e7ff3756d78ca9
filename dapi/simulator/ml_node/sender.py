"""One PoW run of a simulated ML node, and the sender that delivers what it computes."""

from __future__ import annotations

import json
import random
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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
from dapi.simulator.ml_node.settings import MLNodeSettings
from dapi.simulator.ml_node.work import Generator, InitRequest, validated_batch

Phase = Literal["generate", "validate"]

_NO_ANSWER = (
    ConnectError,
    ConnectionLost,
    DNSLookupError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    SchemeNotSupported,
)


class BatchConnection(Protocol):
    """What the sender needs of a WebSocket connection."""

    number: int

    def offer(self, payload: bytes) -> None:
        """Send one message."""


@dataclass
class _AwaitedAck:
    attempt: Attempt
    came: Deferred[None]
    to_be_lost: bool


class PowRun:
    """One run of the PoW, from an init until it is stopped or started anew: its request, queues and connection flag.

    ``client_connected`` is the flag by which the sender chooses the way, ``connection`` the connection that it uses.
    The two can differ: when a connection of an earlier run closes, the node resets the flag of this run.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        random_source: random.Random,
        *,
        name: str,
        request: InitRequest,
        phase: Phase,
        settings: MLNodeSettings,
        ledger: Ledger,
        http: HTTPClient,
    ) -> None:
        self.request = request
        self.phase: Phase = phase
        self.client_connected = False
        self.connection: BatchConnection | None = None
        self.to_validate: deque[dict[str, Any]] = deque()
        self.is_sender_alive = True
        self._clock = clock
        self._random = random_source
        self._name = name
        self._settings = settings
        self._ledger = ledger
        self._http = http
        self._loaded_at = clock.seconds() + settings.load_seconds
        self._generator = Generator(request)
        self._unsent: dict[Kind, list[BatchEntry]] = {"generated": [], "validated": []}
        self._acks: dict[str, _AwaitedAck] = {}
        self._posting: Deferred[None] | None = None
        self._sending: Deferred[None] | None = None

    @property
    def is_loaded(self) -> bool:
        """Tell whether the model is loaded."""
        return self._clock.seconds() >= self._loaded_at

    def start(self) -> None:
        """Start the sender."""
        self._sending = Deferred.fromCoroutine(self._send())
        self._sending.addErrback(self._sender_broke)

    def kill_sender(self) -> None:
        """End the sender: this run delivers nothing any more."""
        self.is_sender_alive = False
        if self._sending is not None:
            self._sending.cancel()

    def stop(self) -> Deferred[None]:
        """End the sender when its HTTP call, if any, has ended, or after ``hung_stop_seconds``.

        The Deferred fires when that is done; all undelivered batches are lost then.
        """
        return Deferred.fromCoroutine(self._stop())

    def abandon(self) -> None:
        """End the sender at once; all undelivered batches are lost."""
        self.kill_sender()
        for unsent in self._unsent.values():
            self._ledger.record_lost(unsent)
            unsent.clear()

    def validate(self, batch: dict[str, Any]) -> None:
        """Queue another participant's batch for validation; a distance that is not below the target ends the sender."""
        if any(claimed >= self.request.r_target for claimed in batch["dist"]):
            self.log.warn("{node_id}: a claimed distance is not below the target: the sender ends", node_id=self._name)
            self.kill_sender()
        self.to_validate.append(batch)

    def acknowledge(self, message_id: str, connection: int) -> None:
        """Handle an ack that came on a connection of this run."""
        awaited = self._acks.get(message_id)
        if awaited is None:
            self._ledger.record_late_ack(message_id)
            return
        awaited.attempt.ack_connection = connection
        if not awaited.to_be_lost and not self._settings.ignore_acks and not awaited.came.called:
            awaited.came.callback(None)

    async def _stop(self) -> None:
        try:
            if self._posting is not None:
                await self._posting.addTimeout(self._settings.hung_stop_seconds, self._clock)
        except DeferredTimeoutError:
            self.log.info("{node_id}: sender hangs in an HTTP call: killed", node_id=self._name)
        finally:
            # Also when the node shuts down meanwhile, which cancels this.
            self.abandon()

    def _sender_broke(self, failure: Failure) -> None:
        # A call that is cancelled may fail with its own error first.
        if not failure.check(CancelledError, ConnectingCancelledError):
            self.is_sender_alive = False
            self.log.failure("{node_id}: the simulated sender has a defect", failure, node_id=self._name)

    async def _send(self) -> None:
        while self.is_sender_alive:
            await deferLater(self._clock, self._settings.walk_seconds)
            self._collect()
            await self._walk()

    def _collect(self) -> None:
        """Move what was computed since the last walk to the unsent batches of the phase."""
        if not self.is_loaded:
            return
        now = self._clock.seconds()
        if self.phase == "generate":
            for _ in range(self._settings.batches_per_walk):
                batch = self._generator.batch(self._settings.nonces_per_batch)
                if batch["nonces"]:
                    self._unsent["generated"].append(self._ledger.record_batch("generated", batch, now))
            return
        while self.to_validate:
            claimed = self.to_validate.popleft()
            verdict = validated_batch(self.request, claimed, with_nan=self._settings.nan_in_validated)
            self._unsent["validated"].append(self._ledger.record_batch("validated", verdict, now))

    async def _walk(self) -> None:
        phase = self.phase
        unsent = self._unsent["generated" if phase == "generate" else "validated"]
        for entry in list(unsent):
            # When the phase changes, the rest stays in the list until the phase comes back.
            if phase != self.phase or not self.is_sender_alive:
                return
            delivered = self.client_connected and await self._by_websocket(entry)
            if not delivered and self.is_sender_alive:
                delivered = await self._by_http(entry)
            if delivered and entry in unsent:
                unsent.remove(entry)

    async def _by_websocket(self, entry: BatchEntry) -> bool:
        connection = self.connection
        message_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        attempt = Attempt("websocket", self._clock.seconds(), message_id=message_id)
        self._ledger.record_attempt(entry, attempt)
        every = self._settings.double_every
        awaited = _AwaitedAck(attempt, Deferred(), bool(every) and self._ledger.counts["offered"] % every == 0)
        self._acks[message_id] = awaited
        if connection is not None:
            attempt.connection = connection.number
            message = {"type": entry.kind, "batch": entry.batch, "id": message_id}
            connection.offer(json.dumps(message, separators=(",", ":")).encode())
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
            outcome = "accepted" if 200 <= attempt.status < 300 else "refused"
        except ValueError as error:
            # A NaN, which the node cannot encode for HTTP, or a callback base that is no URL.
            self.log.info("{node_id}: no HTTP call can be made: {reason}", node_id=self._name, reason=error)
            outcome = "failed"
        except _NO_ANSWER as error:
            self.log.info("{node_id}: callback failed: {reason!r}", node_id=self._name, reason=error)
            # A call that is cancelled fails like any other.
            outcome = "failed" if self.is_sender_alive else "cut off"
        finally:
            posted, self._posting = self._posting, None
            self._ledger.record_outcome(entry, attempt, outcome, self._clock.seconds())
            if not posted.called:
                posted.callback(None)
        return outcome == "accepted"

    async def _post(self, entry: BatchEntry) -> int:
        body = json.dumps(entry.batch, allow_nan=False).encode()
        headers = Headers({"Content-Type": ["application/json"]})
        response = await self._http.post(f"{self.request.url}/{entry.kind}", data=body, headers=headers)
        await response.content()
        status: int = response.code
        return status
