"""Registers the nodes of the configuration file, as soon as the database takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.broker.broker import Broker
from dapi.broker.nodes import NodeConfig
from dapi.errors import NotReadyError, StoreBusyError
from dapi.timing.log_limits import SayOnce
from dapi.timing.retry import RetryDelay, retry


class NodeRegistration(Service):
    """Registers ``configs`` after each start, for as long as it takes, and then calls ``when_registered``."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        broker: Broker,
        configs: Sequence[NodeConfig],
        when_registered: Callable[[], object],
        random: Random,
    ) -> None:
        self._reactor = reactor
        self._broker = broker
        self._configs = configs
        self._when_registered = when_registered
        self._retry_delay = RetryDelay(random)
        self._problem = SayOnce()
        self._registering: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Begin to register."""
        super().startService()  # type: ignore[no-untyped-call]
        self._registering = Deferred.fromCoroutine(self._register())
        self._registering.addErrback(self._log_failure)

    def stopService(self) -> None:
        """Give up what is not registered yet."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._registering.cancel()

    async def _register(self) -> None:
        await retry(
            self._reactor,
            lambda: self._broker.register_missing(self._configs),
            errors=(NotReadyError, StoreBusyError),
            delay=self._retry_delay,
            on_error=self._log_problem,
        )
        self._when_registered()

    def _log_problem(self, error: Exception) -> None:
        if self._problem.is_new(str(error)):
            self.log.error("the configured nodes are not registered yet: {error}", error=str(error))

    def _log_failure(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("the configured nodes cannot be registered", failure)
