"""The outbox as the Submitter sees it: what is next, what is in which transaction, what became of it.

Every change is one transaction of the database. The states, and how a batch that is sent in parts passes through them,
are drawn in ``dapi.database.schema``. The parts' ids are derived from the batch's, so that a part that is sent twice
overwrites itself on the chain.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dapi.chain.rpc_answers import BlockInfo
from dapi.database import Database, transaction
from dapi.messages import Kind, State
from dapi.outbox import queries
from dapi.outbox.outbox import Outbox
from dapi.submission import rows
from dapi.submission.begin import Begun, Signer, begin_transactions
from dapi.submission.choice import Room
from dapi.submission.node_shares import NodeShares
from dapi.submission.rows import Changes, End, Message, TransactionInFlight

T = TypeVar("T")
Args = TypeVarTuple("Args")

# What comes in from the nodes waits for the same thread, and is to be acknowledged within 3 s.
_EXPIRED_AT_ONCE = 1000
# A chain that seems to make no block for 10 s counts as halted: nobody can be much further ahead than that.
_BLOCKS_AHEAD = 100


class Submissions:
    """Reads and changes the states of messages in the outbox. Every Deferred fails with StoreError.

    The outcome of a transaction is told with its hash, and only changes messages that are still in that one: to be told
    twice does no harm.
    """

    log = Logger()

    def __init__(self, database: Database, outbox: Outbox, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._outbox = outbox
        self._now = now
        # For the writer's thread alone.
        self._shares = NodeShares()

    def observe(self, observer: Callable[[], object]) -> None:
        """Call ``observer`` whenever there may be something new to send."""
        self._outbox.observe(observer)

    def known_block(self) -> Deferred[BlockInfo | None]:
        """Fire with the block by which the chain of the database is known, None when it is of no chain yet.

        Of an earlier version's database only the chain's id is known: the block has the height 0.
        """
        return self._database.write(rows.known_block)

    def latest_stage_block(self, height: int) -> Deferred[tuple[int, str] | None]:
        """Fire with height and hash of the block at which the latest regular stage below ``height`` began, or None."""
        return self._database.read(partial(rows.latest_stage_block, height=height))

    def keep_block(self, block: BlockInfo) -> Deferred[None]:
        """Know the chain of the database by this block from now on."""
        return self._change(lambda connection, _: rows.keep_block(connection, block))

    def enter_chain(self, block: BlockInfo, other: str | None) -> Deferred[None]:
        """Begin afresh for the chain of this block if it is another one than the database's; ``other`` says why it is.

        What is of the chain before is set apart, and never sent. To be called before anything else is asked or changed
        for a chain; see ChainIdentity.
        """
        return self._change(rows.enter_chain, block, other, self._now()).addCallback(self._entered, other)

    def _entered(self, former: tuple[str, int] | None, other: str | None) -> None:
        if former is not None:
            text = "this is another chain, {reason}: {number} messages for {former} are set apart, and are not sent"
            self.log.critical(text, reason=other, number=former[1], former=former[0])

    def begin(self, height: int, room: Room, signer: Signer) -> Deferred[list[Begun]]:
        """Choose what is sent next, sign it, and put it in flight; fires with the transactions when all are on disk.

        Each has messages of one stage and kind. A seed goes first, and alone; then what expires first, as it came, but
        for nodes that had more than others already (see NodeShares). ``height`` is
        the block that they can be in at the earliest. A batch with too many nonces for the ``room`` is cut into parts
        here. One that the disk has damaged fails here.
        """
        begun = self._change(begin_transactions, height, room, signer, self._shares, self._now())
        return begun.addCallback(self._warn_of_damage)

    def _warn_of_damage(self, begun: tuple[list[Begun], int]) -> list[Begun]:
        transactions, damaged = begun
        if damaged:
            self.log.critical("{number} batches are damaged on disk, and failed: look at the disk", number=damaged)
        return transactions

    def transactions_in_flight(self) -> Deferred[list[TransactionInFlight]]:
        """Fire with the transactions in flight, as a former process or a former start left them."""
        # By the writer: behind what was being written when the submitter was stopped.
        return self._database.write(rows.transactions_in_flight)

    def bodies(self, messages: Sequence[Message]) -> Deferred[list[bytes]]:
        """Fire with the bodies of messages, in their order; one that is finished is missing."""
        return self._database.read(partial(rows.bodies, messages=messages))

    def confirm(
        self, messages: Sequence[Message], tx_hash: str, height: int, *, reason: str | None = None
    ) -> Deferred[None]:
        """Finish messages that are on the chain, in the block ``height`` or, for a ``reason``, before it."""
        return self._change(rows.confirm, messages, End(State.CONFIRMED, self._now(), tx_hash, height, reason))

    def confirm_all(self, transactions: Sequence[tuple[TransactionInFlight, int]]) -> Deferred[None]:
        """Finish the messages of transactions, each with the block that it is in, with one commit."""
        return self._change(rows.confirm_all, transactions, self._now())

    def fail(self, messages: Sequence[Message], tx_hash: str, reason: str) -> Deferred[None]:
        """Finish messages of one kind that the chain will never take; they are kept whole, and logged as lost."""
        end = End(State.FAILED, self._now(), tx_hash, None, reason)
        failing = self._change(rows.fail, messages, end)
        return failing.addCallback(lambda _: self._log_loss(len(messages), messages[0].kind, messages[0].height, end))

    def _log_loss(self, number: int, kind: Kind, height: int, end: End) -> None:
        text = "{number} {kind} messages of stage {height} {state}: {reason}"
        self.log.error(text, number=number, kind=kind, height=height, state=end.state, reason=end.reason)
        if kind is Kind.SEED:
            self.log.critical(
                "the seed of stage {height} {state}: the stage counts nothing", height=height, state=end.state
            )

    def store_again(
        self,
        messages: Sequence[Message],
        tx_hash: str,
        reason: str,
        *,
        not_before: int = 0,
        max_messages: int = 0,
        has_vanished: bool = False,
    ) -> Deferred[None]:
        """Take messages out of their transaction, to be sent in another one.

        That is in no block before ``not_before``, and has at most ``max_messages``; 0 changes nothing in that.
        ``has_vanished`` tells that the chain has said nothing of the transaction that they were in.
        """
        return self._change(
            rows.store_again, messages, tx_hash, reason, not_before, max_messages, has_vanished, self._now()
        )

    def is_on_chain(self, verdict: Message) -> Deferred[bool | None]:
        """Fire with whether the chain has this very verdict from us (True) or another one on the same participant.

        None: as far as this database knows it has none.
        """
        return self._database.read(partial(rows.is_on_chain, verdict=verdict))

    def stages_unfinished(self, seconds: float) -> Deferred[list[tuple[int, Kind, State]]]:
        """Fire with the PoC stages (their start heights) and kinds of which messages are stored or in flight.

        Those in flight are told only if they came more than ``seconds`` ago.
        """
        return self._database.read(partial(rows.stages_unfinished, received_before=self._now() - seconds))

    def has_waited(self, height: int, kind: Kind, seconds: float) -> Deferred[bool]:
        """Fire with whether a message of a stage and kind is stored that came more than ``seconds`` ago."""
        values = {"height": height, "kind": kind, "received_before": self._now() - seconds}
        return self._database.read(partial(_value, queries.HAS_WAITED, values)).addCallback(bool)

    def expire(self, height: int, kind: Kind, reason: str, *, is_loss: bool = True) -> Deferred[int]:
        """Finish what is stored of a stage and kind whose window is over, and log it as lost, unless it is no loss.

        Fires with the number of batches.
        """
        return Deferred.fromCoroutine(self._expire(height, kind, reason, is_loss))

    async def _expire(self, height: int, kind: Kind, reason: str, is_loss: bool) -> int:
        number = 0
        end = End(State.EXPIRED, self._now(), reason=reason)
        while expired := await self._change(rows.expire, height, kind, _EXPIRED_AT_ONCE, end):
            number += expired
        if number and is_loss:
            self._log_loss(number, kind, height, end)
        return number

    def end_without_stage(self, height: int, known: Collection[int]) -> Deferred[int]:
        """Finish what is stored for a stage that there never was; ``height`` is the latest block's.

        ``known`` are the heights of stages that the chain has told of. Fires with the number of messages.
        """
        return Deferred.fromCoroutine(self._end_without_stage(height, known))

    async def _end_without_stage(self, height: int, known: Collection[int]) -> int:
        number = 0
        bounds = (height, _BLOCKS_AHEAD, known, _EXPIRED_AT_ONCE)
        while ended := await self._change(rows.end_without_stage, *bounds, self._now()):
            number += ended
        if number:
            text = "{number} messages expired that no PoC stage was for: the chain is at block {height}"
            self.log.warn(text, number=number, height=height)
        return number

    def last_timeout(self) -> Deferred[int]:
        """Fire with the greatest timestamp (ns) that a transaction was ever given, 0 when there was none."""
        return self._database.write(partial(_value, queries.LAST_TIMEOUT, {}))

    def oldest_received_at(self) -> Deferred[float | None]:
        """Fire with the time (unix seconds) at which the oldest unfinished message came, None when there is none."""
        return self._database.read(partial(_value, queries.OLDEST_RECEIVED_AT, {}))

    def _change(self, function: Callable[[sqlite3.Connection, Changes, *Args], T], *args: *Args) -> Deferred[T]:
        """Run a function of ``rows`` inside one transaction, and tell the outbox what changed when it is on disk."""
        changes = Changes()

        def change(connection: sqlite3.Connection) -> T:
            with transaction(connection):
                return function(connection, changes, *args)

        def count(result: T) -> T:
            self._outbox.count_changes(changes)
            return result

        return self._database.write(change).addCallback(count)


def _value(query: str, values: dict[str, object], connection: sqlite3.Connection) -> Any:
    (value,) = connection.execute(query, values).fetchone()
    return value
