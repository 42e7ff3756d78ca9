"""Follows the chain's head: its height, its block time, and whether it moves at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dapi.chain.block_events import BlockEvents
from dapi.chain.rpc_answers import BlockInfo, ChainStatus
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.timing.loop import LoopService

_POLL_SECONDS = 1.0
_STATUS_SECONDS = 5.0
_QUIET_SECONDS = 10.0
_HALTED_AFTER_SECONDS = 10.0


class StatusSource(Protocol):
    """Where the head is asked for."""

    def status(self) -> Deferred[ChainStatus]:
        """Fire with the chain's status, or fail with ChainUnavailableError or ChainRefusedError."""


class BlockWatcher(LoopService):
    """Follows the chain by its events and by asking for its status, and tells observers of every new head.

    While ``events`` bring blocks, the status is asked for every 5 s (only it says whether the node is catching up), and
    without them every ``poll_seconds``: while there is no connection, or none brought a head for ``quiet_seconds``. A
    connection that stays silent that long while the chain moves is replaced. The watcher starts and stops ``events``.

    ``head`` is the latest status, None before the first; it never goes back. Its height may grow by more than one from
    one call of the observers to the next: ``missed_blocks`` counts what lay between, and the log tells it, so whoever
    observes acts on 'at this height or later'. ``problem`` says in words why nothing should be sent now (not reachable,
    catching up, no block for 10 s), and is None while the chain moves. ``refusal`` is set instead of an answer where a
    node says no to being asked at all. Freshness is counted on this machine's clock from the moment a new block was
    seen: block times and this machine's need not agree.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        source: StatusSource,
        events: BlockEvents | None = None,
        *,
        poll_seconds: float = _POLL_SECONDS,
        quiet_seconds: float = _QUIET_SECONDS,
    ) -> None:
        super().__init__(reactor)
        self.head: ChainStatus | None = None
        self.refusal: ChainRefusedError | None = None
        self.missed_blocks = 0
        self._source = source
        self._events = events
        self._poll_seconds = poll_seconds
        self._quiet_after_seconds = quiet_seconds
        self._observers: list[Callable[[], None]] = []
        self._unreachable: str | None = "not asked yet"
        self._asked_at = self._moved_at = reactor.seconds()
        # When an event last brought a head, and since when the events have been silent about one that the status told.
        self._event_at = float("-inf")
        self._untold_since: float | None = None
        self._told: str | None = None
        if events is not None:
            events.observe(self._block_came)

    @property
    def problem(self) -> str | None:
        """Why the chain takes nothing now, or None."""
        if self.defect is not None:
            return self.defect
        if self._unreachable is not None:
            return self._unreachable
        if self.head is None or self.head.catching_up:
            return "catching up"
        unmoved_seconds = self._reactor.seconds() - self._moved_at
        if unmoved_seconds > _HALTED_AFTER_SECONDS:
            return f"halted: no block for {unmoved_seconds:.0f} s"
        return None

    def observe(self, observer: Callable[[], None]) -> None:
        """Have ``observer`` called at every new head."""
        self._observers.append(observer)

    def startService(self) -> None:
        """Begin to follow."""
        if self._events is not None:
            self._events.startService()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Stop following; fires when nothing is left of it."""
        stopped = super().stopService()
        if self._events is None:
            return stopped
        return gatherResults([stopped, self._events.stopService()]).addCallback(lambda _: None)

    async def loop(self) -> None:
        """Ask for the status as often as the events leave it necessary."""
        await self._ask()
        # A call that is cancelled may end like one that failed.
        while self.running:
            await deferLater(self._reactor, self._poll_seconds)
            is_due = self._reactor.seconds() - self._asked_at >= _STATUS_SECONDS
            if is_due or self._unreachable is not None or self._quiet_seconds > self._quiet_after_seconds:
                await self._ask()
            else:
                self._tell()

    async def _ask(self) -> None:
        self._asked_at = self._reactor.seconds()
        try:
            head = await self._source.status()
        except ChainUnavailableError as error:
            self._unreachable = f"not reachable: {error}"
        except ChainRefusedError as error:
            self.refusal = error
            self._unreachable = f"not reachable: {error}"
        else:
            if self.head is not None and head.chain_id != self.head.chain_id:
                # A URL of another network, or a network that began anew: what was sent to one is not on the other.
                self._unreachable = f"another one: {head.chain_id} at {head.node}, not {self.head.chain_id}"
                return
            self._unreachable = self.refusal = None
            self._watch_events(has_moved=self._take(head))

    @property
    def _quiet_seconds(self) -> float:
        """For how long the events have brought no head, counted from their connection on; infinite without one."""
        opened_at = self._events.opened_at if self._events is not None else None
        if opened_at is None:
            return float("inf")
        since: float = self._reactor.seconds() - max(opened_at, self._event_at)
        return since

    def _block_came(self, block: BlockInfo) -> None:
        head = self.head
        # Before the first status nobody knows whether the node is catching up; and another node may lag behind.
        if head is None or block.height < head.height or block.chain_id != head.chain_id:
            return
        self._event_at = self._reactor.seconds()
        self._untold_since = None
        self._take(
            msgspec.structs.replace(head, height=block.height, block_time_ns=block.time_ns, block_hash=block.hash)
        )
        self._tell()

    def _take(self, head: ChainStatus) -> bool:
        """Make it the head unless it is an older one; return whether the chain has moved since the last one."""
        before = self.head
        if before is not None and head.height <= before.height:
            # Another node of the same chain may lag behind, and time does not run backwards for that. Events may also
            # have been faster than this answer: what it says of catching up counts all the same.
            is_same = head.height == before.height
            self.head = head if is_same else msgspec.structs.replace(before, catching_up=head.catching_up)
            return False
        self._moved_at = self._reactor.seconds()
        self.head = head
        if before is not None and head.height > before.height + 1:
            self._miss(before, head)
        for observer in self._observers:
            observer()
        return before is not None

    def _miss(self, before: ChainStatus, head: ChainStatus) -> None:
        missed = head.height - before.height - 1
        self.missed_blocks += missed
        # A node that is catching up comes by in leaps.
        if not head.catching_up:
            self.log.info(
                "{missed} blocks were not seen one by one: from {before} to {height} in one step",
                missed=missed,
                before=before.height,
                height=head.height,
            )

    def _watch_events(self, *, has_moved: bool) -> None:
        """Replace a connection that has stayed silent about a head that the status told."""
        if self._events is None or self._events.opened_at is None:
            self._untold_since = None
            return
        now = self._reactor.seconds()
        if has_moved and self._untold_since is None:
            self._untold_since = now
        if self._untold_since is not None and now - self._untold_since > self._quiet_after_seconds:
            self._untold_since = None
            self._events.replace(f"replaced: no block for {self._quiet_after_seconds:g} s while the chain moves")

    def _tell(self) -> None:
        problem = self.problem
        cause = problem.partition(":")[0] if problem else None
        if cause != self._told:
            self._told = cause
            if problem:
                self.log.warn("the chain is {problem}; everything waits", problem=problem)
            elif self.head is not None:
                self.log.info("the chain moves again, at height {height}", height=self.head.height)
