"""What a loop is made of that does something for as long as its service runs."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

RESTART_SECONDS = 30.0


class LoopService(Service, metaclass=ABCMeta):
    """A service that is one loop, which a stop cancels wherever it is.

    Should the loop break, it begins anew after ``RESTART_SECONDS``: one answer that nobody foresaw must not end it for
    the night. Each time is logged as the defect that it is, and until then ``defect`` says so.
    """

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._looping: Deferred[None] = succeed(None)
        self.defect: str | None = None

    @abstractmethod
    async def loop(self) -> None:
        """Do it, again and again, while the service is ``running``; from the beginning, if it was broken off."""

    def startService(self) -> None:
        """Begin."""
        super().startService()  # type: ignore[no-untyped-call]
        self._looping = Deferred.fromCoroutine(self._keep_looping())
        self._looping.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def stopService(self) -> Deferred[None]:
        """End; fires with None when nothing of the loop is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._looping.cancel()
        return self._looping

    async def _keep_looping(self) -> None:
        while self.running:
            self.defect = None
            try:
                await self.loop()
            except Exception as error:  # noqa: BLE001 - whatever it is, this ends
                # A call that is cancelled may end in a failure of any kind.
                if not self.running:
                    return
                what = type(self).__name__
                self.log.failure("{what} broke, which it never should; it begins anew in a moment", what=what)
                self.defect = f"{what} broke, see the log: {type(error).__name__}: {error}"
                await deferLater(self._reactor, RESTART_SECONDS)


class Wake:
    """What a loop waits at between its turns: it is woken by ``ring``, or by time.

    A ring during a turn is not lost: the next wait is over at once.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: Deferred[None] | None = None
        self._has_rung = False

    def ring(self) -> None:
        """There is something to do."""
        self._has_rung = True
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    async def wait(self, seconds: float) -> None:
        """Return after a ring, or after so many seconds."""
        if not self._has_rung:
            self._waiting = Deferred()
            timer = self._reactor.callLater(seconds, self.ring)
            try:
                await self._waiting
            finally:
                if timer.active():
                    timer.cancel()
        self._has_rung = False
