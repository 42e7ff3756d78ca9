"""The messages of a node's connections, on their way to the disk: bounded, acknowledged, counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import msgspec
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.errors import MessageError, QuotaError, StoreError
from dapi.messages import Envelope, GeneratedMessage, Receipt, decode_envelope
from dapi.messages.printable import printable
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.large_batches import LARGE_BYTES, Handle
from dapi.timing.log_limits import OncePerMinute
from dapi.timing.pool_thread import PoolThread


class MessageCounts(msgspec.Struct):
    """What became of the messages of a node's connections since its client was made.

    ``messages`` counts all of them; ``bad_messages`` those that are no valid message, ``not_stored`` those that could
    not be stored, ``over_quota`` those that are for nothing and too many (see QuotaError), ``errors`` those on which
    dapi itself failed. ``acks`` counts acknowledgements sent. ``last_problem`` is the last thing that went wrong, with
    a message or with a connection.
    """

    messages: int = 0
    acks: int = 0
    bad_messages: int = 0
    not_stored: int = 0
    over_quota: int = 0
    errors: int = 0
    last_problem: str | None = None


class MessageCounter:
    """Counts the messages of a node's connections in ``counts``; of each kind of failure it logs one a minute.

    A node repeats a message without an acknowledgement every 5 s, for ever, also over a new connection.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, node_id: str | None) -> None:
        self.counts = MessageCounts()
        self._node_id = node_id
        self._limit = OncePerMinute(clock)

    def count_failure(self, failure: Failure) -> None:
        """Count a message that failed, and log it if that is due."""
        counts, error = self.counts, failure.value
        problem = failure.getErrorMessage() or type(error).__name__
        # A MessageError may quote the node.
        counts.last_problem = printable(problem) if isinstance(error, MessageError) else problem
        if isinstance(error, MessageError):
            counts.bad_messages += 1
            self._warn("{node_id}: bad message ({count} so far): {problem}", counts.bad_messages)
        elif isinstance(error, StoreError):
            counts.not_stored += 1
            self._warn("{node_id}: not stored, not acknowledged ({count} so far): {problem}", counts.not_stored)
        elif isinstance(error, QuotaError):
            counts.over_quota += 1
            self._warn("{node_id}: not taken, not acknowledged ({count} so far): {problem}", counts.over_quota)
        else:
            counts.errors += 1
            if self._limit.is_due("error"):
                text = "{node_id}: a message failed inside dapi ({count} so far)"
                self.log.failure(text, failure, node_id=self._node_id, count=counts.errors)

    def _warn(self, text: str, count: int) -> None:
        if self._limit.is_due(text):
            self.log.warn(text, node_id=self._node_id, count=count, problem=self.counts.last_problem)


TakeLarge: TypeAlias = Callable[[bytes, Handle[Envelope]], Deferred[Receipt]]
"""Decodes a large message, and has it handled, as ``LargeBatches.take`` does."""


