"""One WebSocket connection: Autobahn speaks the protocol, WatchedConnection bounds its time and memory.

Autobahn's own timers and its UTF-8 check are off (options.py); both are done here. Why a connection ends is recorded
when the end begins: after a close handshake Autobahn reports what the peer echoed. Facts: docs/protocol/measured.md,
'Autobahn'.
"""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any, Protocol

import txaio
from autobahn.websocket.types import ConnectingRequest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from dapi.errors import ConfigError
from dapi.timing.fair_share import Account, FairShare
from dapi.timing.timer import Timer
from dapi.timing.waiters import Waiters
from dapi.websocket.address import WebSocketAddress
from dapi.websocket.frames import MAX_SHORT_BYTES, PING, PONG, TEXT, short_frame
from dapi.websocket.reasons import (
    POLICY_VIOLATION,
    Cause,
    Ending,
    ended_before_answer,
    ended_by_peer,
    ended_by_us,
    lost,
    no_answer,
    no_websocket,
    refused_upgrade,
)
from dapi.websocket.settings import ConnectionSettings
from dapi.websocket.whole_messages import WholeMessages
from dapi.websocket.write_guard import WriteGuard

_MAX_UNPARSED_BYTES = 64 * 1024
_PING_SECONDS = 10.0
# So much after what came last: a peer that pings at the same interval is first.
_PING_MARGIN_SECONDS = 1.0


class ConnectionObserver(Protocol):
    """Learns what each connection does: in this order, all once but ``mark_useful``."""

    def connection_made(self, connection: Any) -> None:
        """Learn that TCP is connected; TLS and the upgrade are still to come."""

    def connection_opened(self) -> None:
        """Learn that the peer accepted the upgrade, which does not yet mean that it will send here."""

    def mark_useful(self) -> None:
        """Learn that a message came that the connection is there for; this happens often."""

    def connection_ended(self, ending: Ending) -> None:
        """Learn that the connection is gone, perhaps before it was open."""


