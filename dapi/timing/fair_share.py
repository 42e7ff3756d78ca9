"""The reactor's thread, shared out among nodes and strangers: who takes more than its share has to pause.

An account is in one of these states::

            in debt, while others wait
    FREE ──────────────────────────────▶ PAUSED
      ▲                                    │
      └──── the debt is paid off, or ──────┘
            PAUSE_SECONDS are over

What a user takes is its debt, and its share pays that off as time goes by. Half of the thread is shared out, the rest
is left free, so that whoever comes finds it free. The nodes that were active within the last two seconds have equal
shares; all strangers together, who have proved to be no node, have one such share. Others wait while at least one of
them is active and not paused, so who is alone is never paused, and never are all. A pause is no loss: the connections
of the user are not read meanwhile, and TCP keeps what it sends.

All others wait through a long step, so one of more than 5 ms counts as more than it takes: 10 ms twice, 50 ms ten
times. No pause is longer than 15 s: a request may take longer, so what a node sends by HTTP meanwhile is read in time.
A node of the network sends every 5 s (docs/protocol/node.md, 'How a node delivers'). However many nodes there are, its
share is a fiftieth of the thread at least: after 300,000 nonces, thirty times what one makes, its pause is over before
it sends again.
"""

from __future__ import annotations

import enum
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from dapi.timing.observers import Observers
from dapi.timing.steps import step
from dapi.timing.timer import Timer

PAUSE_SECONDS: Final = 15.0
_ACTIVE_SECONDS = 2.0
_COUNT_SECONDS = 0.25
# So much debt is none yet: a node may be a little faster for a moment.
_ALLOWED_SECONDS = 0.02
_SHARED_OUT = 0.5
_LONG_STEP_SECONDS = 0.005
_LONG_PART_SECONDS = 0.001
_LOOK_SECONDS = 0.25
# Of a node, however many there are: what any node of the network makes takes less.
_LEAST_RATE = 0.02
# Less debt than this is none: floating-point numbers seldom come to 0.
_PAID_SECONDS = 1e-4
# Of accounts that no connection has; they only hold debts of the last seconds.
_MAX_REMEMBERED = 2048


class AccountState(enum.Enum):
    """The states that are drawn above."""

    FREE = "free"
    PAUSED = "paused"


TRANSITIONS: Final = {AccountState.FREE: {AccountState.PAUSED}, AccountState.PAUSED: {AccountState.FREE}}
"""The states that may follow each state."""


class Account:
    """What one user took of the thread. All connections of a user share one; FairShare makes it.

    Those who ``join`` are called whenever ``is_paused`` has changed; one of them may have changed it again before the
    next one is called.
    """

    def __init__(self, share: FairShare, who: Hashable, *, is_node: bool) -> None:
        self.who = who
        self.is_node = is_node
        self.state = AccountState.FREE
        self.active_at = float("-inf")
        self._share = share
        self._debt = 0.0
        self._paid_at = share.clock.seconds()
        self._paused_at = 0.0
        # A pause that nobody has made, or made to its end: there was no connection.
        self._owes = False
        self._next_look = Timer(share.clock, _LOOK_SECONDS, self._look)
        self._members: Observers[[]] = Observers()

    @property
    def is_paused(self) -> bool:
        """Whether nothing of this user is to be read for now."""
        return self.state is AccountState.PAUSED

    @property
    def has_members(self) -> bool:
        """Whether a connection has joined, and not left."""
        return bool(self._members)

    def join(self, observer: Callable[[], object]) -> None:
        """Call ``observer`` at the begin and the end of each pause."""
        self._members.add(observer)
        self._share.joined(self)
        if self._owes:
            # As if it had been here all the time.
            self._owes = False
            self._enter(AccountState.PAUSED)
            self._look()

    def leave(self, observer: Callable[[], object]) -> None:
        """Call it no more; harmless when it has not joined."""
        self._members.remove(observer)
        if not self._members:
            self._next_look.cancel()
            if self.is_paused:
                # Nobody can pause for it now, and it is to count among those who wait no more.
                self._owes = True
                self._enter(AccountState.FREE)
            self._share.left(self)

    def begin_step(self) -> float:
        """Return what ``end_step`` wants to know: the processor's time that the thread has used until now."""
        return self._share.cpu_seconds()

    def end_step(self, begun: float) -> None:
        """Charge what the thread has used since ``begin_step``."""
        self.charge(self._share.cpu_seconds() - begun)

    def go_on(self, begun: float) -> float:
        """Charge a step of several parts as soon as they are long together; return when the rest of it began."""
        now = self._share.cpu_seconds()
        if now - begun < _LONG_PART_SECONDS:
            return begun
        self.charge(now - begun)
        return now

    def charge(self, seconds: float, *, is_step: bool = True) -> None:
        """Charge one step that took so much of the processor's time; it may begin a pause.

        What was no step has let the others go on meanwhile.
        """
        now = self.active_at = self._share.clock.seconds()
        self._pay(now)
        self._debt += seconds * max(1.0, seconds / _LONG_STEP_SECONDS) if is_step else seconds
        if self._debt > _ALLOWED_SECONDS and not self.is_paused and self._share.others_wait(self):
            self._paused_at = now
            self._owes = not self.has_members
            if self.has_members:
                self._turn(AccountState.PAUSED)
                self._next_look.start(self._until_paid())

    def _pay(self, now: float) -> None:
        self._debt = max(0.0, self._debt - (now - self._paid_at) * self._share.rate_of(self))
        self._paid_at = now

    def _look(self) -> None:
        now = self._share.clock.seconds()
        self._pay(now)
        if now - self._paused_at >= PAUSE_SECONDS or not self._share.others_wait(self):
            self._debt = 0.0
        if self._debt > _PAID_SECONDS:
            self._next_look.start(self._until_paid())
        else:
            self._next_look.cancel()
            self._turn(AccountState.FREE)

    def _until_paid(self) -> float:
        # Shares change: a long debt is looked at again and again.
        return min(_LOOK_SECONDS, self._debt / self._share.rate_of(self) + _PAID_SECONDS)

    def _turn(self, state: AccountState) -> None:
        self._enter(state)
        self._members()

    def _enter(self, state: AccountState) -> None:
        self.state = step(TRANSITIONS, self.state, state, "an account")
        self._share.paused += 1 if self.is_paused else -1


