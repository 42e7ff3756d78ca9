"""One WebSocket connection to a node: Autobahn speaks the protocol, this keeps it honest about time and memory.

Autobahn's own timers are off (they floor to whole seconds and run on a process-wide loop), so is its UTF-8 check
(40 % of the receive path); both are done here. What a connection ended for is remembered when it is decided: after a
close handshake Autobahn reports the peer's echo.
"""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import txaio
from autobahn.twisted.websocket import WebSocketClientProtocol
from autobahn.websocket.types import ConnectingRequest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from dapi.messages import encode_ack
from dapi.poc.batch_handler import BatchHandler
from dapi.poc.message_intake import MessageCounts, MessageIntake
from dapi.poc.timer import Timer
from dapi.poc.websocket_reasons import (
    Ending,
    ended_before_answer,
    ended_by_node,
    ended_by_us,
    lost,
    refused_upgrade,
)
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.poc.websocket_url import WebSocketAddress

_MAX_UNPARSED_BYTES = 64 * 1024


class ConnectionObserver(Protocol):
    """Who wants to know of a node's connections. Each call comes at most once for a connection, in this order."""

    def connection_made(self, connection: WebSocketNodeProtocol) -> None:
        """Hear that TCP is connected; TLS and the upgrade are still to come."""

    def connection_opened(self, connection: WebSocketNodeProtocol) -> None:
        """Hear that the node accepted the upgrade, which does not yet mean that it will send here."""

    def batch_came(self) -> None:
        """Hear that a batch came; this one comes often."""

    def connection_ended(self, connection: WebSocketNodeProtocol, ending: Ending) -> None:
        """Hear that it is gone; ``connection_opened`` may never have come."""


