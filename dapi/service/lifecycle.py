"""Starts and stops everything, in order."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.config import Config
from dapi.diagnosis.problem import Problem
from dapi.diagnosis.watch import ProblemWatch
from dapi.errors import NotReadyError, StartError, StoreBusyError, StoreError
from dapi.outbox.losses import losses
from dapi.server.metric_families import Snapshot
from dapi.service.assembly import Parts
from dapi.service.metric_source import MetricSource
from dapi.service.status import NO_CHAIN, ServiceStatus
from dapi.timing.clock import follows_wall_clock
from dapi.timing.log_levels import LogLevels
from dapi.timing.log_limits import SayOnce
from dapi.timing.retry import RetryDelay, retry
from dapi.timing.waiters import Waiters


def make_service(
    config: Config,
    reactor: Any = None,
    *,
    on_broken: Callable[[str], object] | None = None,
    on_registered: Callable[[], object] = lambda: None,
    random: random_module.Random | None = None,
    log_levels: LogLevels | None = None,
) -> DapiService:
    """Return dapi as one service, stopped; several of them may run in one process, each with its own ports and file.

    ``reactor`` is the global one by default. ``on_broken`` is called once, with the reason, when nothing can be stored
    any more (a failed fsync, a corrupt file): the service then refuses everything, and its process should end and start
    anew; by default it is only logged. ``on_registered`` is called at each start, when the configured nodes are
    registered. ``random`` gives the delays between retries. ``log_levels`` are those that the admin API may change,
    where this process writes a log. Raises ConfigError or StartError when the key that signs, or the file of
    authorities, cannot be used.
    """
    if reactor is None:
        from twisted.internet import reactor
    random = random or random_module.Random()  # noqa: S311 - delays are no secrets
    return DapiService(
        reactor,
        config,
        on_broken=on_broken or (lambda reason: None),
        on_registered=on_registered,
        random=random,
        log_levels=log_levels,
    )


class DapiService(MultiService):
    """Owns everything that runs: database, callback port, broker with its workers, submitter, admin port.

    Starting opens the database and then the ports, the callbacks' first, before it returns; it waits for no chain and
    no node. It raises StartError, and leaves nothing behind, when the database must not be used or a port is busy.

    Stopping ends the intake (ports, WebSockets) and the submitting first, lets the disk write what has come, and closes
    the database. The Deferred fires when nothing is left on the reactor; it fails with the first failure of a part,
    after all the others are stopped too. After that the service can be started again.

    The parts are there from the beginning, and made anew at a second start: ``database``, ``outbox``, ``broker``,
    ``chain`` (None where none is configured), ``callback_listener``, ``admin_listener``.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: Config,
        *,
        on_broken: Callable[[str], object],
        random: random_module.Random,
        on_registered: Callable[[], object] = lambda: None,
        log_levels: LogLevels | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._config = config
        self._on_broken, self._on_registered = on_broken, on_registered
        self._make_parts = partial(
            Parts,
            reactor,
            config,
            status=self.status,
            snapshot=self._snapshot,
            on_broken=on_broken,
            on_another_chain=self._begin_afresh,
            random=random,
            log_levels=log_levels,
        )
        self._is_beginning_afresh = False
        self._started_at: float | None = None
        self._retry_delay = RetryDelay(random)
        self._registering: Deferred[None] = succeed(None)
        self._is_stopping = False
        self._stopped: Waiters[None] = Waiters()
        self._own(self._make_parts())

    def _own(self, parts: Parts) -> None:
        self._parts = parts
        self.database, self.outbox, self.broker, self.chain = parts.database, parts.outbox, parts.broker, parts.chain
        self.callback_listener, self.admin_listener = parts.callback_listener, parts.admin_listener
        self._watch = ProblemWatch(self._reactor, lambda: self._status().of_parts(), partial(losses, parts.database))
        for part in (*parts.in_starting_order, self._watch):
            part.setServiceParent(self)

    @property
    def callback_url(self) -> str:
        """The base of the callbacks, without a node's token."""
        return self._parts.callback_url()

    def status(self) -> Deferred[dict[str, Any]]:
        """Fire with what ``GET /admin/v1/status`` shows, as JSON data; see ServiceStatus and Problem."""
        return self._status().collect().addCallback(self._with_problems)

    def problems(self) -> list[Problem]:
        """Return what is wrong, the gravest first, as it was found at most a few seconds ago; costs nothing."""
        return self._watch.problems

    def _snapshot(self) -> Deferred[Snapshot]:
        return MetricSource(self._reactor, self._parts, self.problems()).snapshot()

    def _with_problems(self, status: dict[str, Any]) -> dict[str, Any]:
        problems = msgspec.to_builtins(self._watch.look(status))
        return {"problems": problems, **status, "losses": msgspec.to_builtins(self._watch.losses)}

    def _status(self) -> ServiceStatus:
        return ServiceStatus(self._reactor, self._parts, self._started_at or 0.0)

    def startService(self) -> None:
        """Start all parts, in order."""
        if self._is_stopping:
            raise StartError("dapi is still stopping: start it when the Deferred of stopService has fired")
        if self._started_at is not None:
            self._own(self._make_parts(takes_other_chain_at_once=self._is_beginning_afresh))
        self._is_beginning_afresh = False
        self._started_at = self._reactor.seconds()
        self._warn()
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except BaseException:
            undone = self.stopService()
            undone.addErrback(lambda failure: self.log.failure("undoing a failed start failed", failure))
            raise
        self._registering = Deferred.fromCoroutine(self._register_nodes())
        self._registering.addErrback(self._log_unregistered)

    def stopService(self) -> Deferred[None]:
        """Stop all parts, in order; fires with None when nothing is left, fails with a part's failure."""
        self._is_beginning_afresh = False
        return self._stop()

    def _begin_afresh(self, reason: str) -> None:
        """Stop and start again: the chain is another one, and only what the database says is to be known of it.

        If dapi cannot start again, its process should end.
        """
        if not self.running or self._is_beginning_afresh:
            return
        self.log.critical("dapi begins afresh, because the chain is another one: {reason}", reason=reason)
        self._is_beginning_afresh = True

        def start(_: object) -> None:
            # Not if it was stopped for good meanwhile.
            if self._is_beginning_afresh:
                self.startService()

        def give_up(failure: Failure) -> None:
            self.log.failure("dapi cannot begin afresh", failure)
            self._on_broken(f"it could not begin afresh: {failure.getErrorMessage()}")

        self._stop().addBoth(start).addErrback(give_up)

    def _stop(self) -> Deferred[None]:
        if not self.running:
            return self._stopped.wait() if self._is_stopping else succeed(None)
        Service.stopService(self)
        self._is_stopping = True
        stopped = self._stopped.wait()
        Deferred.fromCoroutine(self._stop_in_order()).addBoth(self._end_stop)
        return stopped

    async def _register_nodes(self) -> None:
        """Register the configured nodes, for as long as it takes; the chain drives the nodes only after that."""
        problem = SayOnce()

        def log_problem(error: Exception) -> None:
            if problem.is_new(str(error)):
                self.log.error("the configured nodes are not registered yet: {error}", error=str(error))

        await retry(
            self._reactor,
            lambda: self.broker.register_missing(self._config.nodes),
            errors=(NotReadyError, StoreBusyError),
            delay=self._retry_delay,
            on_error=log_problem,
        )
        self._on_registered()
        if self.chain is not None:
            self.chain.drive_nodes()

    def _log_unregistered(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("the configured nodes cannot be registered", failure)

    async def _stop_in_order(self) -> None:
        self._registering.cancel()
        started = [part for part in self if part.running]
        # On a slow disk one commit after the other would hold up the stop.
        self.database.commit_together()
        self.outbox.commit_at_once()
        failures = await self._stop_parts([part for part in reversed(started) if part is not self.database])
        if self.database in started:
            await self._drain()
            failures += await self._stop_parts([self.database])
        for part in list(self):
            part.disownServiceParent()
        if failures:
            failures[0].raiseException()

    def _end_stop(self, result: Failure | None) -> None:
        self._is_stopping = False
        self._stopped.fire(result)

    async def _stop_parts(self, parts: Sequence[IService]) -> list[Failure]:
        """Stop parts side by side; return the failures, logged."""
        failures = []
        for part, stopping in [(part, maybeDeferred(part.stopService)) for part in parts]:
            try:
                await stopping
            except Exception:  # noqa: BLE001 - the others have to be stopped all the same
                failures.append(Failure())
                self.log.failure("{part} did not stop properly", part=type(part).__name__)
        return failures

    async def _drain(self) -> None:
        """Wait until the disk has, or has refused, what came before the intake ended."""
        while self.database.running and self.outbox.status()["pending_bytes"]:
            await deferLater(self._reactor, 0)
            try:
                await self.database.write(lambda connection: None)
            except StoreError:
                # Refused to the outbox too, which tells those who wait.
                return

    def _warn(self) -> None:
        if self.chain is None:
            self.log.warn("{problem}", problem=NO_CHAIN)
        if follows_wall_clock(self._reactor):
            self.log.warn(
                "the reactor waits by the wall clock: when that is set back, everything waits longer; call "
                "dapi.timing.clock.make_monotonic(reactor) first"
            )
