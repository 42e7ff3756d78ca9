"""One WebSocket connection to a node: its batches, their acknowledgements, and whether it is still of use."""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from dapi.messages import encode_ack
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.message_intake import MessageCounts, MessageIntake
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.timing.timer import Timer
from dapi.websocket.address import WebSocketAddress
from dapi.websocket.protocol import ConnectionObserver, WatchedConnection


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
        counts: MessageCounts,
        observer: ConnectionObserver,
    ) -> None:
        super().__init__(clock, address, settings, observer)
        self._counts = counts
        self._intake = MessageIntake(
            clock,
            handler,
            counts,
            max_messages=settings.max_waiting_messages,
            max_bytes=settings.max_waiting_bytes,
            acknowledge=self._acknowledge,
            on_done=self._message_done,
        )
        self._idle_seconds = settings.idle_seconds
        self._idle_timer = Timer(clock, settings.idle_seconds, self._check_idle)
        self._watch_timers.append(self._idle_timer)
        self._last_batch_at = 0.0
        self.reading_since = 0.0

    # What the client asks of it.

    @property
    def in_flight(self) -> int:
        """The number of messages that are with the handler."""
        return self._intake.in_flight

    def is_waiting_for_batches(self) -> bool:
        """Tell whether it is open and a batch could come in at any moment: not paused, none half received."""
        return self.state == self.STATE_OPEN and not self.is_paused and not self.inside_message

    # Messages.

    def onOpen(self) -> None:
        """Begin to wait for batches."""
        self.reading_since = self._last_batch_at = self._clock.seconds()
        self._idle_timer.start()
        super().onOpen()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        """Take a message, text or binary. While the connection closes it is stored too, if there is room at once."""
        if self.state == self.STATE_OPEN or not self._intake.is_full:
            super().onMessage(payload, isBinary)

    def message_received(self, payload: bytes) -> None:
        """Have a message stored, and acknowledged once it is."""
        if self._intake.take(payload):
            self._last_batch_at = self._clock.seconds()
            self._observer.mark_useful()
        self._update_reading()

    def must_pause(self) -> bool:
        """Tell whether too much waits for the disk, or the node does not read our acks."""
        return super().must_pause() or self._intake.is_full

    def reading_resumed(self) -> None:
        """Give the node its time from here on."""
        self.reading_since = self._last_batch_at = self._clock.seconds()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget what could not be acknowledged any more."""
        self._intake.forget_waiting()
        super().connectionLost(reason)

    def _acknowledge(self, message_id: str) -> None:
        if self.state == self.STATE_OPEN:
            self.sendMessage(encode_ack(message_id), isBinary=False, doNotCompress=True)
            self._counts.acks += 1

    def _message_done(self) -> None:
        self._last_batch_at = self._clock.seconds()
        self._update_reading()

    # Forgotten connections.

    def _check_idle(self) -> None:
        is_busy = self.is_paused or self.in_flight > 0
        left = self._last_batch_at + self._idle_seconds - self._clock.seconds()
        if is_busy:
            self._idle_timer.start()
        elif left > 0:
            self._idle_timer.start(left)
        else:
            self.end(f"replaced: no batch for {self._idle_seconds:g} s")
