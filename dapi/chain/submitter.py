"""Takes what waits in the outbox to the chain, and marks it done when it is in a block.

The laws, all of them kept through a kill at any point:

- a transaction's hash and timestamp are on disk before its bytes leave;
- a message is in one transaction at a time: it goes into another only when the first one is known to be in no block and
  can be in none any more (its timestamp has passed), or was refused before any mempool had it;
- done means in a block with code 0; an accepted broadcast means nothing yet;
- the same bytes may be offered again as often as one likes: the chain takes them once.
"""

from __future__ import annotations

import random
from collections.abc import Coroutine, Iterable
from typing import Any, cast

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.keyring import SigningKey
from dapi.chain.outcomes import Outcome, culprit, judge
from dapi.chain.queries import account_number, poc_stages
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import ChainStatus
from dapi.chain.submissions import Message, Submissions
from dapi.chain.transactions import TimestampSource, TransactionSigner
from dapi.errors import ChainRefusedError, ChainStaleError, ChainUnavailableError, StoreBusyError

_PASSED = "in no block when its time had passed"


@attrs.frozen
class SubmitterSettings:
    """Bounds of what is under way.

    ``max_in_flight`` transactions at once, each of ``max_transaction_bytes`` at most (CometBFT's RPC takes about
    749,000), and ``max_nonces`` in one message (the chain's own limit). After a failure everything waits a
    random time between the two of ``retry``; a transaction that is in no block yet is offered again after
    ``offer_again_seconds``.
    """

    max_in_flight: int = 16
    max_transaction_bytes: int = 700_000
    max_nonces: int = 10_000
    retry_min_seconds: float = 3.0
    retry_max_seconds: float = 5.0
    offer_again_seconds: float = 3.0


@attrs.define(eq=False)
class _Transaction:
    """One transaction under way; ``raw`` is None when a former process made it and its bytes are not made anew yet.

    ``may_be_known`` tells that a mempool may have it, so that only time or a block decides what became of it.
    """

    hash: str
    timeout_ns: int
    messages: list[Message]
    raw: bytes | None
    may_be_known: bool
    offered_at: float | None = None


