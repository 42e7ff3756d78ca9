"""One WebSocket connection: Autobahn speaks the protocol, this keeps it honest about time and memory.

Autobahn's own timers are off (they floor to whole seconds and run on a process-wide loop), so is its UTF-8 check
(40 % of the receive path); both are done here. What a connection ended for is remembered when it is decided: after a
close handshake Autobahn reports the peer's echo.
"""

# Autobahn's methods have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from abc import ABCMeta, abstractmethod
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

from dapi.timing.timer import Timer
from dapi.websocket.address import WebSocketAddress
from dapi.websocket.reasons import (
    Ending,
    ended_before_answer,
    ended_by_node,
    ended_by_us,
    lost,
    refused_upgrade,
)
from dapi.websocket.settings import ConnectionSettings

_MAX_UNPARSED_BYTES = 64 * 1024


class ConnectionObserver(Protocol):
    """Who wants to know of the connections to a node; all but ``came_of_use`` once for each, in this order."""

    def connection_made(self, connection: Any) -> None:
        """Hear that TCP is connected; TLS and the upgrade are still to come."""

    def connection_opened(self) -> None:
        """Hear that the node accepted the upgrade, which does not yet mean that it will send here."""

    def came_of_use(self) -> None:
        """Hear that what the connection is there for came over it; this one comes often."""

    def connection_ended(self, ending: Ending) -> None:
        """Hear that it is gone; ``connection_opened`` may never have come."""


class WatchedConnection(WebSocketClientProtocol, metaclass=ABCMeta):
    """A connection to one node, from TCP to its end; what its messages are for is a subclass's business.

    ``opened_at`` is when the upgrade was accepted, None before.
    """

    # Autobahn logs each failed handshake: a node that is down would fill the log. What matters goes to the observer,
    # which logs changes.
    log = txaio.make_logger(level="none")  # type: ignore[attr-defined]

    # Autobahn looks at its own option before it has it from the factory, and then does without: a small message would
    # wait, up to 40 ms, until the node's TCP confirms the one before.
    tcpNoDelay = True  # noqa: N815

    transport: Any

    def __init__(
        self,
        clock: IReactorTime,
        address: WebSocketAddress,
        settings: ConnectionSettings,
        observer: ConnectionObserver,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._address = address
        self._settings = settings
        self._observer = observer
        self._handshake_timer = Timer(clock, settings.handshake_timeout_seconds, self._handshake_timed_out)
        self._ping_timer = Timer(clock, settings.ping_interval_seconds, self._ping)
        self._pong_timer = Timer(clock, settings.ping_timeout_seconds, self._pong_timed_out)
        self._blocked_timer = Timer(clock, settings.ping_timeout_seconds, self._blocked_too_long)
        self._close_timer = Timer(clock, settings.close_timeout_seconds, self._abort)
        # Those that end when a close begins; a subclass adds its own.
        self._watch_timers = [self._ping_timer, self._pong_timer]
        self._ending: Ending | None = None
        self._has_ended = False
        self._is_blocked = False
        self._is_paused = False
        self._when_ended: list[Deferred[None]] = []
        self.opened_at: float | None = None

    # What a subclass adds.

    @abstractmethod
    def take(self, payload: bytes) -> None:
        """Take a message; a text message's bytes are valid UTF-8."""

    def must_pause(self) -> bool:
        """Tell whether nothing more should be read for now: here, when the node does not read what we send."""
        return self._is_blocked

    def reading_resumed(self) -> None:
        """Hear that reading goes on after a pause."""

    # What the client asks of it.

    @property
    def is_paused(self) -> bool:
        """Tell whether reading is paused."""
        return self._is_paused

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
        self.opened_at = self._clock.seconds()
        self.transport.registerProducer(_WriteGuard(self._set_blocked), True)
        self._ping_timer.start()
        self._observer.connection_opened()

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
        """Take a message, text or binary."""
        if not isBinary and not _is_utf8(payload):
            self._invalid_payload("a text message is no valid UTF-8")
            return
        self.take(payload)

    def _update_reading(self) -> None:
        is_open = self.state == self.STATE_OPEN
        should_pause = is_open and self.must_pause()
        if self._has_ended or should_pause == self._is_paused:
            return
        self._is_paused = should_pause
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
        """Note that the node (no longer) leaves what we send unread: then nothing is read from it, so nothing grows."""
        self._is_blocked = is_blocked
        if is_blocked:
            self._blocked_timer.start()
        else:
            self._blocked_timer.cancel()
        self._update_reading()

    # Dead connections.

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
            for timer in self._watch_timers:
                timer.cancel()
            self._close_timer.start()
        super().sendCloseFrame(code, reasonUtf8, isReply)
        # The answer must be read, paused or not.
        self._update_reading()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop everything, then tell: first the observer, then those that wait."""
        self._has_ended = True
        for timer in (*self._watch_timers, self._handshake_timer, self._blocked_timer, self._close_timer):
            timer.cancel()
        ending = self._ending or (lost(reason) if self.opened_at is not None else ended_before_answer(reason))
        # Autobahn stumbles over some TLS errors, and needs the reason for its log lines only.
        super().connectionLost(connectionDone)
        self._observer.connection_ended(ending)
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
