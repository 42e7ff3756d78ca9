"""A service that is a loop, and what the loop waits at between its turns."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dapi.timing.timer import Timer
from dapi.timing.waiters import Waiters

RESTART_SECONDS = 30.0


class LoopService(Service, metaclass=ABCMeta):
    """A service that runs one loop; a stop cancels the loop wherever it is.

    A loop that breaks is begun anew after ``RESTART_SECONDS``: one answer that nobody foresaw must not end it for the
    night. The failure is logged, and ``loop_problem`` tells of it until then.
    """

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._looping: Deferred[None] = succeed(None)
        self.loop_problem: str | None = None

    @abstractmethod
    async def loop(self) -> None:
        """Run for as long as the service is ``running``; called again, from the beginning, after a failure."""

    def startService(self) -> None:
        """Begin the loop."""
        super().startService()  # type: ignore[no-untyped-call]
        self._looping = Deferred.fromCoroutine(self._keep_looping())
        self._looping.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def stopService(self) -> Deferred[None]:
        """End the loop; fires with None when nothing of it is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._looping.cancel()
        return self._looping

    async def _keep_looping(self) -> None:
        while self.running:
            self.loop_problem = None
            try:
                await self.loop()
            except Exception as error:  # noqa: BLE001 - whatever it is, this ends
                # A call that is cancelled may end in a failure of any kind.
                if not self.running:
                    return
                what = type(self).__name__
                self.log.failure("{what} broke, which it never should; it begins anew in a moment", what=what)
                self.loop_problem = f"{what} broke, see the log: {type(error).__name__}: {error}"
                await deferLater(self._reactor, RESTART_SECONDS)


class Wake:
    """A loop waits here between its turns, until ``ring`` is called or a time is over.

    A ring during a turn is not lost: the next wait is over at once.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._rung: Waiters[None] = Waiters()
        self._has_rung = False

    def ring(self) -> None:
        """Wake the loop: there is something to do."""
        self._has_rung = True
        self._rung.fire(None)

    async def wait(self, seconds: float) -> None:
        """Return after a ring, or after so many seconds."""
        if not self._has_rung:
            timer = Timer(self._reactor, seconds, self.ring)
            timer.start()
            try:
                await self._rung.wait()
            finally:
                timer.cancel()
        self._has_rung = False
