"""What a simulated ML node did and saw, kept for whoever tests against it."""

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
    """One try to deliver a batch.

    Over the WebSocket ``message_id`` is the envelope's id, ``connection`` the number of the connection that it was
    offered on and ``ack_connection`` that of the one its ack came on. By HTTP ``status`` is the answer's. ``outcome``
    is None while it is open, then one of: ``acknowledged``, ``no ack`` (in time), ``ack lost`` (as told by the
    settings), ``accepted`` (2xx), ``refused`` (another status), ``failed`` (no answer), ``cut off`` (the sender died).
    ``late_ack`` tells that an ack came after the sender had stopped waiting for it.
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
    """A batch from its making to its end.

    ``delivered_via`` and ``delivered_at`` tell how and when the node learned that it can drop it. ``lost`` means that
    the node dropped it unsent (stop, switch, crash); when ``attempts`` is not empty, the other side may have it yet.
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
        """Tell whether it was offered over the WebSocket and taken over by HTTP as well."""
        return self.delivered_via == "http" and any(attempt.via == "websocket" for attempt in self.attempts)


@dataclass
class Call:
    """One HTTP call that the node answered; ``body`` is the decoded JSON (None without one or with a bad one)."""

    method: str
    path: str
    body: Any
    at: float
    status: int | None = None


@dataclass
class Connection:
    """One WebSocket upgrade that was accepted.

    ``refused`` is the reason of the 1008 that followed, if one did. ``close_code`` is what the client sent (None: no
    close frame came). ``pings`` and ``acks`` count those that came.
    """

    number: int
    opened_at: float
    refused: str | None = None
    closed_at: float | None = None
    close_code: int | None = None
    close_reason: str | None = None
    pings: int = 0
    acks: int = 0


class Ledger:
    """All that happened, the newest ``remembered`` of each sort, with Deferreds to wait for more of it.

    ``counts`` has, over the whole life: ``made``, ``delivered``, ``websocket`` and ``http`` (delivered that way),
    ``offered`` (tries over the WebSocket), ``doubled`` and ``lost``. ``upgrades`` are the times of all requests to
    upgrade, refused ones too.
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
        """Return the remembered batches that were taken over, that way and of that kind."""
        return [
            entry
            for entry in self.batches
            if entry.delivered_via is not None and via in (None, entry.delivered_via) and kind in (None, entry.kind)
        ]

    def when(self, predicate: Callable[[], bool]) -> Deferred[None]:
        """Return a Deferred that fires as soon as ``predicate()`` is true; it is asked after each event."""
        if predicate():
            return succeed(None)
        waiting: Deferred[None] = Deferred(lambda cancelled: self._forget(cancelled))
        self._waiting.append((predicate, waiting))
        return waiting

    def when_delivered(self, count: int, *, via: Via | None = None, kind: Kind | None = None) -> Deferred[None]:
        """Return a Deferred that fires when so many batches were taken over, that way and of that kind."""
        return self.when(lambda: self._delivered[via, kind] >= count)

    def when_offered(self, count: int) -> Deferred[None]:
        """Return a Deferred that fires when so many tries over the WebSocket were begun."""
        return self.when(lambda: self.counts["offered"] >= count)

    def when_called(self, path: str, count: int = 1) -> Deferred[None]:
        """Return a Deferred that fires when the path (``/api/v1/…``) was called and answered so often."""
        return self.when(lambda: sum(call.path == path and call.status is not None for call in self.calls) >= count)

    # What follows is called by the node.

    def made(self, kind: Kind, batch: dict[str, Any], now: float) -> BatchEntry:
        """Note a new batch."""
        self.counts["made"] += 1
        entry = BatchEntry(self.counts["made"], kind, batch, now)
        self.batches.append(entry)
        self.happened()
        return entry

    def attempted(self, entry: BatchEntry, attempt: Attempt) -> None:
        """Note the start of a try."""
        entry.attempts.append(attempt)
        if attempt.via == "websocket":
            self.counts["offered"] += 1
        self.happened()

    def ended(self, entry: BatchEntry, attempt: Attempt, outcome: str, now: float) -> None:
        """Note the end of a try; ``acknowledged`` and ``accepted`` end the batch too."""
        attempt.outcome, attempt.ended_at = outcome, now
        if outcome in ("acknowledged", "accepted"):
            entry.delivered_via, entry.delivered_at = attempt.via, now
            self._delivered.update(product((attempt.via, None), (entry.kind, None)))
            self.counts["delivered"] += 1
            self.counts[attempt.via] += 1
            self.counts["doubled"] += entry.is_doubled
        self.happened()

    def lost(self, entries: list[BatchEntry]) -> None:
        """Note batches that the node dropped unsent."""
        for entry in entries:
            entry.lost = True
        self.counts["lost"] += len(entries)
        self.happened()

    def acknowledged_late(self, message_id: str) -> None:
        """Note an ack that nobody waits for (any more)."""
        self.stray_acks.append(message_id)
        for entry in self.batches:
            for attempt in entry.attempts:
                if attempt.message_id == message_id:
                    attempt.late_ack = True
        self.happened()

    def happened(self) -> None:
        """Ask what is waited for."""
        for waiting in list(self._waiting):
            predicate, deferred = waiting
            if waiting in self._waiting and predicate():
                self._waiting.remove(waiting)
                deferred.callback(None)

    def _forget(self, cancelled: Deferred[None]) -> None:
        self._waiting = [waiting for waiting in self._waiting if waiting[1] is not cancelled]
