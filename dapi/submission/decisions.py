"""Decides what becomes of the messages of a transaction, from what the chain says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from twisted.logger import Logger

from dapi.chain.block_watcher import BlockWatcher
from dapi.chain.rpc import ChainRpc
from dapi.chain.rpc_answers import TxResult
from dapi.messages import Kind
from dapi.phases.epoch_queries import next_chance
from dapi.submission.answers import claim_answers
from dapi.submission.outcomes import Outcome, half_of, judge, limit_after_neighbour, messages_blamed
from dapi.submission.rows import Message, TransactionInFlight
from dapi.submission.state import SendingState
from dapi.submission.submissions import Submissions

_PASSED = "in no block when its time had passed"
_FAR_AHEAD = "its time is further ahead of the chain's than any block takes"
# What comes in from the nodes waits for the same thread.
_CONFIRMED_AT_ONCE = 1000
# What a mempool has refused is offered again after so many blocks.
_BLOCKS_AFTER_A_REFUSAL = 3


class Answer(NamedTuple):
    """A code that is not 0; ``height`` is the block that it stands in, None when no mempool took the transaction."""

    code: int
    codespace: str
    log: str
    height: int | None

    @property
    def reason(self) -> str:
        """What the messages' rows say."""
        return f"{self.codespace} {self.code}: {self.log}"


# Of each codespace, the codes that are told apart where they are counted: a chain may answer any number.
_CODES = {"inference": range(1100, 1200), "sdk": range(1, 64), "authz": range(1, 16), "rpc": range(1, 64)}


def _code_label(answer: Answer) -> str:
    is_known = answer.code in _CODES.get(answer.codespace, ())
    return f"{answer.codespace}/{answer.code}" if is_known else "other"


