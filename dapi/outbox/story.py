"""All that is known of one batch: how it came, and each transaction that it was in."""

from __future__ import annotations

import re
import sqlite3
from typing import NamedTuple

import msgspec

from dapi.errors import UnknownBatchError
from dapi.messages import State, Via
from dapi.outbox import queries
from dapi.outbox.pages import BatchRow, DamagedRow, one_row

_MAX_TRANSACTIONS = 200
_MIN_BEGINNING = 8
_LAST_CHARACTER = chr(0x10FFFF)
# How the reason of a transaction begins that the chain has answered with a code.
_CODE = re.compile(r"(\w+) (\d+)(?::|$)")


class TransactionRecord(msgspec.Struct, frozen=True):
    """A transaction that the batch was in, or ``times`` of them with one answer, of which ``tx_hash`` is the last.

    ``code`` is 0 when it is in the block ``included_height``, the chain's code in ``codespace`` when it was refused,
    and None when the chain has not said anything: ``reason`` says what is known. Times are unix seconds, None where
    they are not known.
    """

    tx_hash: str
    code: int | None
    codespace: str | None
    reason: str | None
    included_height: int | None
    first_at: float | None
    last_at: float | None
    times: int = 1


class BatchStory(NamedTuple):
    """One batch: its ``row`` as it is listed, and what that does not tell.

    ``ways`` counts its deliveries by way, None where an earlier version counted them together. ``attempts`` are its
    transactions of which the chain has said nothing, ``parts`` how many parts are in each state, by state.
    ``transactions`` come in their order, the latest last.
    """

    row: BatchRow | DamagedRow
    ways: dict[Via, int] | None
    attempts: int
    parts: dict[str, int]
    transactions: list[TransactionRecord]


def story(connection: sqlite3.Connection, *, batch_id: str) -> BatchStory:
    """Read all about one batch, given by its id or by the beginning of it; raises UnknownBatchError."""
    # All of it as it is at one moment.
    connection.execute("BEGIN")
    row = one_row(connection, batch_id) or one_row(connection, _beginning_with(connection, batch_id))
    if row is None:
        raise UnknownBatchError(f"no batch has the id {batch_id!r}")
    connection.text_factory = _text
    values = {"seq": row.seq, "limit": _MAX_TRANSACTIONS}
    attempts, by_http = connection.execute(queries.STORY, values).fetchone()
    parts = {str(state): number for state, number in connection.execute(queries.PARTS, values)}
    transactions = [
        _record(tx_hash, reason, height, first_at, last_at, times)
        for tx_hash, reason, height, first_at, last_at, times in connection.execute(queries.EARLIER, values)
    ]
    in_flight = [
        tx_hash
        for statement in (queries.PARTS_IN_FLIGHT, queries.IN_FLIGHT_HASH)
        for (tx_hash,) in connection.execute(statement, values)
    ]
    transactions += [TransactionRecord(tx_hash, None, None, "in flight", None, None, None) for tx_hash in in_flight]
    if isinstance(row, BatchRow):
        transactions += _last(row, {record.tx_hash for record in transactions})
    return BatchStory(row, _ways(row, by_http), _number(attempts), parts, transactions)


def _beginning_with(connection: sqlite3.Connection, begin: str) -> str:
    if len(begin) < _MIN_BEGINNING:
        return begin
    values = {"begin": begin, "end": begin + _LAST_CHARACTER}
    found = [batch_id for (batch_id,) in connection.execute(queries.BEGINNING_WITH, values)]
    if len(found) > 1:
        raise UnknownBatchError(f"more than one batch has an id that begins with {begin!r}: give more of it")
    return found[0] if found else begin


def _last(row: BatchRow, known: set[str]) -> list[TransactionRecord]:
    """Return the transaction that finished the batch, unless it is among those that are ``known``."""
    is_finished = row.state in (State.CONFIRMED, State.FAILED, State.EXPIRED)
    if not is_finished or row.tx_hash is None or row.tx_hash in known:
        return []
    at = row.finished_at
    return [_record(row.tx_hash, row.reason, row.included_height, at, at, 1)]


def _record(
    tx_hash: str,
    reason: str | None,
    height: int | None,
    first_at: float | None,
    last_at: float | None,
    times: int,
) -> TransactionRecord:
    found = _CODE.match(reason or "")
    if found is not None:
        return TransactionRecord(tx_hash, int(found[2]), found[1], reason, height, first_at, last_at, times)
    code = None if height is None else 0
    return TransactionRecord(tx_hash, code, None, reason, height, first_at, last_at, times)


def _ways(row: BatchRow | DamagedRow, by_http: object) -> dict[Via, int] | None:
    if isinstance(row, DamagedRow):
        return None
    if row.via is Via.OWN:
        return {Via.OWN: row.seen}
    if not isinstance(by_http, int):
        # Of an earlier version: only the first way is known.
        return {row.via: 1} if row.seen == 1 else None
    return {Via.WEBSOCKET: row.seen - by_http, Via.HTTP: by_http}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