class WebSocketNodeProtocol(WebSocketClientProtocol):
    """A connection to one node, from TCP to its end.

    ``opened_at`` is when the upgrade was accepted, None before; ``reading_since`` when reading (again) began.
    """

    # Autobahn logs each failed handshake: a node that is down would fill the log. What matters goes to the observer,
    # which logs changes.
    log = txaio.make_logger(level="none")  # type: ignore[attr-defined]

    transport: Any

    def __init__(
        self,
        clock: IReactorTime,
        address: WebSocketAddress,
        settings: WebSocketSettings,
        handler: BatchHandler,
        counts: MessageCounts,
        observer: ConnectionObserver,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._address = address
        self._settings = settings
        self._counts = counts
        self._observer = observer
        self._intake = MessageIntake(
            handler,
            counts,
            max_messages=settings.max_waiting_messages,
            max_bytes=settings.max_waiting_bytes,
            acknowledge=self._acknowledge,
            on_done=self._message_done,
        )
        self._handshake_timer = Timer(clock, settings.handshake_timeout_seconds, self._handshake_timed_out)
        self._ping_timer = Timer(clock, settings.ping_interval_seconds, self._ping)
        self._pong_timer = Timer(clock, settings.ping_timeout_seconds, self._pong_timed_out)
        self._blocked_timer = Timer(clock, settings.ping_timeout_seconds, self._blocked_too_long)
        self._close_timer = Timer(clock, settings.close_timeout_seconds, self._abort)
        self._idle_timer = Timer(clock, settings.idle_seconds, self._check_idle)
        self._ending: Ending | None = None
        self._has_ended = False
        self._is_blocked = False
        self._is_paused = False
        self._last_batch_at = 0.0
        self._when_ended: list[Deferred[None]] = []
        self.opened_at: float | None = None
        self.reading_since = 0.0

    # What the client asks of it.

    @property
    def in_flight(self) -> int:
        """The number of messages that are with the handler."""
        return self._intake.in_flight

    @property
    def is_paused(self) -> bool:
        """Tell whether reading is paused: too much waits for the disk, or the node does not read our acks."""
        return self._is_paused

    def is_waiting_for_batches(self) -> bool:
        """Tell whether it is open and a batch could come in at any moment: not paused, none half received."""
        return self.state == self.STATE_OPEN and not self._is_paused and not self.inside_message

    def end(self, reason: str) -> Deferred[None]:
        """Close the connection, within ``close_timeout_seconds`` whatever the node does.

        ``reason`` is what ``connection_ended`` will tell, unless it was ending already. Fires, with None, when the
        connection is gone.
        """
        if self._has_ended:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        self._when_ended.append(ended)
        self._keep(Ending(False, reason))
        if self.state == self.STATE_OPEN:
            self.sendClose(1000, reason)
        elif self.state == self.STATE_CONNECTING:
            self._abort()
        return ended

    # The handshake.

    def connectionMade(self) -> None:
        """Begin the handshake, which has its time from here on, TLS included."""
        self._handshake_timer.start()
        super().connectionMade()
        # Autobahn asks for it before it knows its own option. Without it an ack waits up to 40 ms for that of another.
        self.transport.setTcpNoDelay(True)
        self._observer.connection_made(self)

    def onConnecting(self, _transport_details: object) -> ConnectingRequest:
        """Say what to ask for: Autobahn's own request has no brackets around an IPv6 address."""
        return ConnectingRequest(
            host=self._address.host_header,
            port=self._address.port,
            resource=self._address.resource,
            useragent=self.factory.useragent,
        )

    def processHandshake(self) -> None:  # noqa: N802
        """Look at the answer to the upgrade, after what Autobahn itself would stumble over."""
        head, end, _rest = self.data.partition(b"\r\n\r\n")
        if end and not _is_utf8(head):
            self.failHandshake("not even text")
            return
        super().processHandshake()

    def failHandshake(self, reason: str) -> None:
        """Keep why the upgrade was refused (Autobahn has it in the text only), then drop the connection."""
        self._keep(Ending(True, refused_upgrade(getattr(self, "http_status_line", ""), reason)))
        super().failHandshake(reason)

    def onOpen(self) -> None:
        """Start all that watches over an open connection."""
        self._handshake_timer.cancel()
        self.opened_at = self.reading_since = self._last_batch_at = self._clock.seconds()
        self.transport.registerProducer(_WriteGuard(self._set_blocked), True)
        self._ping_timer.start()
        self._idle_timer.start()
        self._observer.connection_opened(self)

    def _handshake_timed_out(self) -> None:
        seconds = self._settings.handshake_timeout_seconds
        self._keep(Ending(True, f"no answer to the upgrade within {seconds:g} s"))
        self._abort()

    # Messages.

    def dataReceived(self, data: bytes) -> None:
        """Whatever comes shows that the node is alive: a pong may stand behind a long message."""
        self._pong_timer.cancel()
        super().dataReceived(data)
        if len(self.data) > _MAX_UNPARSED_BYTES:
            # A header without an end, or what follows a refused compressed message, which Autobahn would collect.
            self._keep(Ending(self.opened_at is None, "the node sends what is no WebSocket"))
            self._abort()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        """Take a message, text or binary. While the connection closes it is stored too, if there is room at once."""
        if self.state != self.STATE_OPEN and self._intake.is_full:
            return
        if not isBinary and not _is_utf8(payload):
            self._invalid_payload("a text message is no valid UTF-8")
            return
        if self._intake.take(payload):
            self._last_batch_at = self._clock.seconds()
            self._observer.batch_came()
        self._update_reading()

    def _acknowledge(self, message_id: str) -> None:
        if self.state == self.STATE_OPEN:
            self.sendMessage(encode_ack(message_id), isBinary=False, doNotCompress=True)
            self._counts.acks += 1

    def _message_done(self) -> None:
        self._last_batch_at = self._clock.seconds()
        self._update_reading()

    def _update_reading(self) -> None:
        is_open = self.state == self.STATE_OPEN
        should_pause = is_open and (self._intake.is_full or self._is_blocked)
        if self._has_ended or should_pause == self._is_paused:
            return
        self._is_paused = should_pause
        if should_pause:
            # A pong that is not read must not end a healthy connection.
            self._ping_timer.cancel()
            self._pong_timer.cancel()
            self.transport.pauseProducing()
            return
        self.reading_since = self._last_batch_at = self._clock.seconds()
        if is_open:
            self._ping_timer.start()
        self.transport.resumeProducing()

    def _set_blocked(self, is_blocked: bool) -> None:
        """Note that the node (no longer) leaves what we send unread: then nothing is read from it, so nothing grows."""
        self._is_blocked = is_blocked
        if is_blocked:
            self._blocked_timer.start()
        else:
            self._blocked_timer.cancel()
        self._update_reading()

    # Dead or forgotten connections.

    def _ping(self) -> None:
        self.sendPing()
        if not self._pong_timer.is_running:
            self._pong_timer.start()
        self._ping_timer.start()

    def _pong_timed_out(self) -> None:
        self.end(f"no answer to a ping within {self._settings.ping_timeout_seconds:g} s")

    def _blocked_too_long(self) -> None:
        self._keep(Ending(False, f"the node read nothing for {self._settings.ping_timeout_seconds:g} s"))
        self._abort()

    def _check_idle(self) -> None:
        is_busy = self._is_paused or self.in_flight > 0
        left = self._last_batch_at + self._settings.idle_seconds - self._clock.seconds()
        if is_busy:
            self._idle_timer.start()
        elif left > 0:
            self._idle_timer.start(left)
        else:
            self.end(f"replaced: no batch for {self._settings.idle_seconds:g} s")

    # The end.

    def sendCloseFrame(  # noqa: N802
        self,
        code: int | None = None,
        reasonUtf8: bytes | None = None,  # noqa: N803
        isReply: bool = False,  # noqa: N803
    ) -> None:
        """Send a close frame: every close comes through here, ours, Autobahn's (1002, 1007, 1009) and the answers."""
        if self.state == self.STATE_OPEN:
            if isReply:
                self._keep(ended_by_node(self.remoteCloseCode, self.remoteCloseReason))
            else:
                self._keep(ended_by_us(code, (reasonUtf8 or b"").decode(), self._settings.max_message_bytes))
            for timer in (self._ping_timer, self._pong_timer, self._idle_timer):
                timer.cancel()
            self._close_timer.start()
        super().sendCloseFrame(code, reasonUtf8, isReply)
        # The answer must be read, paused or not.
        self._update_reading()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop everything, then tell: first the observer, then those that wait."""
        self._has_ended = True
        for timer in (
            self._handshake_timer,
            self._ping_timer,
            self._pong_timer,
            self._blocked_timer,
            self._close_timer,
            self._idle_timer,
        ):
            timer.cancel()
        self._intake.forget_waiting()
        ending = self._ending or (lost(reason) if self.opened_at is not None else ended_before_answer(reason))
        # Autobahn stumbles over some TLS errors, and needs the reason for its log lines only.
        super().connectionLost(connectionDone)
        self._observer.connection_ended(self, ending)
        waiting, self._when_ended = self._when_ended, []
        for ended in waiting:
            ended.callback(None)

    def _keep(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending

    def _abort(self) -> None:
        if not self._has_ended:
            self.transport.abortConnection()


def _is_utf8(data: bytes) -> bool:
    # Both run at the speed of C, the first without a copy.
    if data.isascii():
        return True
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


@implementer(IPushProducer)
class _WriteGuard:
    """Stands for us as the transport's producer, and hears when the transport cannot get rid of what was written."""

    def __init__(self, set_blocked: Callable[[bool], None]) -> None:
        self._set_blocked = set_blocked

    def pauseProducing(self) -> None:
        self._set_blocked(True)

    def resumeProducing(self) -> None:
        self._set_blocked(False)

    def stopProducing(self) -> None:
        """Do nothing: the loss of the connection is told elsewhere."""
