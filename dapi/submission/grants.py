"""Looks at the grants of a key that is not the participant's: at the start, now and then, and while one is missing."""

from __future__ import annotations

import time

from twisted.logger import Logger

from dapi.chain.grants import grant_command, grants_of
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import ChainStatus
from dapi.errors import ChainError
from dapi.messages import Kind
from dapi.submission.problems import HoldCause, Problems
from dapi.submission.rows import TYPE_URLS
from dapi.submission.signing import Signing

# At 5 s a block an hour; each block while a grant is missing.
_BLOCKS_BETWEEN = 720
_DAYS_BEFORE_A_WARNING = 30
_DAY = 86_400
_SECOND_NS = 1_000_000_000


class GrantCheck:
    """Holds the kinds back for which there is no grant, and releases them as soon as there is one."""

    log = Logger()

    def __init__(self, rpc: ChainRpc, signing: Signing, problems: Problems, kinds: frozenset[Kind]) -> None:
        self._rpc = rpc
        self._signing = signing
        self._problems = problems
        self._kinds = kinds
        self._checked_height = -_BLOCKS_BETWEEN
        self._warned_at = float("-inf")

    async def check(self, head: ChainStatus) -> None:
        """Look at the grants if that is due at a new block; a chain that cannot tell now is asked again."""
        is_held = HoldCause.GRANT in self._problems.causes.values()
        due_height = self._checked_height + (1 if is_held else _BLOCKS_BETWEEN)
        if not self._signing.is_granted or head.height < due_height:
            return
        self._checked_height = head.height
        signer, participant = self._signing.key.address, self._signing.participant_address
        try:
            grants = await grants_of(self._rpc, participant, signer)
        except ChainError as error:
            self.log.info("the grants of {signer} are not known: {error}", signer=signer, error=error)
            self._checked_height = head.height + 1 - _BLOCKS_BETWEEN
            return
        now = head.block_time_ns // _SECOND_NS
        expiries = {kind: grants.get(TYPE_URLS[kind], 0) for kind in sorted(self._kinds)}
        missing = {kind for kind, expiry in expiries.items() if expiry is not None and expiry <= now}
        for kind in sorted(missing - self._problems.held.keys()):
            command = f"the participant has to run: {grant_command(signer)}"
            self._problems.hold_back(
                kind, f"authz: {signer} has no grant for {TYPE_URLS[kind]}; {command}", HoldCause.GRANT
            )
        for kind, cause in list(self._problems.causes.items()):
            if cause is HoldCause.GRANT and kind not in missing:
                self._problems.release(kind)
        self._warn_of_expiry({kind: expiry for kind, expiry in expiries.items() if expiry and kind not in missing}, now)

    def _warn_of_expiry(self, expiries: dict[Kind, int], now: int) -> None:
        """Warn once a day of what expires within 30 days."""
        soonest = min(expiries.values(), default=None)
        if soonest is None or soonest - now > _DAYS_BEFORE_A_WARNING * _DAY:
            self._problems.grant_expires = None
            return
        date = time.strftime("%Y-%m-%d", time.gmtime(soonest))
        self._problems.grant_expires = date
        if now - self._warned_at >= _DAY:
            self._warned_at = now
            text = "a grant expires on {date}; the participant has to run: {command}"
            self.log.warn(text, date=date, command=grant_command(self._signing.key.address))
