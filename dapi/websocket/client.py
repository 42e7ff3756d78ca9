"""A WebSocket that is kept open: after each interruption it is tried again, 3 to 5 s later.

The states of a SupervisedWebSocket::

    STOPPED ──start──▶ SETTLING ──settled──▶ CONNECTING ──opened──▶ OPEN
       ▲                  ▲                   ▲     │                 │
     closed             closed               delay  │                 │
       │                  │                  over   │ failed          │ ended
       │                  │                   │     ▼                 ▼
    STOPPING          RESTARTING             WAITING or REFUSED ◀─────┘
       ▲                  ▲
      stop         start, restart            from each state but STOPPED, also from each other

``_keep_open`` is the loop from SETTLING to RESTARTING. Within it a ClientService connects, and connects again after
each delay: it asks ``_connect`` for each attempt and ``_choose_delay`` for each delay. It takes TCP as success, so the
connection reports by the methods of ConnectionObserver (docs/protocol/measured.md, 'Twisted').
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, Generic, TypeVar

import msgspec
from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dapi.timing.clock import unix_seconds
from dapi.timing.retry import RetryDelay
from dapi.timing.steps import step
from dapi.timing.timer import Timer
from dapi.timing.waiters import Waiters
from dapi.websocket.address import WebSocketAddress, websocket_endpoint
from dapi.websocket.factory import WatchedConnectionFactory
from dapi.websocket.journal import ConnectionJournal
from dapi.websocket.protocol import WatchedConnection
from dapi.websocket.reasons import Cause, Ending, failed_attempt
from dapi.websocket.settings import ConnectionSettings

C = TypeVar("C", bound=WatchedConnection)

_STEADY_SECONDS = 2.0
# After so many connections in a row that were ended as abuse, the delay doubles no more: it is 3 to 5 minutes then.
_MAX_DOUBLINGS = 6
_STARTED_AFRESH: Final = "started afresh"


class WebSocketState(enum.StrEnum):
    """What a status shows of a client's state."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    REFUSED = "refused"


class _State(enum.Enum):
    """The states that are drawn at the top; ``_NEXT`` has their transitions."""

    STOPPED = enum.auto()
    SETTLING = enum.auto()
    """The last connection is gone; the peer gets ``settle_seconds`` to notice."""
    CONNECTING = enum.auto()
    """From DNS to the answer to the upgrade."""
    OPEN = enum.auto()
    WAITING = enum.auto()
    REFUSED = enum.auto()
    """Waiting, because the peer answered and did not accept."""
    RESTARTING = enum.auto()
    """What there is of a connection closes; a new one follows."""
    STOPPING = enum.auto()
    """What there is of a connection closes; none follows."""

    @property
    def shown(self) -> WebSocketState:
        return _SHOWN.get(self) or WebSocketState[self.name]


_SHOWN = {
    _State.SETTLING: WebSocketState.WAITING,
    _State.RESTARTING: WebSocketState.WAITING,
    _State.STOPPING: WebSocketState.STOPPED,
}
_CLOSING = frozenset({_State.RESTARTING, _State.STOPPING})
_NEXT = {
    _State.STOPPED: {_State.SETTLING},
    _State.SETTLING: {_State.CONNECTING, *_CLOSING},
    _State.CONNECTING: {_State.OPEN, _State.WAITING, _State.REFUSED, *_CLOSING},
    _State.OPEN: {_State.WAITING, _State.REFUSED, *_CLOSING},
    _State.WAITING: {_State.CONNECTING, *_CLOSING},
    _State.REFUSED: {_State.CONNECTING, *_CLOSING},
    _State.RESTARTING: {_State.SETTLING, *_CLOSING},
    _State.STOPPING: {_State.STOPPED, *_CLOSING},
}


class ConnectionTrouble(msgspec.Struct, frozen=True):
    """Why there has been no connection that lasted, since a time (unix seconds): ``reason`` in words, and as data.

    ``code`` is the peer's HTTP status, or that of a close frame; ``names`` are those in its certificate.
    """

    cause: Cause
    reason: str
    since: float
    code: int | None = None
    names: list[str] = []


class ConnectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a client is doing. Times are unix seconds.

    ``waiting`` and ``refused`` (the peer answered, and did not accept) both try again at ``until``, which is None
    while an old connection is still closing. ``reason`` says why there is no connection, and stays during the next
    attempt; ``since`` is when that reason, or the open connection, began. ``connections`` counts the upgrades that
    were accepted. ``trouble`` is why the last connection ended, or failed, until one has lasted for 2 s or is useful;
    None after one that was ended as planned.
    """

    state: WebSocketState
    reason: str | None
    since: float
    until: float | None
    connections: int
    trouble: ConnectionTrouble | None = None


class SupervisedWebSocket(Service, Generic[C], ABC):
    """Keeps one WebSocket open for as long as the service runs: to the first of ``addresses`` that works.

    Each interruption is followed by a delay, uniform in 3 to 5 s by default, for ever; after each connection in a row
    that had to be ended as abuse, twice as long as the time before, up to 64 times. After an attempt that brought
    nothing useful the next address is tried, after a useful connection the first one. Only the first attempt after
    ``startService`` or ``restart`` comes without a delay (but ``settle_seconds`` after the end of an older connection).

    ``name`` begins each log line, ``random`` gives the delays. Clients may share a ``factory``. ConfigError when an
    address or ``settings.ca_file`` cannot be used. ``interruptions`` counts by their ``Ending.label`` the attempts that
    failed and the connections that ended by themselves.
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
        factory: WatchedConnectionFactory | None = None,
    ) -> None:
        self._clock = reactor
        self._name = name
        self._addresses = addresses
        self._endpoints = [websocket_endpoint(reactor, address, settings) for address in addresses]
        shared = factory or WatchedConnectionFactory(reactor)
        self._factory = shared.of_client(lambda: self.make_connection(self._address))
        self._index = 0
        self._is_useful = False
        self._abuses = 0
        self._connection: C | None = None
        self._closed_at = float("-inf")
        self._settle_seconds = settings.settle_seconds
        self._delay = RetryDelay(random, settings.retry_min_seconds, settings.retry_max_seconds)
        self._journal = ConnectionJournal(name)
        # A node may accept and close right after: not worth a line.
        self._steady = Timer(reactor, _STEADY_SECONDS, self._has_lasted)
        self._trouble: ConnectionTrouble | None = None
        self._state = _State.STOPPED
        self.interruptions: Counter[str] = Counter()
        self._status = ConnectionStatus(
            state=WebSocketState.STOPPED, reason=None, since=reactor.seconds(), until=None, connections=0
        )
        # The loop waits for the first; those who stop the service for the second.
        self._changed: Waiters[None] = Waiters()
        self._closed: Waiters[None] = Waiters()

    # What a subclass adds.

    @abstractmethod
    def make_connection(self, address: WebSocketAddress) -> C:
        """Make the protocol of the next connection, with this client as its observer."""

    def record_failure(self, reason: str) -> None:
        """Record why an attempt failed or a connection ended by itself."""

    def choose_address(self, index: int, *, was_useful: bool) -> int:
        """Return which of the addresses is next after the one with this index, which was useful or not."""
        return 0 if was_useful else (index + 1) % len(self._addresses)

    # What its owner calls.

    def startService(self) -> None:
        """Connect, and stay connected from now on."""
        if not self.running:
            self.restart()

    def restart(self) -> None:
        """Connect afresh: close what is open, wait until it is closed and the peer has noticed, then connect at once.

        Starts the service when it is stopped.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._abuses = 0
        self._journal.begin_anew()
        self._trouble = None
        if self._state is _State.STOPPED:
            Deferred.fromCoroutine(self._keep_open()).addErrback(self._loop_broke)
            return
        nothing_to_close = self._connection is None and self._state not in (_State.SETTLING, *_CLOSING)
        self._enter(_State.RESTARTING, self._status.reason if nothing_to_close else _STARTED_AFRESH)
        self._changed.fire(None)

    def connect_now(self) -> bool:
        """Have the next attempt at once where one is waited for; return whether one was."""
        is_waiting = self._state in (_State.WAITING, _State.REFUSED)
        if is_waiting:
            self.restart()
        return is_waiting

    def stopService(self) -> Deferred[None]:
        """Close and stay closed; harmless when it is stopped.

        Fires, with None, when no connection, no attempt and no delayed call is left: at once, or after
        ``close_timeout_seconds`` when the peer does not answer the close.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._trouble = None
        if self._state is _State.STOPPED:
            return succeed(None)
        closed = self._closed.wait()
        self._enter(_State.STOPPING, None)
        self._changed.fire(None)
        return closed

    def connection_status(self) -> ConnectionStatus:
        """Return what it is doing."""
        until, trouble = self._status.until, self._trouble
        return msgspec.structs.replace(
            self._status,
            since=unix_seconds(self._clock, self._status.since),
            until=None if until is None else unix_seconds(self._clock, until),
            trouble=trouble and msgspec.structs.replace(trouble, since=unix_seconds(self._clock, trouble.since)),
        )

    # The loop.

    async def _keep_open(self) -> None:
        while self.running:
            await self._settle()
            if self._state is _State.SETTLING:
                await self._stay_connected()
            # Also when a start has followed the stop: the connection that was stopped is gone.
            self._closed.fire(None)
        self._enter(_State.STOPPED, None)
        self._closed.fire(None)

    async def _settle(self) -> None:
        """Wait until ``settle_seconds`` after the last connection, or until the state changes."""
        now = self._clock.seconds()
        until = self._closed_at + self._settle_seconds
        if until <= now:
            self._enter(_State.SETTLING, self._status.reason)
            return
        self._enter(_State.SETTLING, self._status.reason or _STARTED_AFRESH, until)
        timer = Timer(self._clock, until - now, lambda: self._changed.fire(None))
        timer.start()
        await self._changed.wait()
        timer.cancel()

    async def _stay_connected(self) -> None:
        """Connect, and connect again after each interruption, until a restart or a stop; then close."""
        supervisor = _Supervisor(
            _Endpoint(self._connect), self._factory, retryPolicy=self._choose_delay, clock=self._clock
        )
        supervisor.startService()
        while self._state not in _CLOSING:
            await self._changed.wait()
        if self._connection is not None:
            await self._connection.end("stopped" if self._state is _State.STOPPING else _STARTED_AFRESH)
        await supervisor.stopService()

    def _loop_broke(self, failure: Failure) -> None:
        self.log.failure("{name}: WebSocket defect", failure, name=self._name)
        # The next start or restart begins a new loop.
        self._state = _State.STOPPED
        self._closed.fire(None)

    # What the supervisor calls.

    def _connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self._enter(_State.CONNECTING, self._status.reason)
        self._is_useful = False
        return self._endpoints[self._index].connect(factory).addErrback(self._attempt_failed)

    def _attempt_failed(self, failure: Failure) -> Failure:
        # An attempt that was given up fails too.
        if self._state is _State.CONNECTING:
            self._fail(_State.WAITING, failed_attempt(failure))
        return failure

    def _choose_delay(self, _failed_attempts: int) -> float:
        delay: float = self._delay() * 2 ** min(self._abuses, _MAX_DOUBLINGS)
        self._status = msgspec.structs.replace(self._status, until=self._clock.seconds() + delay)
        return delay

    # What the connection calls.

    def connection_made(self, connection: C) -> None:
        """Remember the connection from TCP on: it has to be closed, too."""
        self._connection = connection

    def connection_opened(self) -> None:
        """Record that the peer accepted the upgrade."""
        self._enter(_State.OPEN, None)
        self._steady.start()

    def mark_useful(self) -> None:
        """Record that the connection is useful, so that whatever happens to it next is logged again."""
        self._is_useful = True
        self._trouble = None
        self._journal.useful(self._address)

    def connection_ended(self, ending: Ending) -> None:
        """Record why a connection ended; right after this the supervisor chooses the delay."""
        self._connection = None
        self._abuses = self._abuses + 1 if ending.is_abuse else 0
        self._closed_at = self._clock.seconds()
        if self._state not in _CLOSING:
            state = _State.REFUSED if ending.is_refusal else _State.WAITING
            self._fail(state, ending)

    # The state.

    @property
    def _address(self) -> WebSocketAddress:
        return self._addresses[self._index]

    def _has_lasted(self) -> None:
        self._trouble = None
        self._journal.opened(self._address)

    def _fail(self, state: _State, ending: Ending) -> None:
        reason = ending.reason
        self._enter(state, reason)
        self.interruptions[ending.label] += 1
        self.record_failure(reason)
        if ending.is_planned:
            self._trouble = None
            self._journal.replaced(self._address, reason)
        else:
            since = self._clock.seconds() if self._trouble is None else self._trouble.since
            self._trouble = ConnectionTrouble(ending.cause, reason, since, ending.code, [*ending.names])
            self._journal.failed(self._address, reason)
        self._index = self.choose_address(self._index, was_useful=self._is_useful)

    def _enter(self, state: _State, reason: str | None, until: float | None = None) -> None:
        step(_NEXT, self._state, state, "a WebSocket")
        self._steady.cancel()
        before, shown = self._status, state.shown
        # An attempt in between does not make a reason a new one.
        is_new = shown is not before.state if reason is None else reason != before.reason
        self._state = state
        self._status = ConnectionStatus(
            state=shown,
            reason=reason,
            since=self._clock.seconds() if is_new else before.since,
            until=until,
            connections=before.connections + (state is _State.OPEN),
        )


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Hands each attempt of the supervisor to the client."""

    def __init__(self, connect: Callable[[IProtocolFactory], Deferred[IProtocol]]) -> None:
        self.connect = connect


class _Supervisor(ClientService):
    """A ClientService that does not log each of its retries."""

    _log = Logger(observer=lambda _event: None)  # type: ignore[arg-type]
