"""Sends the messages of the outbox to the chain, and confirms them when they are in a block.

The laws, all of them kept through a kill at any point:

- a transaction's hash and timestamp are on disk before its bytes leave;
- a message is in one transaction at a time: it goes into another only when the first one is known to be in no block and
  can be in none any more (its timestamp has passed, or is further ahead than any block takes), or was refused before
  any mempool had it;
- confirmed means in a block with code 0; an accepted broadcast means nothing yet;
- the same bytes may be offered again as often as one likes: the chain takes them once.
"""

from __future__ import annotations

import enum
import random
from functools import partial
from typing import Any

from twisted.logger import Logger

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.keyring import SigningKey
from dapi.chain.nodes import ChainTrouble
from dapi.chain.rpc import ChainRpc
from dapi.chain.transaction_finder import Search, TransactionFinder
from dapi.chain.transactions import TimestampSource
from dapi.errors import ChainError, StoreError
from dapi.phases.poc_version import PocVersion
from dapi.submission.chain_identity import ChainIdentity
from dapi.submission.decisions import Answer, Decisions
from dapi.submission.grants import GrantCheck
from dapi.submission.in_flight import InFlight
from dapi.submission.pace import Pace
from dapi.submission.problems import Problems
from dapi.submission.rows import TransactionInFlight
from dapi.submission.sender import OFFERS_AT_ONCE, Sender
from dapi.submission.settings import SubmitterSettings
from dapi.submission.signing import Signing
from dapi.submission.state import SendingState
from dapi.submission.submissions import Submissions
from dapi.timing.loop import LoopService, Wake
from dapi.timing.retry import RetryDelay, retry
from dapi.timing.together import to_the_end, together


class SendingTrouble(enum.StrEnum):
    """Why nothing is sent while the chain takes what comes."""

    MOVED = "moved"
    """The network runs PoC v2."""
    BROKEN = "broken"
    """dapi itself failed."""
    TURN = "turn"
    """A step that comes before the sending failed: a query, or the database."""
    HELD = "held"
    """Messages of some kinds are held."""


