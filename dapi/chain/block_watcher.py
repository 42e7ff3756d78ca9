"""Follows the chain's head: its height, its block time, and whether it moves at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dapi.chain.rpc_answers import ChainStatus
from dapi.errors import ChainUnavailableError

_POLL_SECONDS = 1.0
_HALTED_AFTER_SECONDS = 10.0


class StatusSource(Protocol):
    """Where the head is asked for."""

    def status(self) -> Deferred[ChainStatus]:
        """Fire with the chain's status, or fail with ChainUnavailableError."""


class BlockWatcher(Service):
    """Asks for the chain's status once a second, and tells observers of every new head.

    ``head`` is the latest status, None before the first. ``problem`` says in words why nothing should be sent now
    (not reachable, catching up, no block for 10 s), and is None while the chain moves. Freshness is counted on this
    machine's clock from the moment a new block was seen: block times and this machine's need not agree.
    """

    log = Logger()

    def __init__(self, reactor: Any, source: StatusSource, *, poll_seconds: float = _POLL_SECONDS) -> None:
        self.head: ChainStatus | None = None
        self._reactor = reactor
        self._source = source
        self._poll_seconds = poll_seconds
        self._observers: list[Callable[[], None]] = []
        self._unreachable: str | None = "not asked yet"
        self._moved_at = reactor.seconds()
        self._told: str | None = None
        self._following: Deferred[None] = succeed(None)

    @property
    def problem(self) -> str | None:
        """Why the chain takes nothing now, or None."""
        if self._unreachable is not None:
            return self._unreachable
        if self.head is None or self.head.catching_up:
            return "catching up"
        quiet_seconds = self._reactor.seconds() - self._moved_at
        if quiet_seconds > _HALTED_AFTER_SECONDS:
            return f"halted: no block for {quiet_seconds:.0f} s"
        return None

    def observe(self, observer: Callable[[], None]) -> None:
        """Have ``observer`` called at every new head."""
        self._observers.append(observer)

    def startService(self) -> None:
        """Begin to follow."""
        super().startService()  # type: ignore[no-untyped-call]
        self._following = Deferred.fromCoroutine(self._follow())
        self._following.addErrback(self._ended)

    def stopService(self) -> Deferred[None]:
        """Stop following; fires when nothing is left of it."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._following.cancel()
        return self._following

    async def _follow(self) -> None:
        while True:
            try:
                head = await self._source.status()
            except ChainUnavailableError as error:
                self._unreachable = f"not reachable: {error}"
            else:
                self._unreachable = None
                self._take(head)
            self._tell()
            await deferLater(self._reactor, self._poll_seconds)

    def _take(self, head: ChainStatus) -> None:
        if self.head is None or head.height > self.head.height:
            self._moved_at = self._reactor.seconds()
            self.head = head
            for observer in self._observers:
                observer()
        elif head.height == self.head.height:
            # Another node of the same chain may lag behind, and time does not run backwards for that.
            self.head = head

    def _tell(self) -> None:
        problem = self.problem
        cause = problem.partition(":")[0] if problem else None
        if cause != self._told:
            self._told = cause
            if problem:
                self.log.warn("the chain is {problem}; everything waits", problem=problem)
            elif self.head is not None:
                self.log.info("the chain moves again, at height {height}", height=self.head.height)

    def _ended(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self.log.failure("following the chain ended, which it never should", failure)
