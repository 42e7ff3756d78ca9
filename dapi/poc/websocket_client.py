"""The WebSocket to one node: there whenever the node accepts it, tried again 3 to 5 s after whatever ended it."""

from __future__ import annotations

import enum
from random import Random
from typing import Any

import msgspec
from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dapi.poc.batch_handler import BatchHandler
from dapi.poc.message_intake import MessageCounts
from dapi.poc.timer import Timer
from dapi.poc.websocket_factory import WebSocketNodeFactory
from dapi.poc.websocket_protocol import WebSocketNodeProtocol
from dapi.poc.websocket_reasons import Ending, failed_attempt
from dapi.poc.websocket_settings import WebSocketSettings
from dapi.poc.websocket_url import websocket_address, websocket_endpoint


class WebSocketState(enum.StrEnum):
    """Where a WebSocketClient stands."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    REFUSED = "refused"


class WebSocketStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a WebSocketClient is doing. Times are seconds on the reactor's clock (since 1970, but in tests).

    ``waiting`` and ``refused`` (the node answered, and would not have us) both try again at ``until``, which is None
    while an old connection is still closing. ``reason`` says why there is no connection, and stays while the next try
    is on its way; ``since`` is when that reason, or the open connection, began. ``connections`` counts the upgrades
    that were accepted; the other counts are those of MessageCounts. ``last_error`` is the last thing that went wrong,
    with the connection or with a message.
    """

    state: WebSocketState
    reason: str | None
    since: float
    until: float | None
    connections: int
    messages: int
    acks: int
    bad_messages: int
    not_stored: int
    errors: int
    in_flight: int
    paused: bool
    last_error: str | None


