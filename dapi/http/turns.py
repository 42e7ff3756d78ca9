"""A connection's share of the reactor's thread: its caller's, which pauses all the caller's connections together."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from dapi.timing.fair_share import Account, FairShare


class Turns:
    """Charges the work of one connection to its caller, and has it wait while the caller is paused.

    The caller is the stranger at ``address`` until ``belongs_to`` tells that it is a node. Without a ``share`` nothing
    is charged, and nothing waits.
    """

    def __init__(self, share: FairShare | None, transport: Any, address: str) -> None:
        self._share = share
        self._transport = transport
        self._waiting: Callable[[], None] | None = None
        self._account: Account | None = None
        if share is not None:
            self._join(share.of_stranger(address))

    @property
    def is_paused(self) -> bool:
        """Whether the caller is to wait."""
        return self._account is not None and self._account.is_paused

    def belongs_to(self, caller: Hashable) -> None:
        """Hear which node has the connection; None: no node."""
        if caller is not None and self._share is not None:
            self._join(self._share.of_node(caller))

    def take(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do some work at once, and charge it; nothing more is read when that was too much."""
        account = self._account
        if account is None:
            work(*arguments)
            return
        begun = account.begin_step()
        work(*arguments)
        # The caller may have become known meanwhile, or have left.
        account = self._account or account
        account.end_step(begun)
        if self.is_paused:
            self._transport.pauseProducing()

    def when_free(self, work: Callable[[], None]) -> None:
        """Do some work within ``take`` now, or when the pause is over; never once ``forget`` was called."""
        if self.is_paused:
            self._waiting = work
        else:
            work()

    def forget(self) -> None:
        """Do nothing of what waits."""
        self._waiting = None

    def end(self) -> None:
        """Charge and pause no more; what still comes is read."""
        was_paused, account = self.is_paused, self._account
        self._account = self._waiting = None
        if account is not None:
            account.leave(self._changed)
        if was_paused:
            self._transport.resumeProducing()

    def _join(self, account: Account) -> None:
        if self._account is not None:
            self._account.leave(self._changed)
        self._account = account
        account.join(self._changed)

    def _changed(self) -> None:
        if self.is_paused:
            self._transport.pauseProducing()
            return
        self._transport.resumeProducing()
        if self._waiting is not None:
            work, self._waiting = self._waiting, None
            self.take(work)
