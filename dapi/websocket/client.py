"""A WebSocket that is there whenever the other side accepts it, tried again 3 to 5 s after whatever ended it."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Generic, TypeVar

import msgspec
from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dapi.timing.timer import Timer
from dapi.websocket.address import WebSocketAddress, websocket_endpoint
from dapi.websocket.factory import WatchedConnectionFactory
from dapi.websocket.protocol import WatchedConnection
from dapi.websocket.reasons import Ending, failed_attempt
from dapi.websocket.settings import ConnectionSettings

C = TypeVar("C", bound=WatchedConnection)

# A cause may differ from try to try.
_LINES_WITHOUT_USE = 8


class WebSocketState(enum.StrEnum):
    """Where a client stands."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    REFUSED = "refused"


class ConnectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a client is doing. Times are seconds on the reactor's clock (since 1970, but in tests).

    ``waiting`` and ``refused`` (the node answered, and would not have us) both try again at ``until``, which is None
    while an old connection is still closing. ``reason`` says why there is no connection, and stays while the next try
    is on its way; ``since`` is when that reason, or the open connection, began. ``connections`` counts the upgrades
    that were accepted.
    """

    state: WebSocketState
    reason: str | None
    since: float
    until: float | None
    connections: int


class _Target:
    """One address, and how it is reached."""

    def __init__(
        self,
        reactor: Any,
        address: WebSocketAddress,
        settings: ConnectionSettings,
        make_connection: Callable[[WebSocketAddress], WatchedConnection],
    ) -> None:
        self.address = address
        self.endpoint = websocket_endpoint(
            reactor, address, connect_timeout_seconds=settings.connect_timeout_seconds, ca_file=settings.ca_file
        )
        self.factory = WatchedConnectionFactory(reactor, address, settings, make_connection)


class SupervisedWebSocket(Service, Generic[C], ABC):
    """Keeps one WebSocket open for as long as the service runs: to the first of ``addresses`` that works.

    Every interruption is followed by a delay, uniform in 3 to 5 s by default, for ever. A try that brought nothing of
    use is followed by one at the next address, a connection that did by one at the first. Only the first try after
    ``startService`` or ``restart`` comes at once (``settle_seconds`` after the end of an older connection, if there was
    one).

    ``name`` begins each log line, ``random`` gives the delays. ConfigError when an address or ``settings.ca_file``
    cannot be used.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[WebSocketAddress],
        *,
        name: str,
        random: Random,
        settings: ConnectionSettings,
    ) -> None:
        self._name = name
        self._clock = reactor
        self._random = random
        self._targets = [_Target(reactor, address, settings, self.make_connection) for address in addresses]
        self._tried = 0
        self._is_of_use = False
        self._connections = 0
        self._supervisor: ClientService | None = None
        self._connection: C | None = None
        self._settle_seconds = settings.settle_seconds
        self._retry_bounds = (settings.retry_min_seconds, settings.retry_max_seconds)
        self._closed_at = float("-inf")
        # How often somebody wanted something else: what is under way finds that it was overtaken.
        self._wish = 0
        self._is_renewing = False
        self._stopping: list[Deferred[None]] = []
        self._settled: Deferred[None] | None = None
        self._settle_timer = Timer(reactor, settings.settle_seconds, self._end_settling)
        self._state = WebSocketState.STOPPED
        self._reason: str | None = None
        self._since: float = reactor.seconds()
        self._until: float | None = None
        # What was logged of which address since something of use came, or since the last wish, and whether that the
        # connection is open was.
        self._logged: set[tuple[WebSocketAddress, str]] = set()
        self._is_open_logged = False

    # What a subclass adds.

    @abstractmethod
    def make_connection(self, address: WebSocketAddress) -> C:
        """Make the protocol of the next connection, with this client as its observer."""

    def note_failure(self, reason: str) -> None:
        """Hear why a try failed or a connection ended by itself."""

    # What its owner asks of it.

    def startService(self) -> None:
        """Connect, and keep connected from here on."""
        if not self.running:
            super().startService()  # type: ignore[no-untyped-call]
            self._renew()

    def restart(self) -> None:
        """Connect afresh: close what is open, wait until it is closed and the node has noticed, then connect at once.

        Starts the service when it was stopped.
        """
        if not self.running:
            super().startService()  # type: ignore[no-untyped-call]
        self._renew()

    def stopService(self) -> Deferred[None]:
        """Close and stay closed; harmless when it is stopped.

        Fires, with None, when no connection, no attempt and no delayed call is left: at once, or after
        ``close_timeout_seconds`` when the node does not answer the close.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        self._enter(WebSocketState.STOPPED, None)
        self._renew()
        return stopped

    def connection_status(self) -> ConnectionStatus:
        """Tell what it is doing."""
        return ConnectionStatus(
            state=self._state,
            reason=self._reason,
            since=self._since,
            until=self._until,
            connections=self._connections,
        )

    # Starting, stopping and starting afresh: one loop, which the last wish wins.

    def _renew(self) -> None:
        self._wish += 1
        self._logged.clear()
        if self.running and (self._is_renewing or self._connection is not None):
            self._enter(WebSocketState.WAITING, "started afresh")
        if self._is_renewing:
            self._end_settling()
            return
        self._is_renewing = True
        Deferred.fromCoroutine(self._disconnect_and_connect()).addErrback(
            lambda failure: self.log.failure("{name}: WebSocket defect", failure, name=self._name)
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
            await self._connection.end("started afresh" if self.running else "stopped")
        await supervisor.stopService()

    def _settle(self) -> Deferred[None]:
        left = self._closed_at + self._settle_seconds - self._clock.seconds()
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
        self._supervisor = _Supervisor(
            _WatchedEndpoint(self), _CurrentFactory(self), retryPolicy=self._choose_delay, clock=self._clock
        )
        self._supervisor.startService()

    # What the supervisor asks.

    def attempt_connection(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Try once; the supervisor's endpoint calls it."""
        self._enter(WebSocketState.CONNECTING, self._reason)
        self._is_of_use = False

        def failed(failure: Failure) -> Failure:
            if self._supervisor is not None:
                self._fail(WebSocketState.WAITING, failed_attempt(failure))
            return failure

        return self._target.endpoint.connect(factory).addErrback(failed)

    def build_protocol(self, peer: object) -> WatchedConnection:
        """Make the protocol of a try that has reached somebody; the supervisor's factory calls it."""
        return self._target.factory.buildProtocol(peer)

    @property
    def _target(self) -> _Target:
        return self._targets[self._tried % len(self._targets)]

    def _choose_delay(self, _failed_attempts: int) -> float:
        delay = self._random.uniform(*self._retry_bounds)
        self._until = self._clock.seconds() + delay
        return delay

    # What the connection tells.

    def connection_made(self, connection: C) -> None:
        """Remember the connection from TCP on: it has to be closed, too."""
        self._connection = connection

    def connection_opened(self) -> None:
        """Note that the node accepted the upgrade."""
        self._connections += 1
        self._enter(WebSocketState.OPEN, None)
        if self._is_news("open"):
            self._log_open()

    def came_of_use(self) -> None:
        """Note that the connection is of use, so that whatever happens to it next is worth a line again."""
        self._is_of_use = True
        if not self._is_open_logged:
            self._log_open()
        self._logged.clear()

    def connection_ended(self, ending: Ending) -> None:
        """Note why a connection ended; the supervisor decides when to try again, right after this."""
        self._connection = None
        self._closed_at = self._clock.seconds()
        if self._supervisor is not None:
            state = WebSocketState.REFUSED if ending.is_refusal else WebSocketState.WAITING
            self._fail(state, ending.reason)

    # What it says.

    def _enter(self, state: WebSocketState, reason: str | None) -> None:
        # A try in between does not make a cause a new one.
        if state != self._state if reason is None else reason != self._reason:
            self._since = self._clock.seconds()
        self._state, self._reason, self._until = state, reason, None

    def _fail(self, state: WebSocketState, reason: str) -> None:
        self._enter(state, reason)
        self.note_failure(reason)
        self._is_open_logged = False
        if self._is_news(reason):
            self.log.warn(
                "{name}: no WebSocket to {address}: {reason}; trying again every few seconds",
                name=self._name,
                address=str(self._target.address),
                reason=reason,
            )
        self._tried = 0 if self._is_of_use else self._tried + 1

    def _is_news(self, what: str) -> bool:
        """Tell whether to log it: a node that is down, or accepts and closes again every 4 s, would fill the log."""
        news = (self._target.address, what)
        if news in self._logged or len(self._logged) >= _LINES_WITHOUT_USE:
            return False
        self._logged.add(news)
        return True

    def _log_open(self) -> None:
        self._is_open_logged = True
        self.log.info("{name}: WebSocket to {address} is open", name=self._name, address=str(self._target.address))


@implementer(IStreamClientEndpoint)
class _WatchedEndpoint:
    """Lets the client see each try of its supervisor begin and fail."""

    def __init__(self, client: SupervisedWebSocket[Any]) -> None:
        self._client = client

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        return self._client.attempt_connection(protocolFactory)


class _CurrentFactory(Factory):
    """Makes the connections of a supervisor, whichever address is tried."""

    noisy = False

    def __init__(self, client: SupervisedWebSocket[Any]) -> None:
        self._client = client

    def buildProtocol(self, addr: object) -> WatchedConnection:
        return self._client.build_protocol(addr)


class _Supervisor(ClientService):
    """A ClientService that does not log each of its retries."""

    _log = Logger(observer=lambda _event: None)  # type: ignore[arg-type]