class WatchedConnection(WholeMessages, metaclass=ABCMeta):
    """A connection to one peer, from TCP to its end; a subclass knows what its messages mean.

    ``opened_at`` is when the upgrade was accepted, None before; ``is_paused`` says whether reading is paused.
    """

    # Autobahn logs each failed handshake: a peer that is down would fill the log. The observer logs changes.
    log = txaio.make_logger(level="none")  # type: ignore[attr-defined]

    transport: Any

    def __init__(
        self,
        clock: IReactorTime,
        address: WebSocketAddress,
        settings: ConnectionSettings,
        observer: ConnectionObserver,
        account: Account | None = None,
    ) -> None:
        super().__init__()
        self._clock = clock
        # Of nobody else without one: it is never paused.
        self._account = account or FairShare(clock).of_stranger(address.host)
        self._step_begun = 0.0
        self._address = address
        self._settings = settings
        self._observer = observer
        self._handshake_timer = Timer(clock, settings.handshake_timeout_seconds, self._handshake_timed_out)
        self._ping_timer = Timer(clock, settings.ping_interval_seconds, self._ping)
        self._pong_timer = Timer(clock, settings.ping_timeout_seconds, self._pong_timed_out)
        self._blocked_timer = Timer(clock, settings.ping_timeout_seconds, self._blocked_too_long)
        self._close_timer = Timer(clock, settings.close_timeout_seconds, self._abort)
        # These end when a close begins; a subclass adds its own.
        self._watch_timers = [self._ping_timer, self._pong_timer]
        self._ending: Ending | None = None
        self._has_ended = False
        self._is_blocked = False
        self._frames = 0
        self._pings, self._pings_since = 0, 0.0
        self.is_paused = False
        self._ended: Waiters[None] = Waiters()
        self.opened_at: float | None = None
        self._heard_at = 0.0

    # What a subclass adds.

    @abstractmethod
    def message_received(self, payload: bytes) -> None:
        """Handle a message; the bytes of a text message are valid UTF-8."""

    def must_pause(self) -> bool:
        """Return whether reading has to pause: here, while the peer reads nothing, or others are to have their turn."""
        return self._is_blocked or self._account.is_paused

    def reading_resumed(self) -> None:
        """Learn that reading goes on after a pause."""

    # What the client calls.

    def end(self, reason: str, *, is_planned: bool = False, cause: Cause = Cause.CLOSED_BY_DAPI) -> Deferred[None]:
        """Close the connection, within ``close_timeout_seconds`` whatever the peer does.

        ``connection_ended`` gets these in an Ending, unless the connection is ending already. Fires, with None,
        when the connection is gone.
        """
        if self._has_ended:
            return succeed(None)
        ended = self._ended.wait()
        self._record_ending(Ending(False, reason, is_planned, cause=cause))
        if self.state == self.STATE_OPEN:
            self.sendClose(1000, reason)
        elif self.state == self.STATE_CONNECTING:
            self._abort()
        return ended

    def end_abuse(self, reason: str) -> None:
        """Close with 1008, because the peer floods us; the next connection comes later than after other endings.

        What has come is dropped, and nothing more is read, not even the answer to the close: Autobahn would take a
        tenth of a second for 64 KiB of small frames.
        """
        if self.state == self.STATE_OPEN:
            self.is_deaf = True
            self._fail_connection(POLICY_VIOLATION, reason)
            self.data = b""
            self.transport.pauseProducing()

    # The handshake.

    def connectionMade(self) -> None:
        """Begin the handshake; its time, TLS included, is bounded from here on."""
        self._handshake_timer.start()
        self._account.join(self._share_changed)
        super().connectionMade()
        self._observer.connection_made(self)

    def onConnecting(self, _transport_details: object) -> Any:
        """Return a Deferred of the request: Autobahn's own has no brackets around an IPv6 address."""
        return Deferred.fromCoroutine(self._connecting_request())

    async def _connecting_request(self) -> ConnectingRequest:
        file = self._settings.headers
        try:
            headers = await file.read_on_thread(self._clock) if file is not None else {}
        except ConfigError as error:
            self._record_ending(Ending(False, str(error), cause=Cause.CONNECT))
            raise
        return ConnectingRequest(
            host=self._address.host_header,
            port=self._address.port,
            resource=self._address.resource,
            headers=headers,
            useragent=self.factory.useragent,
        )

    def processHandshake(self) -> None:  # noqa: N802
        """Read the answer to the upgrade, but refuse first what would raise in Autobahn."""
        head, end, _rest = self.data.partition(b"\r\n\r\n")
        if end and not _is_utf8(head):
            self.failHandshake("not even text")
            return
        super().processHandshake()

    def failHandshake(self, reason: str) -> None:
        """Record why the upgrade was refused (Autobahn has it in the text only), then drop the connection."""
        self._record_ending(refused_upgrade(getattr(self, "http_status_line", ""), reason))
        super().failHandshake(reason)

    def onOpen(self) -> None:
        """Begin to watch the open connection."""
        self._handshake_timer.cancel()
        self.forget_handshake()
        self.opened_at = self._clock.seconds()
        self.transport.registerProducer(WriteGuard(self._set_blocked), True)
        self._ping_timer.start()
        self._observer.connection_opened()

    def _handshake_timed_out(self) -> None:
        seconds = self._settings.handshake_timeout_seconds
        self._record_ending(no_answer(f"no answer to the upgrade within {seconds:g} s"))
        self._abort()

    # Messages.

    def dataReceived(self, data: bytes) -> None:
        """Any data shows that the peer is alive: a pong may stand behind a long message."""
        if self.is_deaf:
            return
        self._pong_timer.cancel()
        self._heard_at = self._clock.seconds()
        self._step_begun = self._account.begin_step()
        # What is left out of Autobahn's dataReceived are the words of a log line.
        self._dataReceived(data)
        self._account.end_step(self._step_begun)
        if len(self.data) > _MAX_UNPARSED_BYTES and not self._is_held:
            # A header without an end, or what follows a refused compressed message: Autobahn would keep all of it.
            self._record_ending(no_websocket(self.opened_at is None, "the node sends what is no WebSocket"))
            self._abort()

    def processData(self) -> bool:  # noqa: N802
        """Take the next part of what has come, unless others are to have their turn first."""
        self._step_begun = self._account.go_on(self._step_begun)
        return not self._is_held and bool(super().processData())

    def may_handle_more(self) -> bool:
        """Return whether the next whole message may be handled now: not where others are to have their turn."""
        self._step_begun = self._account.go_on(self._step_begun)
        return super().may_handle_more() and not self._account.is_paused

    @property
    def _is_held(self) -> bool:
        # A close has to be heard, paused or not.
        return self._account.is_paused and self.state == self.STATE_OPEN

    def _share_changed(self) -> None:
        self._update_reading()
        if self.data and self.opened_at is not None and not self._is_held:
            self._step_begun = self._account.begin_step()
            self.consumeData()
            self._account.end_step(self._step_begun)

    def send_text(self, payload: bytes) -> None:
        """Send a text message, uncompressed; nothing once a close has begun.

        A short one is written as a frame that is made here. Autobahn makes frames with several calls into C, at each of
        which a busy thread may take the interpreter's lock, and makes up a log line that nobody reads.
        """
        if self.state != self.STATE_OPEN:
            return
        if len(payload) <= MAX_SHORT_BYTES:
            self._send_short(TEXT, payload)
        else:
            self.sendMessage(payload, isBinary=False, doNotCompress=True)

    def onMessageBegin(self, isBinary: bool) -> None:  # noqa: N803
        """Count the frames of each message."""
        self._frames = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        """Refuse a message of too many frames: the smallest ones cost a hundred times what they hold."""
        self._frames += 1
        if self._frames > self._settings.max_frames and not self.failedByMe:
            self.end_abuse(f"a message of more than {self._settings.max_frames} frames")
        super().onMessageFrameBegin(length)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        """Handle a message, text or binary."""
        if not isBinary and not _is_utf8(payload):
            self._invalid_payload("a text message is no valid UTF-8")
            return
        self.message_received(payload)

    def onPing(self, payload: bytes) -> None:
        """Answer a ping, unless they flood us."""
        now = self._clock.seconds()
        if now - self._pings_since > _PING_SECONDS:
            self._pings, self._pings_since = 0, now
        self._pings += 1
        if self._pings > self._settings.max_pings:
            self.end_abuse(f"more than {self._settings.max_pings} pings within {_PING_SECONDS:g} s")
            return
        if self.state == self.STATE_OPEN:
            self._send_short(PONG, payload)

    def _send_short(self, kind: int, payload: bytes) -> None:
        self.transport.write(short_frame(kind, payload, self.factory.masks.next()))

    def _update_reading(self) -> None:
        is_open = self.state == self.STATE_OPEN
        should_pause = is_open and self.must_pause()
        if self._has_ended or should_pause == self.is_paused:
            return
        self.is_paused = should_pause
        if should_pause:
            # A pong that is not read must not end a healthy connection.
            self._ping_timer.cancel()
            self._pong_timer.cancel()
            self.transport.pauseProducing()
            return
        self.reading_resumed()
        if is_open:
            self._ping_timer.start()
        self.transport.resumeProducing()

    def _set_blocked(self, is_blocked: bool) -> None:
        """Record whether the peer leaves what we send unread: then nothing is read from it, so nothing grows."""
        self._is_blocked = is_blocked
        if is_blocked:
            self._blocked_timer.start()
        else:
            self._blocked_timer.cancel()
        self._update_reading()

    # Dead connections.

    def _ping(self) -> None:
        """Ping a peer that was quiet for long enough. One that pings us that often need not be pinged, too."""
        seconds = self._settings.ping_interval_seconds
        quiet_seconds = self._clock.seconds() - self._heard_at
        if quiet_seconds < seconds - _PING_MARGIN_SECONDS:
            self._ping_timer.start(seconds - quiet_seconds + _PING_MARGIN_SECONDS)
            return
        self._send_short(PING, b"")
        if not self._pong_timer.is_running:
            self._pong_timer.start()
        self._ping_timer.start()

    def _pong_timed_out(self) -> None:
        self.end(f"no answer to a ping within {self._settings.ping_timeout_seconds:g} s", cause=Cause.NO_PONG)

    def _blocked_too_long(self) -> None:
        reason = f"the node read nothing for {self._settings.ping_timeout_seconds:g} s"
        self._record_ending(Ending(False, reason, cause=Cause.NOT_READING))
        self._abort()

    # The end.

    def sendCloseFrame(  # noqa: N802
        self,
        code: int | None = None,
        reasonUtf8: bytes | None = None,  # noqa: N803
        isReply: bool = False,  # noqa: N803
    ) -> None:
        """Send a close frame: ours, Autobahn's (1002, 1007, 1009), or the answer to the peer's."""
        if self.state == self.STATE_OPEN:
            if isReply:
                self._record_ending(ended_by_peer(self.remoteCloseCode, self.remoteCloseReason))
            else:
                self._record_ending(ended_by_us(code, (reasonUtf8 or b"").decode(), self._settings.max_message_bytes))
            for timer in self._watch_timers:
                timer.cancel()
            self._close_timer.start()
        super().sendCloseFrame(code, reasonUtf8, isReply)
        # The peer's answer has to be read, paused or not.
        self._update_reading()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop all timers, then tell the observer, then those that wait for the end."""
        self._has_ended = True
        self._account.leave(self._share_changed)
        for timer in (*self._watch_timers, self._handshake_timer, self._blocked_timer, self._close_timer):
            timer.cancel()
        ending = self._ending or (lost(reason) if self.opened_at is not None else ended_before_answer(reason))
        # Some TLS errors raise in Autobahn, which needs the reason for its log lines only.
        super().connectionLost(connectionDone)
        self._observer.connection_ended(ending)
        self._ended.fire(None)

    def _record_ending(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending

    def _abort(self) -> None:
        if not self._has_ended:
            self.transport.abortConnection()


def _is_utf8(data: bytes) -> bool:
    # Both run in C, the first without a copy.
    if data.isascii():
        return True
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
