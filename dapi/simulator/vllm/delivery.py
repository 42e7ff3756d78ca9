"""Delivers one callback: POSTs the same bytes until an answer below 400 comes, or the tries are used up.

Both kinds of callbacks are delivered so, artifacts and results. Facts: docs/protocol/poc-v2.md, 'Senders'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.task import deferLater

from dapi.http.exchange import AnswerTooLongError, Exchanges, NoAnswerError
from dapi.simulator.vllm.settings import SenderSettings


class Outcome(NamedTuple):
    """What became of a callback; ``began_at`` is when its last try began, on the reactor's clock."""

    is_delivered: bool
    began_at: float


class Delivery:
    """Makes the POSTs of one vLLM; ``exchanges`` are those of a test."""

    def __init__(self, reactor: Any, settings: SenderSettings, exchanges: Exchanges | None = None) -> None:
        self._reactor = reactor
        self._settings = settings
        self._exchanges = exchanges or Exchanges(reactor, None, settings.try_seconds)

    async def deliver(
        self,
        url: str,
        body: bytes,
        *,
        on_try: Callable[[], object],
        on_wait: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """Try until it is delivered, or has failed once more than there are waits.

        ``on_try`` is called before each try, ``on_wait`` before each wait.
        """
        for wait in (*self._settings.waits_seconds, None):
            on_try()
            began_at = self._reactor.seconds()
            if await self._try(url, body):
                return Outcome(is_delivered=True, began_at=began_at)
            if wait is not None:
                on_wait()
                await deferLater(self._reactor, wait)
        return Outcome(is_delivered=False, began_at=began_at)

    def close(self) -> Deferred[None]:
        """Abort the connections that are left; fires when they are gone."""
        return self._exchanges.close()

    async def _try(self, url: str, body: bytes) -> bool:
        """Post once, in 10 s in all; any answer below 400 counts as delivered, also a redirect."""
        trying = Deferred.fromCoroutine(self._exchanges.exchange("POST", url, body))
        try:
            status, _ = await trying.addTimeout(self._settings.try_seconds, self._reactor)
        except AnswerTooLongError as error:
            status = error.status
        except (NoAnswerError, DeferredTimeoutError):
            return False
        return status < 400
