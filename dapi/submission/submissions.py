"""The outbox as its submitter sees it: what is next, what is under way in which transaction, what became of it.

Every change is one transaction of the database. A batch of more nonces than the chain takes in one message is cut into
parts: rows of their own that point to it, under ids derived from its id, so that a part that is sent twice overwrites
itself on the chain. The batch is done when its last part is, and failed with its first part that fails, but not before
all its transactions are decided: when it is sent again, none of its parts is under way any more.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dapi.database import Database, transaction
from dapi.messages import Kind
from dapi.outbox.outbox import Outbox
from dapi.submission import rows
from dapi.submission.choice import next_messages
from dapi.submission.rows import Changes, Message, Transaction

T = TypeVar("T")

# What comes in from the nodes waits for the same thread, and is to be acknowledged within 3 s.
_EXPIRED_AT_ONCE = 1000


class Submissions:
    """Takes messages out of the outbox, and tells it what became of them.

    What became of them is told with the hash of their transaction, and only changes messages that are still in that
    one: to be told twice does no harm. Every Deferred fails with StoreError.
    """

    log = Logger()

    def __init__(self, database: Database, outbox: Outbox, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._outbox = outbox
        self._now = now

    def observe(self, observer: Callable[[], None]) -> None:
        """Have ``observer`` called whenever there may be something new to send."""
        self._outbox.observe(observer)

    def next_messages(self, height: int, max_bytes: int, max_nonces: int) -> Deferred[list[Message]]:
        """Fire with the messages that belong into the next transaction, those with the oldest deadline first.

        ``height`` is the block that it can be in at the earliest, ``max_bytes`` what the messages may take together,
        ``max_nonces`` what one message may hold: larger ones are cut into parts here. What the disk has damaged fails
        here, and does not stand in the way of the others.
        """
        damaged: set[int] = set()
        choose = partial(
            next_messages,
            height=height,
            max_bytes=max_bytes,
            max_nonces=max_nonces,
            damaged=damaged,
            now=self._now(),
        )
        return self._change(choose).addCallback(self._tell_damaged, damaged)

    def _tell_damaged(self, messages: list[Message], damaged: set[int]) -> list[Message]:
        if damaged:
            self.log.critical("{number} batches are damaged on disk, and failed: look at the disk", number=len(damaged))
        return messages

    def sent(self, messages: Sequence[Message], tx_hash: str, timeout_ns: int) -> Deferred[None]:
        """Note that a transaction is about to be sent; fires when that is on disk, and only then it may be.

        Fails with StoreBusyError, and nothing is noted, when a message was given up since it was chosen.
        """
        return self._change(partial(rows.sent, seqs=_seqs(messages), tx_hash=tx_hash, timeout_ns=timeout_ns))

    def in_flight(self) -> Deferred[list[Transaction]]:
        """Fire with the transactions that are under way, as a former process or a former start left them."""
        # By the writer: behind what was being noted when its submitter was stopped.
        return self._database.write(rows.in_flight)

    def bodies(self, messages: Sequence[Message]) -> Deferred[list[bytes]]:
        """Fire with the bodies of messages, in their order; one that is gone is missing."""
        return self._database.read(partial(rows.bodies, seqs=_seqs(messages)))

    def confirmed(
        self, messages: Sequence[Message], tx_hash: str, height: int, *, reason: str | None = None
    ) -> Deferred[None]:
        """Note that messages are on the chain, in the block ``height`` or, for a ``reason``, before it."""
        finish = partial(
            rows.confirmed, seqs=_seqs(messages), tx_hash=tx_hash, height=height, reason=reason, now=self._now()
        )
        return self._change(finish)

    def failed(self, messages: Sequence[Message], tx_hash: str, reason: str) -> Deferred[None]:
        """Note that the chain will never take messages; they are kept, and may be sent again."""
        fail = partial(rows.failed, seqs=_seqs(messages), tx_hash=tx_hash, reason=reason, now=self._now())
        return self._change(fail)

    def again(
        self,
        messages: Sequence[Message],
        tx_hash: str,
        reason: str,
        *,
        not_before: int = 0,
        alone: bool = False,
        has_vanished: bool = False,
    ) -> Deferred[None]:
        """Have messages sent in another transaction, not before the block ``not_before``, each ``alone`` if so.

        ``has_vanished`` tells that nothing was heard of the transaction that they were in.
        """
        again = partial(
            rows.again,
            seqs=_seqs(messages),
            tx_hash=tx_hash,
            reason=reason,
            not_before=not_before,
            alone=alone,
            has_vanished=has_vanished,
            now=self._now(),
        )
        return self._change(again)

    def is_on_chain(self, verdict: Message) -> Deferred[bool | None]:
        """Fire with whether the chain has this very verdict from us (True) or another one on the same participant.

        None: as far as this database knows it has none.
        """
        return self._database.read(partial(rows.is_on_chain, seq=verdict.seq))

    def stages_waiting(self) -> Deferred[list[tuple[int, Kind]]]:
        """Fire with the PoC stages (their start heights) and kinds of which there are messages that wait."""
        return self._database.read(rows.stages_waiting)

    def stages_unconfirmed(self, seconds: float) -> Deferred[list[tuple[int, Kind]]]:
        """Fire with the PoC stages and kinds of which there are messages under way that came so long ago."""
        return self._database.read(partial(rows.stages_unconfirmed, received_before=self._now() - seconds))

    def expire(self, height: int, kind: Kind, reason: str) -> Deferred[int]:
        """Give up what waits of a stage: its window is over. Fires with the number of batches."""
        return Deferred.fromCoroutine(self._expire(height, kind, reason))

    async def _expire(self, height: int, kind: Kind, reason: str) -> int:
        number = 0
        expire = partial(rows.expire, height=height, kind=kind, reason=reason, limit=_EXPIRED_AT_ONCE, now=self._now())
        while expired := await self._change(expire):
            number += expired
        return number

    def last_timeout(self) -> Deferred[int]:
        """Fire with the greatest timestamp (ns) that a transaction was ever given, 0 when there was none."""
        return self._database.write(rows.last_timeout)

    def oldest_received_at(self) -> Deferred[float | None]:
        """Fire with the time (unix seconds) at which the oldest message that waits came, None when none waits."""
        return self._database.read(rows.oldest_received_at)

    def _change(self, function: Callable[[sqlite3.Connection, Changes], T]) -> Deferred[T]:
        changes: Changes = {}

        def change(connection: sqlite3.Connection) -> T:
            with transaction(connection):
                return function(connection, changes)

        def count(result: T) -> T:
            self._outbox.count_changes(changes)
            return result

        return self._database.write(change).addCallback(count)


def _seqs(messages: Sequence[Message]) -> str:
    return json.dumps([message.seq for message in messages])
