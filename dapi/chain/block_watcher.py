"""Follows the latest block of the chain: its height and time, and whether new blocks come at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from dapi.chain.block_events import BlockEvents
from dapi.chain.nodes import ChainTrouble, Standing
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import BlockInfo, ChainStatus
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.timing.loop import LoopService
from dapi.timing.observers import Observers

_STATUS_SECONDS = 5.0
# So long all nodes have to tell of another chain before that is taken for one that began anew.
_ANOTHER_CHAIN_SECONDS = 60.0


class BlockWatcher(LoopService):
    """Follows the chain by its events and by its nodes' status.

    It calls its observers at every new head, and when the nodes can be relied on again.

    While ``events`` bring blocks, the watcher asks all nodes for their status every 5 s: only that says which of them
    are behind. When it shows a block that no event has brought, the watcher asks every ``poll_seconds``. Without events
    (no connection, or no new head from it for ``quiet_seconds``) it asks every ``poll_seconds``. It replaces a
    connection that is silent for so long while the status shows that the chain moves, and one to a node that is not
    sound while another is. It starts and stops ``events``.

    ``head`` is the latest block that any node told, None before the first status; its height never falls. The height
    may grow by more than one between two calls of the observers, so observers act on 'at this height or later'.
    ``problem`` says why nothing should be sent now (not reachable, catching up, another chain, no block for
    ``halted_seconds``); it is None while the chain moves. ``status_error`` is set while the nodes refuse to be asked at
    all. The watcher measures on this machine's clock how long no block came: block times may differ from it.

    When all nodes have been of another chain than the one that was expected for a minute, and no block of that one was
    seen, the watcher follows the other chain: a minute, because the URL may be a mistake (``takes_other_at_once``: it
    is known to be none). When blocks of the first one were seen, it calls ``on_another_chain`` with the reason then,
    again and again: whoever acts on blocks has to begin anew.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        rpc: ChainRpc,
        events: BlockEvents | None = None,
        *,
        on_another_chain: Callable[[str], object] = lambda reason: None,
        takes_other_at_once: bool = False,
        poll_seconds: float = 1.0,
        quiet_seconds: float = 10.0,
        halted_seconds: float = 10.0,
    ) -> None:
        super().__init__(reactor)
        self.head: ChainStatus | None = rpc.nodes.latest
        self.status_error: ChainRefusedError | None = None
        self._rpc = rpc
        self._nodes = rpc.nodes
        self._events = events
        self._on_another_chain = on_another_chain
        self._takes_other_at_once = takes_other_at_once
        self._other_chain_since: float | None = None
        self._poll_seconds = poll_seconds
        self._max_quiet_seconds = quiet_seconds
        self._halted_seconds = halted_seconds
        self._observers = Observers[[]]()
        self._status_problem = rpc.nodes.problem()
        self._is_asking = False
        self._asked_at = self._moved_at = reactor.seconds()
        # When an event last brought a head, and when the status first showed a head that no event has brought yet.
        self._event_at = float("-inf")
        self._overtaken_at: float | None = None
        self._logged_problem: str | None = None
        self._nodes.observe(self._head_moved)
        if events is not None:
            events.observe(self._block_announced)

    @property
    def problem(self) -> str | None:
        """Why the chain takes nothing now, or None."""
        if self.loop_problem is not None or self._status_problem is not None:
            return self.loop_problem or self._status_problem
        if self._is_halted:
            return f"halted: no block for {self._reactor.seconds() - self._moved_at:.0f} s"
        return None

    @property
    def trouble(self) -> ChainTrouble | None:
        """The same as one of the known reasons."""
        if self.loop_problem is not None:
            return ChainTrouble.BROKEN
        if self._status_problem is not None:
            # A node that refuses the question answers no more than one that is away.
            return self._nodes.trouble() or ChainTrouble.UNREACHABLE
        return ChainTrouble.HALTED if self._is_halted else None

    @property
    def _is_halted(self) -> bool:
        return bool(self._reactor.seconds() - self._moved_at > self._halted_seconds)

    def observe(self, observer: Callable[[], object]) -> None:
        """Call ``observer`` at every new head, and when the nodes can be relied on again."""
        self._observers.add(observer)

    def startService(self) -> None:
        """Begin to follow."""
        if self._events is not None:
            self._events.startService()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Stop following; fires with None when nothing of it is left on the reactor."""
        stopped = super().stopService()
        if self._events is None:
            return stopped
        return gatherResults([stopped, self._events.stopService()]).addCallback(lambda _: None)

    async def loop(self) -> None:
        """Ask for the status as often as the events leave it necessary."""
        await self._ask()
        # A cancelled call may end like a failed one: then only `running` says that the loop has to end.
        while self.running:
            self._log_problem()
            await deferLater(self._reactor, self._poll_seconds)
            # The events' node may be cut off, if the status was the first to show a block.
            is_due = self._overtaken_at is not None or self._reactor.seconds() - self._asked_at >= _STATUS_SECONDS
            if is_due or self._status_problem is not None or self._quiet_seconds > self._max_quiet_seconds:
                await self._ask()

    async def _ask(self) -> None:
        self._asked_at = self._reactor.seconds()
        head, had_problem = self.head, self._status_problem is not None
        self._is_asking = True
        try:
            await self._rpc.ask_all()
        except (ChainUnavailableError, ChainRefusedError) as error:
            if isinstance(error, ChainRefusedError):
                self.status_error = error
            self._status_problem = f"not reachable: {error}"
        else:
            self.status_error = None
            self._status_problem = self._nodes.problem()
            self._replace_events()
            if had_problem and self._status_problem is None and self.head is head:
                self._observers()
            self._notice_another_chain()
        finally:
            self._is_asking = False

    def _notice_another_chain(self) -> None:
        reason, now = self._nodes.of_another_chain(), self._reactor.seconds()
        if reason is None:
            self._other_chain_since = None
            return
        if self._other_chain_since is None:
            self._other_chain_since = now
        is_lasting = now - self._other_chain_since >= _ANOTHER_CHAIN_SECONDS
        if self.head is None and (is_lasting or self._takes_other_at_once):
            self._nodes.take_other_chain()
        elif self.head is not None and is_lasting:
            self._on_another_chain(reason)

    @property
    def _quiet_seconds(self) -> float:
        """For how long this connection's events have brought no head; infinite without a connection."""
        opened_at = self._events.opened_at if self._events is not None else None
        if opened_at is None:
            return float("inf")
        return float(self._reactor.seconds() - max(opened_at, self._event_at))

    def _block_announced(self, block: BlockInfo) -> None:
        assert self._events is not None  # noqa: S101
        if self._nodes.block_announced(self._nodes[self._events.url_index], block):
            self._event_at = self._reactor.seconds()
            self._overtaken_at = None
            self._log_problem()

    def _head_moved(self) -> None:
        before, self.head = self.head, self._nodes.latest
        self._moved_at = self._reactor.seconds()
        if self._is_asking:
            # Who acts on this head now has to find that the chain can be relied on.
            self._status_problem = self._nodes.problem()
        if before is not None and self.head is not None:
            if self._overtaken_at is None and self._events is not None and self._events.opened_at is not None:
                self._overtaken_at = self._moved_at
            missed = self.head.height - before.height - 1
            # A node that is catching up moves in leaps.
            if missed and not self.head.catching_up:
                self.log.info(
                    "{missed} blocks were not seen one by one: from {before} to {height} in one step",
                    missed=missed,
                    before=before.height,
                    height=self.head.height,
                )
        self._observers()

    def _replace_events(self) -> None:
        """Replace a connection that has not brought a head for long after the status showed it, or to a bad node."""
        if self._events is None or self._events.opened_at is None:
            self._overtaken_at = None
            return
        node = self._nodes[self._events.url_index]
        if node.standing is not Standing.SOUND and self._nodes.problem() is None:
            self._events.replace(f"replaced: {node.name}: {node.problem}")
        elif self._overtaken_at is not None and self._reactor.seconds() - self._overtaken_at > self._max_quiet_seconds:
            self._events.replace(f"replaced: no block for {self._max_quiet_seconds:g} s while the chain moves")
        else:
            return
        self._overtaken_at = None

    def _log_problem(self) -> None:
        problem = self.problem
        # The numbers behind the colon change all the time.
        kind = problem.partition(":")[0] if problem else None
        if kind == self._logged_problem:
            return
        self._logged_problem = kind
        if problem:
            self.log.warn("the chain is {problem}; everything waits", problem=problem)
        elif self.head is not None:
            self.log.info("the chain moves again, at height {height}", height=self.head.height)
