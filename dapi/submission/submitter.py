"""Sends the messages of the outbox to the chain, and confirms them when they are in a block.

The laws, all of them kept through a kill at any point:

- a transaction's hash and timestamp are on disk before its bytes leave;
- a message is in one transaction at a time: it goes into another only when the first one is known to be in no block and
  can be in none any more (its timestamp has passed), or was refused before any mempool had it;
- confirmed means in a block with code 0; an accepted broadcast means nothing yet;
- the same bytes may be offered again as often as one likes: the chain takes them once.
"""

from __future__ import annotations

import random
import re
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.keyring import SigningKey
from dapi.chain.queries import account_number
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import ChainStatus, TxResult
from dapi.chain.transactions import TimestampSource, TransactionSigner
from dapi.errors import ChainError, ChainRefusedError, ChainStaleError, ChainUnavailableError, StoreError
from dapi.phases.epoch_queries import next_chance
from dapi.submission.answers import claim_answers
from dapi.submission.outcomes import Outcome, judge, messages_blamed
from dapi.submission.rows import Message, TransactionInFlight
from dapi.submission.submissions import Submissions
from dapi.timing.log_limits import SayOnce
from dapi.timing.loop import LoopService, Wake
from dapi.timing.retry import RETRY_MAX_SECONDS, RETRY_MIN_SECONDS, RetryDelay, retry

_PASSED = "in no block when its time had passed"
_NO_TIMESTAMP = "no timestamp is left: the chain's time is behind our last transaction's"
_DIGITS = re.compile(r"\d+")


@attrs.frozen
class SubmitterSettings:
    """Bounds of what is in flight.

    ``max_in_flight`` transactions at once, each of ``max_transaction_bytes`` at most (docs/protocol/chain.md,
    'Limits'), and ``max_nonces`` in one message (the chain's own limit). A failure is followed by a random time between
    the two of ``retry``; a transaction that is in no block yet is offered again after ``offer_again_seconds``.
    """

    max_in_flight: int = 16
    max_transaction_bytes: int = 700_000
    max_nonces: int = 10_000
    retry_min_seconds: float = RETRY_MIN_SECONDS
    retry_max_seconds: float = RETRY_MAX_SECONDS
    offer_again_seconds: float = 3.0