class Submitter(Service):
    """Sends what waits, many transactions at once, and follows each until a block or its own time has decided.

    ``key`` signs; ``participant_address`` is the creator of all messages, and another one where the key was granted the
    right to submit for it.

    While the chain has a problem (see BlockWatcher) nothing is sent and nothing grows: everything waits on disk.
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
        self._reactor = reactor
        self._submissions = submissions
        self._rpc = rpc
        self._watcher = watcher
        self._key = key
        self._participant_address = participant_address
        self._signs_for_itself = key.address == participant_address
        self._random = random
        self._settings = settings or SubmitterSettings()
        self._timestamps = TimestampSource(random)
        self._signer: TransactionSigner | None = None
        self._in_flight: dict[str, _Transaction] = {}
        self._has_moved: str | None = None
        self._last_error: str | None = None
        self._wake: Deferred[None] | None = None
        self._is_woken = False
        self._running: Deferred[None] = succeed(None)
        watcher.observe(self.wake)
        submissions.observe(self.wake)

    def startService(self) -> None:
        """Go on from what the database says."""
        super().startService()  # type: ignore[no-untyped-call]
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._ended)

    def stopService(self) -> Deferred[None]:
        """Stop; what is under way is found again by hash after the next start. Fires when nothing is left."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._running.cancel()
        return self._running

    def wake(self) -> None:
        """Look for work now: a block has come, or something was stored."""
        self._is_woken = True
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake.callback(None)

    def status(self) -> dict[str, object]:
        """Tell where the chain stands and how the sending goes.

        ``state`` is ``submitting``, ``waiting`` (nothing is sent now) or ``moved`` (nothing will be sent).
        """
        head = self._watcher.head
        reason = self._has_moved or self._watcher.problem
        return {
            "state": "moved" if self._has_moved else "waiting" if reason else "submitting",
            "reason": reason,
            "chain_id": head.chain_id if head else None,
            "height": head.height if head else None,
            "signer": self._key.address,
            "participant": self._participant_address,
            "transactions_in_flight": len(self._in_flight),
            "last_error": self._last_error,
        }

    async def _run(self) -> None:
        recovered = False
        while True:
            self._is_woken = False
            try:
                if not recovered:
                    await self._recover()
                    recovered = True
                await self._turn()
            except (ChainUnavailableError, StoreBusyError) as error:
                self._note(str(error))
                await deferLater(self._reactor, self._pause_seconds())
            else:
                await self._until_woken()

    def _pause_seconds(self) -> float:
        return self._random.uniform(self._settings.retry_min_seconds, self._settings.retry_max_seconds)

    async def _until_woken(self) -> None:
        if self._is_woken:
            return
        self._wake = Deferred()
        # A block wakes us; where none comes, what is under way is looked at all the same.
        timer = self._reactor.callLater(self._pause_seconds(), self.wake)
        try:
            await self._wake
        finally:
            if timer.active():
                timer.cancel()

    async def _recover(self) -> None:
        """Take up what a former process left under way."""
        self._timestamps.last = await self._submissions.last_timeout()
        for tx_hash, timeout_ns, messages in await self._submissions.in_flight():
            self._in_flight[tx_hash] = _Transaction(tx_hash, timeout_ns, messages, None, may_be_known=True)

    async def _turn(self) -> None:
        """Look at all that is under way, then send as much as there is room for."""
        head = self._watcher.head
        if head is None or self._watcher.problem is not None or self._has_moved:
            return
        if self._signer is None:
            self._signer = await self._make_signer(head.chain_id)
        await _all(self._look(transaction) for transaction in list(self._in_flight.values()))
        fresh = []
        while len(self._in_flight) < self._settings.max_in_flight and not self._has_moved:
            transaction = await self._next_transaction(self._signer, head)
            if transaction is None:
                break
            self._in_flight[transaction.hash] = transaction
            fresh.append(transaction)
        await _all(self._offer(transaction) for transaction in fresh)

    async def _make_signer(self, chain_id: str) -> TransactionSigner:
        try:
            number = await account_number(self._rpc, self._key.address)
        except ChainRefusedError as error:
            raise ChainUnavailableError(f"the signer's account {self._key.address}: {error.log}") from error
        return TransactionSigner(self._key, chain_id, number, self._participant_address)

    async def _next_transaction(self, signer: TransactionSigner, head: ChainStatus) -> _Transaction | None:
        """Take messages that wait, and have their transaction's hash on disk; None when none waits."""
        room = self._settings.max_transaction_bytes - signer.size_of([])
        messages = await self._submissions.next_messages(head.height + 1, room, self._settings.max_nonces)
        if not messages:
            return None
        timeout_ns = self._timestamps.next(head.block_time_ns)
        if timeout_ns is None:
            self._note("no timestamp is left that the chain would take: its clock is behind our last transaction's")
            return None
        signed = signer.sign([(message.type_url, message.body) for message in messages], timeout_ns)
        bare = [message.without_body() for message in messages]
        await self._submissions.sent(bare, signed.hash, timeout_ns)
        return _Transaction(signed.hash, timeout_ns, bare, signed.raw, may_be_known=False)

    async def _look(self, transaction: _Transaction) -> None:
        """See whether a transaction is in a block, or can be in none any more; else offer it again now and then."""
        lookup = await self._rpc.lookup(transaction.hash)
        if lookup.result is not None:
            result = lookup.result
            if result.code == 0:
                await self._submissions.confirmed(transaction.messages, transaction.hash, result.height)
                self._drop(transaction)
            else:
                await self._settle(transaction, result.code, result.codespace, result.log, result.height)
        elif lookup.status.block_time_ns > transaction.timeout_ns:
            # The node has looked through every block that its time allowed.
            await self._release(transaction, _PASSED)
        elif self._is_due(transaction):
            await self._offer(transaction)

    def _is_due(self, transaction: _Transaction) -> bool:
        offered_at = transaction.offered_at
        return offered_at is None or self._reactor.seconds() - offered_at >= self._settings.offer_again_seconds

    async def _offer(self, transaction: _Transaction) -> None:
        """Offer a transaction's bytes to a mempool; a refusal counts only if no mempool can have had them before."""
        if transaction.raw is None and self._signer is not None:
            transaction.raw = await self._sign_again(transaction, self._signer)
        transaction.offered_at = self._reactor.seconds()
        if transaction.raw is None:
            return
        is_first = not transaction.may_be_known
        try:
            await self._rpc.broadcast_tx_sync(transaction.raw)
        except ChainUnavailableError as error:
            transaction.may_be_known = True
            self._note(str(error))
        except ChainStaleError as error:
            if is_first:
                await self._release(transaction, error.log)
        except ChainRefusedError as error:
            if is_first:
                await self._settle(transaction, error.code, error.codespace, error.log, None)
        else:
            transaction.may_be_known = True

    async def _sign_again(self, transaction: _Transaction, signer: TransactionSigner) -> bytes | None:
        """Make the bytes of a former process's transaction anew: same messages, same timestamp, same bytes."""
        bodies = await self._submissions.bodies(transaction.messages)
        if len(bodies) != len(transaction.messages):
            return None
        urls = [message.type_url for message in transaction.messages]
        signed = signer.sign(list(zip(urls, bodies, strict=True)), transaction.timeout_ns)
        # Another key, chain or version signs other bytes: then only its time decides.
        return signed.raw if signed.hash == transaction.hash else None

    async def _settle(self, transaction: _Transaction, code: int, codespace: str, log: str, height: int | None) -> None:
        """Do what an answer with a code says; ``height`` is the block's, None when no mempool took it."""
        outcome = judge(code, codespace)
        reason = f"{codespace} {code}: {log}"
        if outcome is Outcome.MOVED:
            self._stop_sending(reason)
        if outcome in (Outcome.MOVED, Outcome.SIGN_AGAIN):
            await self._release(transaction, reason)
            return
        if len(transaction.messages) > 1:
            index = culprit(log) if self._signs_for_itself else None
            if index is None or index >= len(transaction.messages):
                # Which one it was is not told: each goes alone.
                await self._release(transaction, reason, alone=True)
                return
            guilty = transaction.messages.pop(index)
            await self._submissions.again(transaction.messages, transaction.hash, "its transaction's neighbour failed")
            transaction.messages = [guilty]
        await self._judge_message(transaction, outcome, reason, height)
        self._drop(transaction)

    async def _judge_message(
        self, transaction: _Transaction, outcome: Outcome, reason: str, height: int | None
    ) -> None:
        """Do what an answer says about a transaction's only message."""
        (message,) = transaction.messages
        head = self._watcher.head
        block = height if height is not None else head.height if head is not None else 0
        # A mempool's answer is about the block that comes next: the one after that is the next to try.
        following = block + 2 if height is None else block + 1
        not_before = await self._next_chance(message, following) if outcome is Outcome.NEXT_BLOCK else None
        if not_before is not None:
            await self._submissions.again([message], transaction.hash, reason, not_before=not_before)
        elif outcome is Outcome.SENT_BEFORE and message.attempts > 1:
            # An earlier transaction of ours with this very content got there.
            await self._submissions.confirmed([message], transaction.hash, block)
        else:
            await self._submissions.failed([message], transaction.hash, reason)
            self.log.error(
                "{kind} message of stage {height} failed: {reason}",
                kind=message.kind,
                height=message.height,
                reason=reason,
            )

    async def _next_chance(self, message: Message, following: int) -> int | None:
        """Return the first block from ``following`` on in which a message may be accepted; None: there is none."""
        stages = await poc_stages(self._rpc)
        window = next((stage.window(message.kind) for stage in stages if stage.height == message.height), None)
        if window is None:
            # The chain's node may not have come to that stage yet.
            return following if any(message.height > stage.height for stage in stages) else None
        return max(following, window.first) if following <= window.last else None

    async def _release(self, transaction: _Transaction, reason: str, *, alone: bool = False) -> None:
        """Let the messages of a transaction that will be in no block go into others."""
        await self._submissions.again(transaction.messages, transaction.hash, reason, alone=alone)
        self.log.info("transaction {hash} is given up: {reason}", hash=transaction.hash, reason=reason)
        self._drop(transaction)

    def _drop(self, transaction: _Transaction) -> None:
        del self._in_flight[transaction.hash]
        # There is room for another one.
        self.wake()

    def _stop_sending(self, reason: str) -> None:
        if self._has_moved is None:
            self._has_moved = f"the network has moved to PoC v2: nothing is sent, everything is kept ({reason})"
            self.log.critical("{reason}", reason=self._has_moved)

    def _note(self, error: str) -> None:
        if error != self._last_error:
            self.log.warn("the chain takes nothing now, trying again: {error}", error=error)
        self._last_error = error

    def _ended(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self.log.failure("submitting ended, which it never should", failure)


async def _all(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Take steps side by side, all of them to their end; then raise the first failure, if there is one."""
    running = [Deferred.fromCoroutine(step) for step in steps]
    for succeeded, result in await DeferredList(running, consumeErrors=True):
        if not succeeded:
            cast(Failure, result).raiseException()