class WebSocketClient(Service):
    """Keeps one WebSocket to one node, for as long as the service runs, and hands what comes to its BatchHandler.

    A batch is acknowledged when the handler's Deferred has fired with a receipt, on the connection that brought it,
    and only there. Every interruption is followed by a delay, uniform in 3 to 5 s by default, for ever. Only the first
    try after ``startService`` or ``restart`` comes at once (``settle_seconds`` after the end of an older connection, if
    there was one: closing the old one late makes a node forget the new one).

    ``url``: the node's PoC URL or its full WebSocket URL, see ``websocket_url``. ``random`` gives the delays.
    ConfigError when the URL or ``settings.ca_file`` cannot be used. Not promised: that a node with an open connection
    sends on it. One that does not is replaced, see WebSocketSettings; its batches come by HTTP meanwhile.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        url: str,
        handler: BatchHandler,
        *,
        node_id: str,
        random: Random,
        settings: WebSocketSettings | None = None,
    ) -> None:
        self._clock = reactor
        self._handler = handler
        self._random = random
        self._settings = settings or WebSocketSettings()
        self._address = websocket_address(url)
        self._endpoint = websocket_endpoint(
            reactor,
            self._address,
            connect_timeout_seconds=self._settings.connect_timeout_seconds,
            ca_file=self._settings.ca_file,
        )
        self.node_id = node_id
        self._counts = MessageCounts()
        self._connections = 0
        self._supervisor: ClientService | None = None
        self._connection: WebSocketNodeProtocol | None = None
        self._replaced_at = float("-inf")
        self._closed_at = float("-inf")
        # How often somebody wanted something else: what is under way finds that it was overtaken.
        self._wish = 0
        self._is_renewing = False
        self._stopping: list[Deferred[None]] = []
        self._settled: Deferred[None] | None = None
        self._settle_timer = Timer(reactor, self._settings.settle_seconds, self._end_settling)
        self._state = WebSocketState.STOPPED
        self._reason: str | None = None
        self._since: float = reactor.seconds()
        self._until: float | None = None
        # The cause that was logged last, and whether it came after an upgrade that was accepted.
        self._logged_cause: str | None = None
        self._is_flapping = False
        handler.observe_bypass(self._on_bypass)

    def startService(self) -> None:
        """Connect, and keep connected from here on."""
        if not self.running:
            super().startService()  # type: ignore[no-untyped-call]
            self._renew()

    def restart(self) -> None:
        """Connect afresh: close what is open, wait until it is closed and the node has noticed, then connect at once.

        Starts the service when it was stopped. Called after each successful init: an open connection of before may
        be dead for good.
        """
        if not self.running:
            super().startService()  # type: ignore[no-untyped-call]
        self._renew()

    def stopService(self) -> Deferred[None]:
        """Close and stay closed; harmless when it is stopped.

        Fires, with None, when no connection, no attempt and no delayed call is left: at once, or after
        ``close_timeout_seconds`` when the node does not answer the close. Messages that are with the handler by then
        are stored all the same, without an acknowledgement.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        self._enter(WebSocketState.STOPPED, None)
        self._renew()
        return stopped

    def status(self) -> WebSocketStatus:
        """Tell what it is doing, and what became of the messages since it was made."""
        connection = self._connection
        return WebSocketStatus(
            state=self._state,
            reason=self._reason,
            since=self._since,
            until=self._until,
            connections=self._connections,
            messages=self._counts.messages,
            acks=self._counts.acks,
            bad_messages=self._counts.bad_messages,
            not_stored=self._counts.not_stored,
            errors=self._counts.errors,
            in_flight=connection.in_flight if connection is not None else 0,
            paused=connection.is_paused if connection is not None else False,
            last_error=self._counts.last_error,
        )

    # Starting, stopping and starting afresh: one loop, which the last wish wins.

    def _renew(self) -> None:
        self._wish += 1
        self._end_settling()
        if not self._is_renewing:
            self._is_renewing = True
            Deferred.fromCoroutine(self._disconnect_and_connect()).addErrback(
                lambda failure: self.log.failure("{node_id}: WebSocket defect", failure, node_id=self.node_id)
            )

    async def _disconnect_and_connect(self) -> None:
        try:
            wish = None
            while wish != self._wish:
                wish = self._wish
                await self._disconnect()
                stopping, self._stopping = self._stopping, []
                for stopped in stopping:
                    stopped.callback(None)
                if self.running:
                    await self._settle()
                    if wish == self._wish:
                        self._connect()
        finally:
            self._is_renewing = False

    async def _disconnect(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        if self._connection is not None:
            if self.running:
                self._enter(WebSocketState.WAITING, "started afresh")
            await self._connection.end("started afresh" if self.running else "stopped")
        await supervisor.stopService()

    def _settle(self) -> Deferred[None]:
        left = self._closed_at + self._settings.settle_seconds - self._clock.seconds()
        if left <= 0:
            return succeed(None)
        self._enter(WebSocketState.WAITING, self._reason or "started afresh")
        self._until = self._clock.seconds() + left
        self._settle_timer.start(left)
        self._settled = Deferred()
        return self._settled

    def _end_settling(self) -> None:
        self._settle_timer.cancel()
        if self._settled is not None:
            settled, self._settled = self._settled, None
            settled.callback(None)

    def _connect(self) -> None:
        factory = WebSocketNodeFactory(self._clock, self._address, self._settings, self._make_connection)
        self._supervisor = _Supervisor(
            _WatchedEndpoint(self), factory, retryPolicy=self._choose_delay, clock=self._clock
        )
        self._supervisor.startService()

    def _make_connection(self) -> WebSocketNodeProtocol:
        return WebSocketNodeProtocol(
            self._clock, self._address, self._settings, self._handler, self._counts, observer=self
        )

    # What the supervisor asks.

    def attempt_connection(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Try once; the supervisor's endpoint calls it."""
        self._enter(WebSocketState.CONNECTING, self._reason)

        def failed(failure: Failure) -> Failure:
            if self._supervisor is not None:
                self._fail(WebSocketState.WAITING, failed_attempt(failure), is_flapping=False)
            return failure

        return self._endpoint.connect(factory).addErrback(failed)

    def _choose_delay(self, _failed_attempts: int) -> float:
        delay = self._random.uniform(self._settings.retry_min_seconds, self._settings.retry_max_seconds)
        self._until = self._clock.seconds() + delay
        return delay

    # What the connection tells.

    def connection_made(self, connection: WebSocketNodeProtocol) -> None:
        """Remember the connection from TCP on: it has to be closed, too."""
        self._connection = connection

    def connection_opened(self, _connection: WebSocketNodeProtocol) -> None:
        """Note that the node accepted the upgrade."""
        self._connections += 1
        self._enter(WebSocketState.OPEN, None)
        # A node that accepts and closes again, every 4 s, would fill the log.
        if not self._is_flapping:
            self._log_open()

    def batch_came(self) -> None:
        """Note that the connection is of use."""
        if self._is_flapping:
            self._log_open()

    def connection_ended(self, connection: WebSocketNodeProtocol, ending: Ending) -> None:
        """Note why a connection ended; the supervisor decides when to try again, right after this."""
        self._connection = None
        self._closed_at = self._clock.seconds()
        if self._supervisor is not None:
            state = WebSocketState.REFUSED if ending.is_refusal else WebSocketState.WAITING
            self._fail(state, ending.reason, is_flapping=connection.opened_at is not None)

    # What the node does elsewhere.

    def _on_bypass(self) -> None:
        connection = self._connection
        if self._supervisor is None or connection is None or not connection.is_waiting_for_batches():
            return
        now = self._clock.seconds()
        if (
            now - connection.reading_since > self._settings.bypass_grace_seconds
            and now - self._replaced_at >= self._settings.bypass_interval_seconds
        ):
            self._replaced_at = now
            connection.end("replaced: the node delivers by HTTP what it did not offer here")

    # What it says.

    def _enter(self, state: WebSocketState, reason: str | None) -> None:
        # A try in between does not make a cause a new one.
        if state != self._state if reason is None else reason != self._reason:
            self._since = self._clock.seconds()
        self._state, self._reason, self._until = state, reason, None

    def _fail(self, state: WebSocketState, reason: str, *, is_flapping: bool) -> None:
        self._enter(state, reason)
        self._counts.last_error = reason
        self._is_flapping = is_flapping
        if reason != self._logged_cause:
            self._logged_cause = reason
            self.log.warn(
                "{node_id}: no WebSocket to {address}: {reason}; trying again every few seconds",
                node_id=self.node_id,
                address=str(self._address),
                reason=reason,
            )

    def _log_open(self) -> None:
        self._logged_cause, self._is_flapping = None, False
        self.log.info("{node_id}: WebSocket to {address} is open", node_id=self.node_id, address=str(self._address))


@implementer(IStreamClientEndpoint)
class _WatchedEndpoint:
    """Lets the client see each try of its supervisor begin and fail."""

    def __init__(self, client: WebSocketClient) -> None:
        self._client = client

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        return self._client.attempt_connection(protocolFactory)


class _Supervisor(ClientService):
    """A ClientService that does not log each of its retries."""

    _log = Logger(observer=lambda _event: None)  # type: ignore[arg-type]