class Submitter(LoopService):
    """Sends stored messages, many transactions at once, and follows each until a block or its own time has decided.

    ``key`` signs; ``participant_address`` is the creator of all messages, and another one where the key was granted the
    right to submit for it. While the chain has a problem (see BlockWatcher) nothing is sent and nothing grows:
    everything waits on disk.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        submissions: Submissions,
        rpc: ChainRpc,
        watcher: BlockWatcher,
        *,
        key: SigningKey,
        participant_address: str,
        random: random.Random,
        settings: SubmitterSettings | None = None,
    ) -> None:
        super().__init__(reactor)
        self._submissions = submissions
        self._rpc = rpc
        self._watcher = watcher
        self._key = key
        self._participant_address = participant_address
        self._settings = settings or SubmitterSettings()
        self._delay = RetryDelay(random, self._settings.retry_min_seconds, self._settings.retry_max_seconds)
        self._timestamps = TimestampSource(random)
        self._signer: TransactionSigner | None = None
        self._account_number: int | None = None
        self._in_flight: dict[str, TransactionInFlight] = {}
        # Height and time at which the transactions in flight were last looked up.
        self._looked_up = (0, float("-inf"))
        self._choosing = DeferredLock()
        self._has_more = False
        # Why nothing is sent any more, why the last turn failed, and what went wrong since the last confirmation.
        self._moved_reason: str | None = None
        self._turn_problem: str | None = None
        self._problem: str | None = None
        self._log_once = SayOnce()
        self._wake = Wake(reactor)
        # A block has come, or something was stored.
        watcher.observe(self._wake.ring)
        submissions.observe(self._wake.ring)

    def status(self) -> dict[str, Any]:
        """Return where the chain stands and how the sending goes.

        ``state`` is ``submitting``, ``waiting`` (nothing is sent now) or ``moved`` (nothing will be sent), ``reason``
        why it is not the first. ``problem`` is what went wrong last, until a transaction is confirmed.
        """
        head = self._watcher.head
        reason = self._moved_reason or self.loop_problem or self._watcher.problem or self._turn_problem
        return {
            "state": "moved" if self._moved_reason else "waiting" if reason else "submitting",
            "reason": reason,
            "chain_id": head.chain_id if head else None,
            "height": head.height if head else None,
            "signer": self._key.address,
            "participant": self._participant_address,
            "transactions_in_flight": len(self._in_flight),
            "problem": self._problem,
        }

    async def loop(self) -> None:
        """Go on from what the database says, until the service stops."""
        until_it_works = partial(retry, self._reactor, errors=(ChainError, StoreError), delay=self._delay)
        await until_it_works(self._recover, on_error=self._turn_failed)
        await until_it_works(self._take_turns, on_error=self._turn_failed)

    def _turn_failed(self, error: Exception) -> None:
        # A stop in the middle of several steps may end in the failure of one of them.
        if not self.running:
            raise error
        self._turn_problem = str(error)
        self._record_problem(error)

    async def _recover(self) -> None:
        """Go on with the transactions that a former process, or a former start, left in flight."""
        self._timestamps.last = await self._submissions.last_timeout()
        self._in_flight = {each.hash: each for each in await self._submissions.transactions_in_flight()}

    async def _take_turns(self) -> None:
        while self.running:
            await self._turn()
            self._turn_problem = None
            if self.running:
                # A block wakes us; where none comes, the transactions in flight are looked up all the same.
                await self._wake.wait(self._delay())

    async def _turn(self) -> None:
        """Look up all transactions in flight, then send as many as there is room for."""
        if self._watcher.status_error is not None:
            self._record_problem(self._watcher.status_error)
        head = self._watcher.head
        if head is None or self._watcher.problem is not None:
            return
        await self._look_up_all(head.height)
        if self._moved_reason is not None:
            return
        if self._signer is None:
            await self._make_signer()
        self._has_more = True
        room = self._settings.max_in_flight - len(self._in_flight)
        await _all(self._send_next() for _ in range(room))

    async def _make_signer(self) -> None:
        chain_id = self._check_chain(await self._rpc.status())
        try:
            number = await account_number(self._rpc, self._key.address)
        except ChainRefusedError as error:
            if _is_of_a_moved_network(error):
                raise
            raise ChainUnavailableError(f"the signer's account {self._key.address}: {error.log}") from error
        self._account_number = number
        self._signer = TransactionSigner(self._key, chain_id, number, self._participant_address)

    def _check_chain(self, status: ChainStatus) -> str:
        """Return the id of a node's chain, which has to be the one that is followed."""
        head = self._watcher.head
        if head is not None and status.chain_id != head.chain_id:
            raise ChainUnavailableError(f"{status.node} is a node of another chain: {status.chain_id}")
        return status.chain_id

    async def _send_next(self) -> None:
        """Send one transaction, if messages are stored."""
        # One after the other: no message is chosen twice, and between the signatures the reactor can do other things.
        async with self._choosing:
            transaction = await self._next_transaction()
        if transaction is not None and self._moved_reason is not None:
            await self._store_again(transaction, self._moved_reason)
        elif transaction is not None:
            await self._offer(transaction)

    async def _next_transaction(self) -> TransactionInFlight | None:
        """Choose messages, sign them, and put them in flight on disk; None when none can be sent now."""
        # The chain may have halted, or gone, since the turn began.
        while self._has_more and self._moved_reason is None and self._watcher.problem is None:
            head, signer, number = self._watcher.head, self._signer, self._account_number
            if head is None or signer is None:
                return None
            room = self._settings.max_transaction_bytes - signer.size_of([])
            chosen = await self._submissions.next_messages(head.height + 1, room, self._settings.max_nonces)
            timeout_ns = self._timestamps.next(head.block_time_ns) if chosen else None
            self._has_more = timeout_ns is not None
            if timeout_ns is None:
                if chosen:
                    raise ChainUnavailableError(_NO_TIMESTAMP)
                return None
            signed = signer.sign([(message.type_url, message.body) for message in chosen], timeout_ns)
            messages = [message.in_flight() for message in chosen]
            # Not if one of them failed or expired meanwhile: what is not on disk must not be sent.
            if await self._submissions.put_in_flight(messages, signed.hash, timeout_ns):
                transaction = TransactionInFlight(
                    signed.hash, timeout_ns, messages, signed.raw, may_be_known=False, account_number=number
                )
                self._in_flight[signed.hash] = transaction
                return transaction
        return None

    async def _look_up_all(self, height: int) -> None:
        """Look transactions up where that may tell something new: in a new block, and now and then."""
        now = self._reactor.seconds()
        last_height, last_time = self._looked_up
        if height != last_height or now - last_time >= self._settings.offer_again_seconds:
            await _all(self._look_up(transaction) for transaction in list(self._in_flight.values()))
            self._looked_up = (height, now)

    async def _look_up(self, transaction: TransactionInFlight) -> None:
        """See whether a transaction is in a block, or can be in none any more; else offer it again now and then."""
        lookup = await self._rpc.lookup(transaction.hash)
        self._check_chain(lookup.status)
        is_due = self._reactor.seconds() - transaction.offered_at >= self._settings.offer_again_seconds
        if lookup.result is not None:
            result = lookup.result
            if result.code == 0:
                await self._confirm(transaction, result)
                self._forget(transaction)
                self._problem = None
                self._log_once.is_new(None)
            else:
                await self._act_on_code(transaction, result.code, result.codespace, result.log, result.height)
        elif lookup.status.block_time_ns > transaction.timeout_ns:
            # The node has looked through every block that its time allowed.
            await self._store_again(transaction, _PASSED, has_vanished=True)
        elif is_due and self._moved_reason is None:
            await self._offer(transaction)

    async def _confirm(self, transaction: TransactionInFlight, result: TxResult) -> None:
        """Confirm the messages of a transaction that is in a block with code 0; a claim that is not paid fails."""
        others = list(transaction.messages)
        for claim, is_paid, reason in claim_answers(transaction.messages, result.data):
            others.remove(claim)
            if is_paid:
                await self._submissions.confirm([claim], transaction.hash, result.height, reason=reason)
            else:
                await self._submissions.fail([claim], transaction.hash, str(reason))
        if others:
            await self._submissions.confirm(others, transaction.hash, result.height)

    async def _offer(self, transaction: TransactionInFlight) -> None:
        """Offer a transaction's bytes to a mempool; a refusal counts only if no mempool can have had them before."""
        if transaction.raw is None and self._signer is not None:
            transaction.raw = await self._sign_anew(transaction, self._signer)
        transaction.offered_at = self._reactor.seconds()
        if transaction.raw is None:
            return
        is_first = not transaction.may_be_known
        try:
            await self._rpc.broadcast_tx_sync(transaction.raw)
        except ChainRefusedError as error:
            if is_first:
                await self._act_on_code(transaction, error.code, error.codespace, error.log, None)
            else:
                self._record_problem(error)
        except (ChainUnavailableError, ChainStaleError) as error:
            # What is stale may be so because it is in a block already, by way of another node: time decides.
            transaction.may_be_known = True
            self._record_problem(error)
        else:
            transaction.may_be_known = True

    async def _sign_anew(self, transaction: TransactionInFlight, signer: TransactionSigner) -> bytes | None:
        """Make the bytes of a former process's transaction anew: same messages, same timestamp, same bytes."""
        bodies = await self._submissions.bodies(transaction.messages)
        if len(bodies) != len(transaction.messages):
            return None
        urls = [message.type_url for message in transaction.messages]
        signed = signer.sign(list(zip(urls, bodies, strict=True)), transaction.timeout_ns)
        # Another key, chain or version signs other bytes: then only its time decides.
        return signed.raw if signed.hash == transaction.hash else None

    async def _act_on_code(
        self, transaction: TransactionInFlight, code: int, codespace: str, log: str, height: int | None
    ) -> None:
        """Do what a code that is not 0 asks for; ``height`` is the block's, None when no mempool took it."""
        outcome = judge(code, codespace, log)
        reason = f"{codespace} {code}: {log}"
        if outcome is Outcome.MOVED:
            self._stop_sending(reason)
        if outcome is Outcome.SIGNATURE:
            # The number of the account may have changed, and then the transaction was signed for another one.
            await self._make_signer()
        is_for_another = outcome is Outcome.SIGNATURE and self._account_number != transaction.account_number
        if is_for_another or outcome in (Outcome.MOVED, Outcome.SIGN_AGAIN):
            await self._store_again(transaction, reason)
            return
        are_wrapped = self._key.address != self._participant_address
        blamed = messages_blamed(transaction.messages, code, codespace, log, are_wrapped=are_wrapped)
        if blamed is None:
            await self._store_again(transaction, reason, alone=True)
            return
        others = [message for message in transaction.messages if message not in blamed]
        if others:
            await self._submissions.store_again(others, transaction.hash, "its transaction's neighbour failed")
            transaction.messages = blamed
        await self._act_on_outcome(transaction, outcome, reason, height)
        self._forget(transaction)

    async def _act_on_outcome(
        self, transaction: TransactionInFlight, outcome: Outcome, reason: str, height: int | None
    ) -> None:
        """Do what an outcome asks for with all messages of a transaction; they are several only if of one kind."""
        messages = transaction.messages
        first = messages[0]
        head = self._watcher.head
        block = height if height is not None else head.height if head is not None else 0
        # A mempool's answer is about the block that comes next: the one after that is the next to try.
        following = block + 2 if height is None else block + 1
        not_before = (
            await next_chance(self._rpc, first.kind, first.height, following) if outcome is Outcome.NEXT_BLOCK else None
        )
        if not_before is not None:
            await self._submissions.store_again(messages, transaction.hash, reason, not_before=not_before)
        elif outcome is Outcome.DUPLICATE and await self._is_ours(first):
            await self._submissions.confirm(messages, transaction.hash, block, reason=reason)
        elif outcome is Outcome.NEXT_BLOCK:
            # The window is over, and so it is for all that is stored of this stage and kind.
            await self._submissions.store_again(messages, transaction.hash, reason)
            await self._submissions.expire(first.height, first.kind, reason)
        else:
            await self._submissions.fail(messages, transaction.hash, reason)

    async def _is_ours(self, verdict: Message) -> bool:
        """Return whether the verdict that the chain has is this one."""
        is_on_chain = await self._submissions.is_on_chain(verdict)
        # Where none is known, it came by a transaction of ours that vanished, if there is one.
        return verdict.attempts > 1 if is_on_chain is None else is_on_chain

    async def _store_again(
        self, transaction: TransactionInFlight, reason: str, *, alone: bool = False, has_vanished: bool = False
    ) -> None:
        """Let the messages of a transaction that will be in no block, or did nothing in one, go into others."""
        await self._submissions.store_again(
            transaction.messages, transaction.hash, reason, alone=alone, has_vanished=has_vanished
        )
        self.log.info("transaction {hash} does nothing any more: {reason}", hash=transaction.hash, reason=reason)
        self._forget(transaction)

    def _forget(self, transaction: TransactionInFlight) -> None:
        del self._in_flight[transaction.hash]
        # There is room for another one.
        self._wake.ring()

    def _stop_sending(self, reason: str) -> None:
        if self._moved_reason is None:
            self._moved_reason = f"the network has moved to PoC v2: nothing is sent, everything is kept ({reason})"
            self.log.critical("{reason}", reason=self._moved_reason)

    def _record_problem(self, error: Exception) -> None:
        if isinstance(error, ChainRefusedError) and _is_of_a_moved_network(error):
            self._stop_sending(str(error))
        self._problem = str(error)
        # Other counts and times in it are no news.
        if self._log_once.is_new(_DIGITS.sub("#", self._problem)):
            self.log.warn("trying again in a few seconds: {error}", error=self._problem)


def _is_of_a_moved_network(error: ChainRefusedError) -> bool:
    return judge(error.code, error.codespace, error.log) is Outcome.MOVED


async def _all(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Take steps side by side, all of them to their end; then raise the first failure, if there is one."""
    running = [Deferred.fromCoroutine(step) for step in steps]
    for succeeded, result in await DeferredList(running, consumeErrors=True):
        if not succeeded:
            cast(Failure, result).raiseException()
