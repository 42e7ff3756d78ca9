"""What a simulated ML node did and saw, for tests to look at and to wait for."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from twisted.internet.defer import Deferred, succeed

Kind = Literal["generated", "validated"]
Via = Literal["websocket", "http"]


@dataclass
class Attempt:
    """One attempt to deliver a batch.

    Over the WebSocket, ``message_id`` is the id of the message, ``connection`` the number of the connection that
    carried it, ``ack_connection`` the number of the one that carried the ack. By HTTP, ``status`` is that of the
    answer. ``outcome`` is None at first, and then one of: ``acknowledged``, ``no ack`` (in time), ``ack lost`` (because
    the settings say so), ``accepted`` (a status below 400), ``refused`` (another status), ``failed`` (no answer),
    ``cut off`` (the sender ended). ``late_ack``: an ack came when the sender did not wait for it any more.
    """

    via: Via
    started_at: float
    message_id: str | None = None
    connection: int | None = None
    ack_connection: int | None = None
    status: int | None = None
    outcome: str | None = None
    ended_at: float | None = None
    late_ack: bool = False


@dataclass
class BatchEntry:
    """A batch that the node computed.

    ``delivered_via`` and ``delivered_at``: how and when the node learned that it may drop the batch. ``lost``: the node
    dropped it undelivered (stop, start anew, crash); if there were ``attempts``, the other side may still have it.
    """

    number: int
    kind: Kind
    batch: dict[str, Any]
    made_at: float
    attempts: list[Attempt] = field(default_factory=list)
    delivered_via: Via | None = None
    delivered_at: float | None = None
    lost: bool = False

    @property
    def is_doubled(self) -> bool:
        """Tell whether it was offered over the WebSocket and accepted by HTTP as well."""
        return self.delivered_via == "http" and any(attempt.via == "websocket" for attempt in self.attempts)


@dataclass
class Call:
    """One HTTP call to the node; ``body`` is the decoded JSON, None where there is none or it cannot be decoded."""

    method: str
    path: str
    body: Any
    at: float
    status: int | None = None


@dataclass
class Connection:
    """One WebSocket connection, from the accepted upgrade on.

    ``refused`` is the reason with which the node closed it (1008), None where it did not. ``left_at``: when the node
    left it open and unused (docs/protocol/node.md, 'WebSocket'), None where it did not. ``close_code`` and
    ``close_reason`` are those of the client, None where no close frame came. ``pings`` and ``acks`` count the client's.
    """

    number: int
    opened_at: float
    refused: str | None = None
    left_at: float | None = None
    closed_at: float | None = None
    close_code: int | None = None
    close_reason: str | None = None
    pings: int = 0
    acks: int = 0


class Ledger:
    """All that happened, the newest ``remembered`` of each sort, with Deferreds to wait for more.

    ``counts`` is of the whole life: batches ``made``, ``delivered``, delivered by ``websocket`` and by ``http``,
    ``doubled`` (see ``BatchEntry.is_doubled``) and ``lost``, and attempts over the WebSocket (``offered``).
    ``upgrades`` are the times of all requests to upgrade, of refused ones too.
    """

    def __init__(self, remembered: int = 10_000) -> None:
        self.batches: deque[BatchEntry] = deque(maxlen=remembered)
        self.calls: deque[Call] = deque(maxlen=remembered)
        self.connections: deque[Connection] = deque(maxlen=remembered)
        self.upgrades: deque[float] = deque(maxlen=remembered)
        self.stray_acks: deque[str] = deque(maxlen=remembered)
        self.counts: Counter[str] = Counter()
        self._delivered: Counter[tuple[Via | None, Kind | None]] = Counter()
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def delivered(self, *, via: Via | None = None, kind: Kind | None = None) -> list[BatchEntry]:
        """Return the remembered batches that were delivered, that way and of that kind."""
        return [
            entry
            for entry in self.batches
            if entry.delivered_via is not None and via in (None, entry.delivered_via) and kind in (None, entry.kind)
        ]

    def when(self, predicate: Callable[[], bool]) -> Deferred[None]:
        """Return a Deferred that fires as soon as ``predicate()`` is true; it is looked at after each event."""
        if predicate():
            return succeed(None)
        waiting: Deferred[None] = Deferred(lambda cancelled: self._forget(cancelled))
        self._waiting.append((predicate, waiting))
        return waiting

    def when_delivered(self, count: int, *, via: Via | None = None, kind: Kind | None = None) -> Deferred[None]:
        """Return a Deferred that fires when so many batches were delivered, that way and of that kind."""
        return self.when(lambda: self._delivered[via, kind] >= count)

    def when_offered(self, count: int) -> Deferred[None]:
        """Return a Deferred that fires when so many attempts over the WebSocket have begun."""
        return self.when(lambda: self.counts["offered"] >= count)

    def when_called(self, path: str, count: int = 1) -> Deferred[None]:
        """Return a Deferred that fires when the path (``/api/v1/…``) was called and answered ``count`` times."""
        return self.when(lambda: sum(call.path == path and call.status is not None for call in self.calls) >= count)

    # The node calls the methods below.

    def record_batch(self, kind: Kind, batch: dict[str, Any], now: float) -> BatchEntry:
        """Record a batch that was computed."""
        self.counts["made"] += 1
        entry = BatchEntry(self.counts["made"], kind, batch, now)
        self.batches.append(entry)
        self.record_event()
        return entry

    def record_attempt(self, entry: BatchEntry, attempt: Attempt) -> None:
        """Record the start of an attempt."""
        entry.attempts.append(attempt)
        if attempt.via == "websocket":
            self.counts["offered"] += 1
        self.record_event()

    def record_outcome(self, entry: BatchEntry, attempt: Attempt, outcome: str, now: float) -> None:
        """Record the end of an attempt; ``acknowledged`` and ``accepted`` deliver the batch."""
        attempt.outcome, attempt.ended_at = outcome, now
        if outcome in ("acknowledged", "accepted"):
            entry.delivered_via, entry.delivered_at = attempt.via, now
            self._delivered.update(product((attempt.via, None), (entry.kind, None)))
            self.counts["delivered"] += 1
            self.counts[attempt.via] += 1
            self.counts["doubled"] += entry.is_doubled
        self.record_event()

    def record_lost(self, entries: list[BatchEntry]) -> None:
        """Record batches that the node dropped undelivered."""
        for entry in entries:
            entry.lost = True
        self.counts["lost"] += len(entries)
        self.record_event()

    def record_late_ack(self, message_id: str) -> None:
        """Record an ack that the sender does not wait for, or no longer."""
        self.stray_acks.append(message_id)
        for entry in self.batches:
            for attempt in entry.attempts:
                if attempt.message_id == message_id:
                    attempt.late_ack = True
        self.record_event()

    def record_event(self) -> None:
        """Look at what is waited for, after an event."""
        for waiting in list(self._waiting):
            predicate, deferred = waiting
            if waiting in self._waiting and predicate():
                self._waiting.remove(waiting)
                deferred.callback(None)

    def _forget(self, cancelled: Deferred[None]) -> None:
        self._waiting = [waiting for waiting in self._waiting if waiting[1] is not cancelled]
