"""Waiting for something to do."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


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