class FairShare:
    """The accounts of all users of one reactor's thread. ``cpu_seconds`` tells what the calling thread has used.

    ``paused`` is how many of them are paused.
    """

    def __init__(self, clock: IReactorTime, cpu_seconds: Callable[[], float] = time.thread_time) -> None:
        self.clock = clock
        self.cpu_seconds = cpu_seconds
        self.paused = 0
        self._accounts: dict[tuple[bool, Hashable], Account] = {}
        # Those that no connection has; that which was asked for longest ago is first.
        self._unused: OrderedDict[Account, None] = OrderedDict()
        self._counted_at = float("-inf")
        self._nodes = self._strangers = 0

    def of_node(self, who: Hashable) -> Account:
        """Return the account of a node."""
        return self._account(who, is_node=True)

    def of_stranger(self, address: str) -> Account:
        """Return the account of an address whose user is not known, or not yet."""
        return self._account(address, is_node=False)

    def others_wait(self, account: Account) -> bool:
        """Tell whether anybody else is active, and not paused."""
        self._count()
        is_counted = not account.is_paused and self._is_active(account)
        return self._nodes + self._strangers - self.paused > is_counted

    def rate_of(self, account: Account) -> float:
        """Return how much of each second pays off a user's debt."""
        self._count()
        if account.is_node:
            return max(_LEAST_RATE, _SHARED_OUT / max(1, self._nodes + bool(self._strangers)))
        return _SHARED_OUT / ((self._nodes + 1) * max(1, self._strangers))

    def joined(self, account: Account) -> None:
        """Hear that a connection has this account."""
        self._unused.pop(account, None)

    def left(self, account: Account) -> None:
        """Hear that no connection has this account; forget such accounts, when there are many."""
        if self._accounts.get((account.is_node, account.who)) is not account:
            # It was forgotten before.
            return
        self._keep_unused(account)

    def _keep_unused(self, account: Account) -> None:
        self._unused[account] = None
        self._unused.move_to_end(account)
        while len(self._unused) > _MAX_REMEMBERED:
            oldest, _ = self._unused.popitem(last=False)
            del self._accounts[oldest.is_node, oldest.who]

    def _account(self, who: Hashable, *, is_node: bool) -> Account:
        key = is_node, who
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(self, who, is_node=is_node)
        if not account.has_members:
            self._keep_unused(account)
        return account

    def _is_active(self, account: Account) -> bool:
        return account.is_paused or account.active_at > self.clock.seconds() - _ACTIVE_SECONDS

    def _count(self) -> None:
        now = self.clock.seconds()
        if now - self._counted_at < _COUNT_SECONDS:
            return
        self._counted_at = now
        # As _is_active, without 10,000 calls of it four times a second.
        since, paused = now - _ACTIVE_SECONDS, AccountState.PAUSED
        active = [each.is_node for each in self._accounts.values() if each.active_at > since or each.state is paused]
        self._nodes = sum(active)
        self._strangers = len(active) - self._nodes
