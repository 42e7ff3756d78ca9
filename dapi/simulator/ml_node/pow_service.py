"""The PoW of a simulated ML node over all its runs: init, restart and stop, with the times that they take.

Facts: docs/protocol/node.md, 'Restarts'. One thing is simpler than in a real node: an init that wants yet another
request while the PoW restarts waits for the end of that restart.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from dapi.simulator.ml_node.ledger import Ledger
from dapi.simulator.ml_node.run import Phase, PowRun, RunState
from dapi.simulator.ml_node.sender import Sender
from dapi.simulator.ml_node.settings import MLNodeSettings
from dapi.simulator.ml_node.work import InitRequest


class PowService:
    """Starts and ends the PoW; ``run`` is the one there is, also while it starts or ends, ``sender`` the newest sender.

    While ``deafness()`` is entered the node answers nothing, as it does during a stop.
    """

    def __init__(
        self,
        clock: IReactorTime,
        random_source: random.Random,
        *,
        settings: MLNodeSettings,
        ledger: Ledger,
        make_sender: Callable[[PowRun], Sender],
        deafness: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.run: PowRun | None = None
        self.had_init = False
        self._clock = clock
        self._random = random_source
        self._settings = settings
        self._ledger = ledger
        self._make_sender = make_sender
        self._deafness = deafness
        self.sender: Sender | None = None
        self._switching = DeferredLock()

    async def init(self, request: InitRequest, phase: Phase) -> PowRun:
        """Return a PoW that has this request and phase; it may be one that is about to end."""
        while self.run is None or self.run.request != request:
            async with self._switching:
                if self.run is None or self.run.request != request:
                    await self._start(request)
        self.run.phase = phase
        self._ledger.record_event()
        return self.run

    async def restart(self) -> None:
        """Start the PoW anew with its own request and phase."""
        async with self._switching:
            if self.run is not None:
                request, phase = self.run.request, self.run.phase
                await self._start(request)
                self.run.phase = phase

    async def stop(self) -> None:
        """End the PoW, if there is one, and answer nothing meanwhile; what it has not delivered is lost."""
        async with self._switching:
            if self.run is not None:
                with self._deafness():
                    await self._end(self._random.uniform(*self._settings.stop_seconds))

    def abandon(self) -> None:
        """End the PoW at once; what it has not delivered is lost."""
        run, self.run = self.run, None
        if run is not None:
            run.move_to(RunState.ENDED)
        if self.sender is not None:
            self.sender.abandon()

    def acknowledge(self, message_id: str, connection: int) -> None:
        """Handle an ack that came on the connection of this number."""
        if self.sender is not None:
            self.sender.acknowledge(message_id, connection)

    async def _start(self, request: InitRequest) -> None:
        """Start a PoW with new queues and a new flag; what another one has not delivered is lost."""
        self.had_init = True
        if self.run is not None:
            restart_seconds = self._random.uniform(*self._settings.restart_seconds)
            await self._end(max(0.0, restart_seconds - self._settings.init_seconds))
        run = self.run = PowRun(self._clock, request, self._settings)
        self.sender = self._make_sender(run)
        self._ledger.record_event()
        await deferLater(self._clock, self._settings.init_seconds)
        run.move_to(RunState.RUNNING)
        self.sender.start()

    async def _end(self, seconds: float) -> None:
        began = self._clock.seconds()
        if self.run is not None and self.sender is not None:
            self.run.move_to(RunState.ENDING)
            self._ledger.record_event()
            await self.sender.finish_posting()
            await deferLater(self._clock, max(0.0, seconds - (self._clock.seconds() - began)))
            self.abandon()
            self._ledger.record_event()