class Decisions:
    """Brings messages that are in flight to their end, or stores them again. Its methods raise StoreError, ChainError.

    Final is only a code from a block, or the end of the window. What a mempool says is the word of one node at one
    moment: its messages are stored again, and are sent again some blocks later.

    ``outcomes`` counts the transactions by what became of them and by their code, such as ``inference/1108``.
    """

    log = Logger()

    def __init__(
        self,
        submissions: Submissions,
        rpc: ChainRpc,
        watcher: BlockWatcher,
        state: SendingState,
    ) -> None:
        self._submissions = submissions
        self._rpc = rpc
        self._watcher = watcher
        self._signing, self._pace = state.signing, state.pace
        self._problems, self._in_flight = state.problems, state.in_flight
        self.outcomes: Counter[tuple[str, str]] = Counter()

    async def confirm(self, transaction: TransactionInFlight, result: TxResult) -> None:
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
        self._record_confirmed(transaction)

    async def confirm_all(self, confirmed: Sequence[tuple[TransactionInFlight, TxResult]]) -> None:
        """Do what ``confirm`` does, with few commits: a block may have hundreds of our transactions."""
        waiting = []
        for each in confirmed:
            if each[0].messages[0].kind is Kind.CLAIM:
                await self.confirm(*each)
            else:
                waiting.append(each)
        while waiting:
            some, number = [], 0
            while waiting and number < _CONFIRMED_AT_ONCE:
                some.append(waiting.pop())
                number += len(some[-1][0].messages)
            await self._submissions.confirm_all([(transaction, result.height) for transaction, result in some])
            for transaction, _ in some:
                self._record_confirmed(transaction)

    def _record_confirmed(self, transaction: TransactionInFlight) -> None:
        self._forget(transaction)
        self._pace.confirmed()
        self._problems.confirmed()
        self._problems.release(transaction.messages[0].kind)
        self.outcomes["confirmed", "0"] += 1

    async def time_has_passed(self, transaction: TransactionInFlight) -> None:
        """Store the messages of a transaction again that is in no block, and can be in none any more."""
        await self._give_up(transaction, _PASSED)

    async def time_is_far_ahead(self, transaction: TransactionInFlight) -> None:
        """Store the messages of a transaction again that is in no block, and can be in none for long."""
        await self._give_up(transaction, _FAR_AHEAD)

    async def _give_up(self, transaction: TransactionInFlight, reason: str) -> None:
        await self.store_again(transaction, reason, has_vanished=True)
        self.outcomes["vanished", ""] += 1

    async def store_again(
        self,
        transaction: TransactionInFlight,
        reason: str,
        *,
        not_before: int = 0,
        max_messages: int = 0,
        has_vanished: bool = False,
    ) -> None:
        """Let the messages of a transaction that will be in no block, or did nothing in one, go into others."""
        await self._submissions.store_again(
            transaction.messages,
            transaction.hash,
            reason,
            not_before=not_before,
            max_messages=max_messages,
            has_vanished=has_vanished,
        )
        self.log.info("transaction {hash} is given up: {reason}", hash=transaction.hash, reason=reason)
        self._forget(transaction)

    async def act(self, transaction: TransactionInFlight, answer: Answer) -> None:
        """Do what a code that is not 0 asks for."""
        outcome = judge(answer.code, answer.codespace, answer.log)
        if outcome is Outcome.SIGNATURE:
            # The number of the account may have changed, and then the transaction was signed for another one.
            await self._signing.refresh()
            is_for_another = self._signing.account_number != transaction.account_number
            outcome = Outcome.SIGN_AGAIN if is_for_another else Outcome.PROBLEM
        elif outcome is Outcome.GAS_LIMIT:
            is_lower = await self._signing.lower_gas_limit(answer.log)
            outcome = Outcome.SIGN_AGAIN if is_lower else Outcome.PROBLEM
        messages = transaction.messages
        if outcome is Outcome.TOO_LARGE or (outcome is Outcome.TOO_MUCH and len(messages) > 1):
            await self._make_smaller(transaction, outcome, answer)
        elif outcome is Outcome.MOVED:
            self._problems.stop_sending(answer.reason)
            await self.store_again(transaction, answer.reason)
        elif outcome is Outcome.SIGN_AGAIN:
            await self.store_again(transaction, answer.reason)
        elif outcome is Outcome.PROBLEM:
            reason = self._problems.hold(messages[0].kind, answer.codespace, answer.code, answer.log)
            await self.store_again(transaction, reason)
        else:
            await self._act_on_blamed(transaction, outcome, answer)
        # At the end: what fails on the way is done again.
        self.outcomes[outcome.value.replace(" ", "_"), _code_label(answer)] += 1

    async def _make_smaller(self, transaction: TransactionInFlight, outcome: Outcome, answer: Answer) -> None:
        """Have the messages of a transaction that was refused as a whole go in halves, and the next ones be smaller."""
        number = len(transaction.messages)
        text = "a transaction of {number} messages and {size} bytes was refused; the next ones are smaller: {reason}"
        self.log.warn(text, number=number, size=transaction.size, reason=answer.reason)
        is_smaller = True
        if outcome is Outcome.TOO_LARGE:
            is_smaller = self._pace.too_large(transaction.size, answer.log)
        else:
            self._pace.too_many(number)
        not_before = 0 if is_smaller else self._block_of(answer) + _BLOCKS_AFTER_A_REFUSAL
        half = half_of(transaction.messages)
        await self.store_again(transaction, answer.reason, not_before=not_before, max_messages=half)

    async def _act_on_blamed(self, transaction: TransactionInFlight, outcome: Outcome, answer: Answer) -> None:
        """Do what an outcome asks for with those messages that it is about; the others go again at once."""
        messages = transaction.messages
        is_indexed = transaction.account_number is not None
        blamed = messages_blamed(messages, answer.code, answer.codespace, answer.log, is_indexed=is_indexed)
        if blamed is None:
            await self.store_again(transaction, answer.reason, max_messages=half_of(messages))
            return
        if others := [message for message in messages if message not in blamed]:
            reason = "its transaction's neighbour failed"
            limit = limit_after_neighbour(others)
            await self._submissions.store_again(others, transaction.hash, reason, max_messages=limit)
            transaction.messages = blamed
        if answer.height is not None:
            # The chain executes messages of this kind.
            self._problems.release(blamed[0].kind)
        await self._act_on_outcome(transaction, outcome, answer)
        self._forget(transaction)

    async def _act_on_outcome(self, transaction: TransactionInFlight, outcome: Outcome, answer: Answer) -> None:
        """Do what an outcome asks for with all messages of a transaction; they are several only if of one kind."""
        messages, reason = transaction.messages, answer.reason
        first, block = messages[0], self._block_of(answer)
        if outcome is Outcome.DUPLICATE and await self._is_ours(first, answer):
            await self._submissions.confirm(messages, transaction.hash, block, reason=reason)
        elif outcome is Outcome.NEXT_BLOCK:
            # A mempool's answer is about the block that comes next: the one after that is the next to try.
            following = block + 2 if answer.height is None else block + 1
            chance = await next_chance(self._rpc, first.kind, first.height, following)
            # Where there is none, they must not be sent once more before they expire.
            not_before = following + _BLOCKS_AFTER_A_REFUSAL if chance is None else chance
            await self._submissions.store_again(messages, transaction.hash, reason, not_before=not_before)
            if chance is None:
                # The window is over, and so it is for all that is stored of this stage and kind.
                await self._submissions.expire(first.height, first.kind, reason)
        elif answer.height is None:
            not_before = block + _BLOCKS_AFTER_A_REFUSAL
            await self._submissions.store_again(messages, transaction.hash, reason, not_before=not_before)
        else:
            await self._submissions.fail(messages, transaction.hash, reason)

    def _block_of(self, answer: Answer) -> int:
        head = self._watcher.head
        return answer.height if answer.height is not None else head.height if head is not None else 0

    async def _is_ours(self, verdict: Message, answer: Answer) -> bool:
        """Return whether the verdict that the chain has is this one."""
        is_on_chain = await self._submissions.is_on_chain(verdict)
        if is_on_chain is not None:
            return is_on_chain
        # It came by a transaction of ours that vanished, if there is one; for that a mempool's word is not enough.
        return verdict.attempts > 1 and answer.height is not None

    def _forget(self, transaction: TransactionInFlight) -> None:
        # It may be decided already: an answer to an offer may come after the block.
        if transaction in self._in_flight:
            self._in_flight.remove(transaction)
