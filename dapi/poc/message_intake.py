"""What a connection brought, on its way to the disk.

Never more at once than was agreed, and acknowledged when it is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.errors import MessageError, StoreError
from dapi.messages import Envelope, GeneratedMessage, Receipt, decode_envelope
from dapi.poc.batch_handler import BatchHandler
from dapi.websocket.reasons import printable

# A node tries what is not acknowledged again every 5 s, for ever.
_SECONDS_BETWEEN_LINES = 60.0


class MessageCounts(msgspec.Struct):
    """What became of the messages of a node's connections since its client was made.

    ``messages`` counts all of them; ``bad_messages`` those that are no valid message, ``not_stored`` those that could
    not be stored, ``errors`` those on which dapi itself failed. ``acks`` counts acknowledgements sent. ``logged_at`` is
    when each of the three kinds of failure was last worth a line of the log.
    """

    messages: int = 0
    acks: int = 0
    bad_messages: int = 0
    not_stored: int = 0
    errors: int = 0
    last_error: str | None = None
    logged_at: dict[str, float] = {}


class MessageIntake:
    """Hands the messages of one connection to the node's BatchHandler.

    At most ``max_messages``, and at most ``max_bytes`` unless it is a single message, are with the handler at a time;
    what comes beyond waits here, undecoded, in the order in which it came. ``acknowledge`` is called with the
    message's id once its receipt is there, and never when there is none. ``on_done`` is called after each message.
    Failures are counted; of each kind one a minute is logged.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        handler: BatchHandler,
        counts: MessageCounts,
        *,
        max_messages: int,
        max_bytes: int,
        acknowledge: Callable[[str], None],
        on_done: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._handler = handler
        self._counts = counts
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._acknowledge = acknowledge
        self._on_done = on_done
        self._waiting: deque[bytes] = deque()
        self._is_draining = False
        self._bytes_in_flight = 0
        self.in_flight = 0

    @property
    def is_full(self) -> bool:
        """Tell whether what comes next would have to wait."""
        return bool(self._waiting) or self.in_flight >= self._max_messages or self._bytes_in_flight >= self._max_bytes

    def take(self, payload: bytes) -> bool:
        """Take one message; return whether it was a valid one, or is still to be looked at."""
        self._counts.messages += 1
        if self._waiting or not self._has_room(payload):
            self._waiting.append(payload)
            return True
        return self._hand_over(payload)

    def forget_waiting(self) -> None:
        """Drop what was not handed over yet: without its connection it cannot be acknowledged, so it comes again."""
        self._waiting.clear()

    def _has_room(self, payload: bytes) -> bool:
        return self.in_flight == 0 or (
            self.in_flight < self._max_messages and self._bytes_in_flight + len(payload) <= self._max_bytes
        )

    def _hand_over(self, payload: bytes) -> bool:
        try:
            message = decode_envelope(payload)
        except MessageError as error:
            self._note_bad(error)
            return False
        size = len(payload)
        self.in_flight += 1
        self._bytes_in_flight += size
        # Of the message only the id is kept: its batch needs a multiple of its bytes, and is with the handler now.
        stored = maybeDeferred(self._handle, message)
        stored.addBoth(self._finish, message.id, size)
        stored.addErrback(self._note_failure)
        return True

    def _handle(self, message: Envelope) -> Deferred[Receipt]:
        if isinstance(message, GeneratedMessage):
            return self._handler.handle_generated_batch(message.batch)
        return self._handler.handle_validated_batch(message.batch)

    def _finish(self, result: Receipt | Failure, message_id: str, size: int) -> None:
        try:
            if isinstance(result, Failure):
                self._note_failure(result)
            else:
                self._acknowledge(message_id)
        finally:
            self.in_flight -= 1
            self._bytes_in_flight -= size
            self._drain()
            self._on_done()

    def _drain(self) -> None:
        # A handler that answers at once calls back in here: one loop, not one level for each message.
        if self._is_draining:
            return
        self._is_draining = True
        while self._waiting and self._has_room(self._waiting[0]):
            self._hand_over(self._waiting.popleft())
        self._is_draining = False

    def _note_bad(self, error: MessageError) -> None:
        self._counts.bad_messages += 1
        # It may quote what the node sent.
        self._counts.last_error = printable(str(error))
        if self._is_worth_a_line("bad message"):
            self.log.warn(
                "{node_id}: bad message ({count} so far): {error}",
                node_id=self._handler.node_id,
                count=self._counts.bad_messages,
                error=self._counts.last_error,
            )

    def _note_failure(self, failure: Failure) -> None:
        if isinstance(failure.value, MessageError):
            self._note_bad(failure.value)
            return
        self._counts.last_error = failure.getErrorMessage() or type(failure.value).__name__
        if isinstance(failure.value, StoreError):
            self._counts.not_stored += 1
            if self._is_worth_a_line("not stored"):
                self.log.warn(
                    "{node_id}: not stored, not acknowledged ({count} so far): {error}",
                    node_id=self._handler.node_id,
                    count=self._counts.not_stored,
                    error=self._counts.last_error,
                )
            return
        self._counts.errors += 1
        if self._is_worth_a_line("error"):
            self.log.failure(
                "{node_id}: a message failed inside dapi ({count} so far)",
                failure,
                node_id=self._handler.node_id,
                count=self._counts.errors,
            )

    def _is_worth_a_line(self, kind: str) -> bool:
        now, logged_at = self._clock.seconds(), self._counts.logged_at.get(kind)
        if logged_at is not None and now - logged_at < _SECONDS_BETWEEN_LINES:
            return False
        self._counts.logged_at[kind] = now
        return True