class MessageIntake:
    """Hands the messages of one connection to the node's BatchHandler.

    At most ``max_messages``, and at most ``max_bytes`` unless it is a single message, are pending with the handler at a
    time; those beyond are queued here, undecoded, in the order in which they came. ``acknowledge`` is called with the
    message's id when its receipt is there, and never without one. ``on_done`` is called after each message.
    ``on_judged`` is called with a message's bytes and whether it is a good one, as soon as it is decoded; one that is
    queued counts as good at once. ``take_large`` decodes a large one, and has it handled; without it that is done as
    with a small one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        handler: BatchHandler,
        counter: MessageCounter,
        *,
        max_messages: int,
        max_bytes: int,
        acknowledge: Callable[[str], None],
        on_done: Callable[[], None],
        on_judged: Callable[[int, bool], None] = lambda size, is_good: None,
        take_large: TakeLarge | None = None,
    ) -> None:
        self._clock = clock
        self._handler = handler
        self._ack_seconds = handler.ack_times.over_websocket
        self._counter = counter
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._acknowledge = acknowledge
        self._on_done = on_done
        self._on_judged = on_judged
        self._take_large = take_large
        # With the time at which each came. Made for the first one: empty, it takes 760 bytes of each connection.
        self._queue: deque[tuple[bytes, float]] | None = None
        # Large ones, until they are on disk. Made for the first one, like the queue.
        self._taking: set[Deferred[Receipt]] | None = None
        self._is_draining = False
        self._pending_bytes = 0
        self.pending = 0

    @property
    def is_full(self) -> bool:
        """Whether the next message would be queued."""
        return bool(self._queue) or self.pending >= self._max_messages or self._pending_bytes >= self._max_bytes

    def store(self, payload: bytes) -> None:
        """Have a message stored, now or in its turn."""
        self._counter.counts.messages += 1
        if self._queue or not self._has_room(payload):
            if self._queue is None:
                self._queue = deque()
            self._queue.append((payload, self._clock.seconds()))
            self._on_judged(len(payload), True)
        elif (is_good := self._hand_over(payload, self._clock.seconds())) is not None:
            self._on_judged(len(payload), is_good)

    def clear_queue(self) -> None:
        """Drop the messages that wait: the node sends them again, since their connection is gone."""
        self._queue = None
        for taking in tuple(self._taking or ()):
            # One that has begun goes on.
            taking.cancel()

    def _has_room(self, payload: bytes) -> bool:
        return self.pending == 0 or (
            self.pending < self._max_messages and self._pending_bytes + len(payload) <= self._max_bytes
        )

    def _hand_over(self, payload: bytes, came_at: float) -> bool | None:
        """Return whether it is a good one; None: that is not known yet."""
        if self._take_large is not None and len(payload) >= LARGE_BYTES:
            self._hand_over_large(self._take_large, payload, came_at)
            return None
        try:
            message = decode_envelope(payload)
        except MessageError as error:
            self._counter.count_failure(Failure(error))
            return False
        size = len(payload)
        self._begin(size)
        # Of the message only the id is kept: its batch is with the handler now.
        stored = maybeDeferred(self._handle, message, size)
        stored.addBoth(self._finish, message.id, size, came_at)
        stored.addErrback(self._counter.count_failure)
        return True

    def _hand_over_large(self, take_large: TakeLarge, payload: bytes, came_at: float) -> None:
        size = len(payload)
        ids: list[str] = []

        def handle(message: Envelope, size: int, thread: PoolThread) -> Deferred[Receipt]:
            ids.append(message.id)
            self._on_judged(size, True)
            return self._handle(message, size, thread)

        def finish(result: Receipt | Failure) -> None:
            taken.discard(taking)
            if isinstance(result, Failure) and result.check(CancelledError):
                # Nobody waits for it any more.
                self._end(size)
                return
            if not ids:
                self._on_judged(size, False)
            self._finish(result, ids[0] if ids else "", size, came_at)

        self._begin(size)
        taken = self._taking = self._taking or set()
        taking = take_large(payload, handle)
        taken.add(taking)
        taking.addBoth(finish).addErrback(self._counter.count_failure)

    def _handle(self, message: Envelope, size: int, thread: PoolThread | None = None) -> Deferred[Receipt]:
        if isinstance(message, GeneratedMessage):
            return self._handler.handle_generated_batch(message.batch, size=size, thread=thread)
        return self._handler.handle_validated_batch(message.batch, size=size, thread=thread)

    def _begin(self, size: int) -> None:
        self.pending += 1
        self._pending_bytes += size

    def _finish(self, result: Receipt | Failure, message_id: str, size: int, came_at: float) -> None:
        try:
            if isinstance(result, Failure):
                self._counter.count_failure(result)
            else:
                self._acknowledge(message_id)
                self._ack_seconds.observe(self._clock.seconds() - came_at)
        finally:
            self._end(size)

    def _end(self, size: int) -> None:
        self.pending -= 1
        self._pending_bytes -= size
        self._drain()
        self._on_done()

    def _drain(self) -> None:
        # A handler that answers at once calls back in here: one loop, not one level for each message.
        if self._is_draining:
            return
        self._is_draining = True
        while self._queue and self._has_room(self._queue[0][0]):
            self._hand_over(*self._queue.popleft())
        self._is_draining = False
