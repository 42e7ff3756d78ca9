"""The unfinished messages as rows of the database: what the writer's and the reader's threads do with them.

Each function is given the connection and runs inside one transaction of the database; one that changes states notes in
``changes`` what each state gained. The states are drawn in ``dapi.database.schema``. See Submissions.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from dapi.chain.rpc_answers import BlockInfo
from dapi.chain.transactions import (
    BATCH_TYPE_URL,
    CLAIM_TYPE_URL,
    HARDWARE_TYPE_URL,
    SEED_TYPE_URL,
    VALIDATION_TYPE_URL,
)
from dapi.database.schema import RowState
from dapi.messages import Kind, State
from dapi.messages.inference_pb2 import MsgSubmitPocValidation
from dapi.outbox import chain_queries, queries
from dapi.outbox.counts import Counts, kind_of

TYPE_URLS = {
    Kind.GENERATED: BATCH_TYPE_URL,
    Kind.VALIDATED: VALIDATION_TYPE_URL,
    Kind.SEED: SEED_TYPE_URL,
    Kind.HARDWARE: HARDWARE_TYPE_URL,
    Kind.CLAIM: CLAIM_TYPE_URL,
}

# What is of one chain alone.
_FORGET = (
    queries.FORGET_STAGES,
    queries.FORGET_ALL_HANDED_OUT,
    queries.FORGET_LAST_TIMEOUT,
    chain_queries.FORGET_CHAIN,
)

_ANSWER_CHARACTERS = 60
# Of a block's hash, in the name of a chain.
_HASH_DIGITS = 8

Changes = Counts
"""What each kind and state gained, in batches."""


class Message(msgspec.Struct, frozen=True):
    """An unfinished message; ``body`` is its protobuf form without creator, left out where it is not needed.

    ``attempts`` counts its transactions of which the chain has said nothing: the one that it is in now, and those that
    were in no block when their time had passed. Its transaction has at most ``max_messages``, 0 for any number.
    """

    seq: int
    kind: Kind
    height: int
    attempts: int
    max_messages: int = 0
    body: bytes = b""

    @property
    def type_url(self) -> str:
        """The name of its type on the chain."""
        return TYPE_URLS[self.kind]

    def in_flight(self) -> Message:
        """Return it as it is once it is in a transaction, without its body."""
        return msgspec.structs.replace(self, body=b"", attempts=self.attempts + 1)


class TransactionInFlight(msgspec.Struct, eq=False):
    """A transaction that may be in a block some day, with its messages in their order, all of one stage and kind.

    It is in no block before ``first_height``, and ``timeout_ns`` is the block time after which no block takes it.
    ``size`` is about its number of bytes; the bytes themselves are not kept, they can be made anew. ``account_number``
    is what it was signed for, None for one of a former process, which may have been another version.
    ``may_be_known`` tells that a mempool may have it, so that only time or a block decides what became of it;
    ``is_taken`` that one has said so. ``offers`` counts how often it was offered, ``offered_at`` is when, on the
    reactor's clock, and ``is_being_offered`` tells that an answer is waited for.
    """

    hash: str
    timeout_ns: int
    messages: list[Message]
    first_height: int = 0
    size: int = 0
    may_be_known: bool = True
    is_taken: bool = False
    account_number: int | None = None
    offers: int = 0
    offered_at: float = float("-inf")
    is_being_offered: bool = False


class End(NamedTuple):
    """How messages end: in which state, when (unix seconds), in which transaction and block, and why.

    Without ``keeps_body`` nothing is kept that could be sent.
    """

    state: State
    now: float
    tx_hash: str | None = None
    height: int | None = None
    reason: str | None = None
    keeps_body: bool = True


def seqs_of(messages: Iterable[Message]) -> str:
    """Return the numbers of messages as the statements take them."""
    return json.dumps([message.seq for message in messages])


def put_in_flight(
    connection: sqlite3.Connection,
    changes: Changes,
    messages: Sequence[Message],
    tx_hash: str,
    timeout_ns: int,
    first_height: int,
) -> None:
    """Move messages: stored -> in_flight; none of them when one is not stored any more."""
    values = {"seqs": seqs_of(messages), "tx_hash": tx_hash, "timeout_ns": timeout_ns, "first_height": first_height}
    moved = connection.execute(queries.PUT_IN_FLIGHT, values).fetchall()
    if moved:
        connection.execute(queries.SAVE_LAST_TIMEOUT, values)
        count(changes, messages[0].kind, State.STORED, State.IN_FLIGHT, _batches(moved))


def store_again(
    connection: sqlite3.Connection,
    changes: Changes,
    messages: Sequence[Message],
    tx_hash: str,
    reason: str,
    not_before: int,
    max_messages: int,
    has_vanished: bool,
    now: float,
) -> None:
    """Move messages: in_flight -> stored. A part of a batch that fails or expires is deleted instead."""
    values = {"seqs": seqs_of(messages), "tx_hash": tx_hash, "reason": reason, "not_before": not_before}
    values |= {"max_messages": max_messages, "has_vanished": has_vanished}
    # The code, or the words before the details.
    answer = reason.partition(":")[0][:_ANSWER_CHARACTERS]
    connection.execute(queries.NOTE_TRANSACTION, {**values, "answer": answer, "height": None, "now": now})
    parents = connection.execute(queries.DELETE_PARTS_NOT_WANTED, values).fetchall()
    _finish_batches_without_parts(connection, changes, parents, End(State.CONFIRMED, now))
    moved = connection.execute(queries.STORE_AGAIN, values).fetchall()
    count(changes, messages[0].kind, State.IN_FLIGHT, State.STORED, _batches(moved))


def confirm(connection: sqlite3.Connection, changes: Changes, messages: Sequence[Message], end: End) -> None:
    """Move messages: in_flight -> confirmed. A part is deleted, and its batch is confirmed with the last one."""
    values = {"seqs": seqs_of(messages), "tx_hash": end.tx_hash}
    connection.execute(queries.NOTE_PARTS, {**values, "height": end.height, "now": end.now})
    parents = connection.execute(queries.DELETE_CONFIRMED_PARTS, values).fetchall()
    whole = connection.execute(queries.WHOLE_IN_TRANSACTION, values).fetchall()
    _finish(connection, changes, {seq for (seq,) in whole}, end)
    _finish_batches_without_parts(connection, changes, parents, end._replace(reason=None))


def confirm_all(
    connection: sqlite3.Connection,
    changes: Changes,
    transactions: Sequence[tuple[TransactionInFlight, int]],
    now: float,
) -> None:
    """Do what ``confirm`` does for all messages of transactions, each with the height of its block."""
    for each, height in transactions:
        confirm(connection, changes, each.messages, End(State.CONFIRMED, now, each.hash, height))


def fail(connection: sqlite3.Connection, changes: Changes, messages: Sequence[Message], end: End) -> None:
    """Move messages: in_flight -> failed. A part takes its whole batch along."""
    values = {"seqs": seqs_of(messages), "tx_hash": end.tx_hash}
    batches = connection.execute(queries.BATCHES_IN_TRANSACTION, values)
    lose(connection, changes, {seq for (seq,) in batches}, end)


def expire(connection: sqlite3.Connection, changes: Changes, height: int, kind: Kind, limit: int, end: End) -> int:
    """Move at most ``limit`` batches of a stage and kind, with their parts: stored -> expired. Return their number."""
    values = {"height": height, "kind": kind, "limit": limit}
    batches = {seq for (seq,) in connection.execute(queries.BATCHES_TO_EXPIRE, values)}
    lose(connection, changes, batches, end)
    return len(batches)


def end_without_stage(
    connection: sqlite3.Connection,
    changes: Changes,
    height: int,
    ahead: int,
    known: Collection[int],
    limit: int,
    now: float,
) -> int:
    """Expire at most ``limit`` messages that no stage was for, without their bodies. Return their number.

    ``height`` is the latest block's. A stage at one of the ``ahead`` heights after it may still turn up, and the
    ``known`` heights are those of stages.
    """
    values = {"height": height, "ahead": ahead, "known": json.dumps(list(known)), "limit": limit}
    messages = {seq for (seq,) in connection.execute(queries.WITHOUT_STAGE, values)}
    _finish(connection, changes, messages, End(State.EXPIRED, now, reason=queries.NO_SUCH_STAGE, keeps_body=False))
    return len(messages)


def lose(connection: sqlite3.Connection, changes: Changes, batches: set[int], end: End) -> None:
    """Fail or expire batches; one with a part in another transaction is failing or expiring until that is decided."""
    values = {**end._asdict(), "seqs": json.dumps(list(batches))}
    connection.execute(queries.DELETE_PARTS, values)
    have_parts = {seq for (seq,) in connection.execute(queries.WAIT_FOR_PARTS, values).fetchall()}
    _finish(connection, changes, batches - have_parts, end)


def _finish_batches_without_parts(
    connection: sqlite3.Connection, changes: Changes, parents: list[tuple[int]], confirmed: End
) -> None:
    """Move batches of which no part is left: in_parts -> confirmed, failing -> failed, expiring -> expired."""
    seqs = json.dumps(list({parent for (parent,) in parents}))
    for seq, state, tx_hash, reason in connection.execute(queries.WITHOUT_PARTS, {"seqs": seqs}).fetchall():
        lost = {RowState.FAILING.value: State.FAILED, RowState.EXPIRING.value: State.EXPIRED}.get(state)
        end = confirmed if lost is None else End(lost, confirmed.now, tx_hash, None, reason)
        _finish(connection, changes, {seq}, end)


def _finish(connection: sqlite3.Connection, changes: Changes, whole: set[int], end: End) -> None:
    values = {**end._asdict(), "seqs": json.dumps(list(whole))}
    connection.execute(queries.FINISH, values)
    connection.execute(queries.COUNT_FINISHED, values)
    for kind, before in connection.execute(queries.DELETE, values).fetchall():
        count(changes, kind_of(kind), RowState(before).shown, end.state, 1)


def known_block(connection: sqlite3.Connection) -> BlockInfo | None:
    """Return the block by which the chain of this database is known, None when it is of no chain yet."""
    found = connection.execute(chain_queries.CHAIN).fetchone()
    return BlockInfo(*found) if found is not None else None


def latest_stage_block(connection: sqlite3.Connection, height: int) -> tuple[int, str] | None:
    """Return height and hash of the block at which the latest regular stage below ``height`` began, if it is known.

    Of such a stage the nodes compute with that block's hash, so it was kept.
    """
    found: tuple[int, str] | None = connection.execute(chain_queries.LATEST_STAGE_BLOCK, {"height": height}).fetchone()
    return found


def keep_block(connection: sqlite3.Connection, block: BlockInfo) -> None:
    """Know the chain of this database by this block from now on."""
    connection.execute(chain_queries.KEEP_BLOCK, msgspec.structs.asdict(block))


def enter_chain(
    connection: sqlite3.Connection, changes: Changes, block: BlockInfo, other: str | None, now: float
) -> tuple[str, int] | None:
    """Begin afresh for the chain of a block when it is another one; ``other`` says why it is, None if it is not.

    Return the name of the chain before, and how many batches were left; None when it is the same. What was not finished
    for the chain before expires. All of it is set apart, and its stages are forgotten. A database that is of no chain
    yet becomes one of this chain, as it is.
    """
    known = known_block(connection)
    if known is None:
        connection.execute(chain_queries.ENTER_CHAIN, msgspec.structs.asdict(block))
    if known is None or other is None:
        return None
    # A chain may begin anew under its id again and again.
    former = f"{known.chain_id}@{known.hash[:_HASH_DIGITS].lower()}" if known.hash else known.chain_id
    connection.execute(queries.DELETE_ALL_PARTS)
    seqs = {seq for (seq,) in connection.execute(queries.ALL_UNFINISHED)}
    _finish(connection, changes, seqs, End(State.EXPIRED, now, reason=f"it is of another chain: {former}"))
    # So that nobody sends it again.
    connection.execute(queries.COUNT_EXPIRED)
    connection.execute(queries.COUNT_FAILED)
    for (kind,) in connection.execute(queries.EXPIRE_FAILED).fetchall():
        count(changes, kind_of(kind), State.FAILED, State.EXPIRED, 1)
    connection.execute(queries.SET_APART, {"former": former})
    for statement in queries.SET_LEDGER_APART:
        connection.execute(statement)
    for statement in _FORGET:
        connection.execute(statement)
    connection.execute(chain_queries.ENTER_CHAIN, msgspec.structs.asdict(block))
    return former, len(seqs)


def stages_unfinished(connection: sqlite3.Connection, received_before: float) -> list[tuple[int, Kind, State]]:
    """Return the stages, kinds and states of messages that are stored, or in flight and older than that."""
    rows = connection.execute(queries.STAGES_UNFINISHED, {"received_before": received_before})
    return [(height, Kind(kind), State(state)) for height, kind, state in rows]


def transactions_in_flight(connection: sqlite3.Connection) -> list[TransactionInFlight]:
    """Return the transactions that messages are in."""
    transactions: dict[str, TransactionInFlight] = {}
    for tx_hash, timeout_ns, first, size, seq, kind, height, *rest in connection.execute(queries.IN_FLIGHT):
        # Of an earlier version the first height is not known; it is after the stage's start in any case.
        begun = TransactionInFlight(tx_hash, timeout_ns, [], max(first, height), size)
        transactions.setdefault(tx_hash, begun).messages.append(Message(seq, Kind(kind), height, *rest))
    return list(transactions.values())


def bodies(connection: sqlite3.Connection, messages: Sequence[Message]) -> list[bytes]:
    """Return the bodies of messages in their order; one whose row is gone is missing."""
    found = {seq: body for seq, _, _, body in connection.execute(queries.BODIES, {"seqs": seqs_of(messages)})}
    return [found[message.seq] for message in messages if message.seq in found]


def is_on_chain(connection: sqlite3.Connection, verdict: Message) -> bool | None:
    """Compare a verdict with those on the same participant that are confirmed; None when there is none."""
    if not (found := bodies(connection, [verdict])):
        return None
    address = MsgSubmitPocValidation.FromString(found[0]).participant_address
    begin = MsgSubmitPocValidation(participant_address=address).SerializeToString()
    values = {"height": verdict.height, "begin": begin, "length": len(begin)}
    others = connection.execute(queries.CONFIRMED_VERDICTS, values).fetchall()
    return any(other == found[0] for (other,) in others) if others else None


def count(changes: Changes, kind: Kind | None, before: State, after: State, number: int) -> None:
    """Note that so many batches of a kind went from one state to another."""
    changes[kind, before] -= number
    changes[kind, after] += number


def _batches(moved: list[tuple[int | None]]) -> int:
    """Return how many of the rows, given by their parents, are batches and no parts."""
    return sum(parent is None for (parent,) in moved)
