"""One WebSocket connection to a node: its batches, their acknowledgements, and whether it is still useful."""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from dapi.messages import encode_ack
from dapi.messages.sizes import MIB
from dapi.messages.wire import decode_large_envelope
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.large_batches import LargeBatches
from dapi.poc.message_intake import MessageCounter, MessageIntake, TakeLarge
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.timing.fair_share import Account
from dapi.timing.timer import Timer
from dapi.websocket.address import WebSocketAddress
from dapi.websocket.protocol import ConnectionObserver, WatchedConnection
from dapi.websocket.reasons import Cause


class WebSocketNodeProtocol(WatchedConnection):
    """A connection to one node, from TCP to its end.

    ``reading_since`` is when reading (again) began.
    """

    def __init__(
        self,
        clock: IReactorTime,
        address: WebSocketAddress,
        settings: WebSocketSettings,
        handler: BatchHandler,
        counter: MessageCounter,
        observer: ConnectionObserver,
        account: Account | None = None,
        large_batches: LargeBatches | None = None,
    ) -> None:
        super().__init__(clock, address, settings, observer, account)
        self._counter = counter
        self._intake = MessageIntake(
            clock,
            handler,
            counter,
            max_messages=settings.max_pending_messages,
            max_bytes=settings.max_pending_bytes,
            acknowledge=self._acknowledge,
            on_done=self._message_done,
            on_judged=self._judge,
            take_large=self._taker(large_batches),
        )
        self._max_bad_messages = settings.max_bad_messages
        self._bad_in_a_row = 0
        self._idle_seconds = settings.idle_seconds
        self._idle_timer = Timer(clock, settings.idle_seconds, self._check_idle)
        self._watch_timers.append(self._idle_timer)
        self._last_batch_at = 0.0
        self.reading_since = 0.0

    # What the client calls.

    @property
    def pending(self) -> int:
        """The number of messages that are with the handler."""
        return self._intake.pending

    def is_waiting_for_batches(self) -> bool:
        """Return whether it is open and a batch can come at any moment: not paused, none half received."""
        return self.state == self.STATE_OPEN and not self.is_paused and not self.inside_message and not self.data

    # Messages.

    def onOpen(self) -> None:
        """Begin to wait for batches."""
        self.reading_resumed()
        self._idle_timer.start()
        super().onOpen()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        """Handle a message, text or binary; while the connection closes only one that can be stored at once."""
        if self.state == self.STATE_OPEN or not self._intake.is_full:
            super().onMessage(payload, isBinary)

    def message_received(self, payload: bytes) -> None:
        """Have a message stored, and acknowledged once it is."""
        self._intake.store(payload)
        self._update_reading()

    def _judge(self, size: int, is_good: bool) -> None:
        """Hear whether a message of so many bytes is a good one."""
        if not is_good:
            # A large one costs as much as many.
            self._bad_in_a_row += 1 + size // MIB
            if self._bad_in_a_row > self._max_bad_messages:
                self.end_abuse(f"more than {self._max_bad_messages} bad messages in a row")
        else:
            self._bad_in_a_row = 0
            self._last_batch_at = self._clock.seconds()
            self._observer.mark_useful()

    def _taker(self, large_batches: LargeBatches | None) -> TakeLarge | None:
        if large_batches is None:
            return None
        return lambda payload, handle: large_batches.take(payload, decode_large_envelope, handle, self._account)

    def must_pause(self) -> bool:
        """Return whether too much is pending, or the node does not read our acks."""
        return super().must_pause() or self._intake.is_full

    def reading_resumed(self) -> None:
        """Count the node's time from now on."""
        self.reading_since = self._last_batch_at = self._clock.seconds()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Drop what can no longer be acknowledged."""
        self._intake.clear_queue()
        super().connectionLost(reason)

    def _acknowledge(self, message_id: str) -> None:
        if self.state == self.STATE_OPEN:
            self.send_text(encode_ack(message_id))
            self._counter.counts.acks += 1

    def _message_done(self) -> None:
        self._last_batch_at = self._clock.seconds()
        self._update_reading()

    # Forgotten connections.

    def _check_idle(self) -> None:
        is_busy = self.is_paused or self.pending > 0
        left = self._last_batch_at + self._idle_seconds - self._clock.seconds()
        if is_busy:
            self._idle_timer.start()
        elif left > 0:
            self._idle_timer.start(left)
        else:
            reason = f"replaced: no batch for {self._idle_seconds:g} s"
            self.end(reason, is_planned=True, cause=Cause.REPLACED_IDLE)