class Submitter(LoopService):
    """Sends stored messages, many transactions at once, and follows each until a block or its own time has decided.

    ``key`` signs; ``participant_address`` is the creator of all messages, and another one where the key was granted the
    right to submit for it. While the chain has a problem (see BlockWatcher) nothing is sent and nothing grows:
    everything waits on disk. Two loops run side by side, so that a look-up that fails or hangs stops no sending.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        submissions: Submissions,
        rpc: ChainRpc,
        watcher: BlockWatcher,
        identity: ChainIdentity,
        *,
        key: SigningKey,
        participant_address: str,
        poc_version: PocVersion,
        random: random.Random,
        settings: SubmitterSettings | None = None,
    ) -> None:
        super().__init__(reactor)
        self._submissions = submissions
        self._watcher = watcher
        self._identity = identity
        self._settings = settings = settings or SubmitterSettings()
        self._delay = RetryDelay(random, settings.retry_min_seconds, settings.retry_max_seconds)
        self._timestamps = TimestampSource(random)
        self._finder = TransactionFinder(rpc)
        self._turn_problem: str | None = None
        self._wake_to_send, self._wake_to_look_up = Wake(reactor), Wake(reactor)
        self._signing = Signing(rpc, key, participant_address, settings.gas_limit)
        self._poc_version = poc_version
        self._problems = Problems(key.address, participant_address, poc_version)
        self._pace = Pace(settings)
        self._in_flight = InFlight(self._wake_to_send.ring)
        state = SendingState(self._signing, self._pace, self._problems, self._in_flight)
        self._decisions = Decisions(submissions, rpc, watcher, state)
        self._sender = Sender(
            reactor,
            submissions,
            rpc,
            watcher,
            state,
            self._decisions,
            poc_version=poc_version,
            settings=settings,
            timestamps=self._timestamps,
        )
        self._grants = GrantCheck(rpc, self._signing, self._problems, settings.kinds)
        watcher.observe(self._block_has_come)
        submissions.observe(self._wake_to_send.ring)

    def _block_has_come(self) -> None:
        self._wake_to_look_up.ring()
        self._wake_to_send.ring()

    def outcomes(self) -> dict[tuple[str, str], int]:
        """Return how many transactions had which outcome and code; see Decisions."""
        return dict(self._decisions.outcomes)

    def status(self) -> dict[str, Any]:
        """Return where the chain stands and how the sending goes.

        ``state`` is ``submitting``, ``held`` (messages of some kinds are, see ``held``), ``waiting`` (nothing is sent
        now) or ``moved`` (nothing is sent while the network runs PoC v2), ``reason`` why it is not the first.
        ``trouble`` is that reason as one of the known ones. ``held`` has in words what keeps which kind back, and
        ``causes`` which cause that is. ``problem`` is what went wrong last, until a transaction is confirmed.
        ``grant_expires`` is the day on which the first grant does, if that is soon.
        """
        head, problems = self._watcher.head, self._problems
        waiting = self.loop_problem or self._watcher.problem or self._turn_problem
        held = "; ".join(dict.fromkeys(problems.held.values()))
        state = "moved" if problems.moved_reason else "waiting" if waiting else "held" if held else "submitting"
        return {
            "state": state,
            "reason": problems.moved_reason or waiting or held or None,
            "trouble": self._trouble(),
            "held": {str(kind): problem for kind, problem in problems.held.items()},
            "causes": {str(kind): cause for kind, cause in problems.causes.items()},
            "chain_id": head.chain_id if head else None,
            "height": head.height if head else None,
            "signer": self._signing.key.address,
            "participant": self._signing.participant_address,
            "transactions_in_flight": len(self._in_flight),
            "bytes_in_flight": self._in_flight.size,
            "max_transactions": self._pace.transactions,
            "max_transaction_bytes": self._pace.max_bytes,
            "problem": problems.last,
            "grant_expires": problems.grant_expires,
        }

    def _trouble(self) -> SendingTrouble | ChainTrouble | None:
        if self._problems.moved_reason is not None:
            return SendingTrouble.MOVED
        if self.loop_problem is not None:
            return SendingTrouble.BROKEN
        if self._watcher.problem is not None:
            return self._watcher.trouble
        if self._turn_problem is not None:
            return SendingTrouble.TURN
        return SendingTrouble.HELD if self._problems.held else None

    async def loop(self) -> None:
        """Go on from what the database says, until the service stops."""
        until_it_works = partial(retry, self._reactor, errors=(ChainError, StoreError), delay=self._delay)
        await until_it_works(self._recover, on_error=self._turn_failed)
        await together(
            [
                partial(until_it_works, self._keep_looking_up, on_error=self._lookup_failed),
                partial(until_it_works, self._keep_sending, on_error=self._turn_failed),
            ]
        )

    def _turn_failed(self, error: Exception) -> None:
        self._lookup_failed(error)
        self._turn_problem = str(error)

    def _lookup_failed(self, error: Exception) -> None:
        # A stop in the middle of several steps may end in the failure of one of them.
        if not self.running:
            raise error
        self._problems.record(error)

    async def _recover(self) -> None:
        """Go on with the transactions that a former process, or a former start, left in flight on this chain."""
        while self._watcher.head is None:
            self._heed_status_error()
            await self._wake_to_send.wait(self._delay())
        await self._identity.enter(self._watcher.head)
        self._timestamps.last = await self._submissions.last_timeout()
        self._in_flight.replace(await self._submissions.transactions_in_flight())

    async def _keep_sending(self) -> None:
        while self.running:
            self._heed_status_error()
            if self._watcher.head is not None and self._watcher.problem is None:
                await self._identity.enter(self._watcher.head)
                await self._poc_version.ask(self._watcher.head.height)
                await self._grants.check(self._watcher.head)
            await self._sender.send()
            self._turn_problem = None
            if self.running:
                # A block wakes us, and what is stored; where a mempool was full, time does.
                await self._wake_to_send.wait(self._delay())

    def _heed_status_error(self) -> None:
        # It may tell that the network has moved.
        if self._watcher.status_error is not None:
            self._problems.record(self._watcher.status_error)

    async def _keep_looking_up(self) -> None:
        while self.running:
            if self._watcher.head is not None and self._watcher.problem is None:
                await self._look_up_all()
            if self.running:
                # Where no block comes, the transactions in flight are looked up all the same.
                await self._wake_to_look_up.wait(self._settings.offer_again_seconds)

    async def _look_up_all(self) -> None:
        """Look all transactions up; see what became of each, and offer those again that a mempool may have lost."""
        transactions = self._in_flight.all()
        if not transactions:
            return
        search = await self._finder.find({each.hash: each.first_height for each in transactions})
        found = [(each, search.found[each.hash]) for each in transactions if each.hash in search.found]
        await self._decisions.confirm_all([(each, result) for each, result in found if result.code == 0])
        # What is decided first: an offer may wait for a node that hangs.
        for act in (self._decide, self._offer_again):
            await to_the_end((partial(act, each, search) for each in transactions), at_once=OFFERS_AT_ONCE)
        if search.problem is not None:
            self._problems.record_text(search.problem)

    async def _decide(self, transaction: TransactionInFlight, search: Search) -> None:
        result, reach = search.found.get(transaction.hash), search.reach.get(transaction.hash)
        if transaction not in self._in_flight:
            return
        if result is not None:
            await self._decisions.act(transaction, Answer(result.code, result.codespace, result.log, result.height))
        elif reach is not None and reach.time_ns > transaction.timeout_ns:
            # All blocks were looked through that its time allowed.
            await self._decisions.time_has_passed(transaction)
        elif reach is not None and 0 < reach.time_ns < transaction.timeout_ns - TimestampSource.LIMIT_NS:
            # A node had told a false time when it was signed. Should it come into a block some day, it does no harm.
            await self._decisions.time_is_far_ahead(transaction)

    async def _offer_again(self, transaction: TransactionInFlight, search: Search) -> None:
        is_open = transaction in self._in_flight and transaction.hash not in search.found
        if is_open and self._sender.is_to_be_offered(transaction):
            await self._sender.offer(transaction)
