"""Makes transactions of what is stored: chosen, signed and put in flight with one commit. Work of the writer's thread.

One after the other, each with a commit and a turn of the reactor of its own, they would be as slow as the disk and the
machine are at their worst: a few a second, while thousands of messages wait for the end of their window.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from dapi.chain.transactions import SignedTransaction
from dapi.submission.choice import Room, next_messages
from dapi.submission.node_shares import NodeShares
from dapi.submission.rows import Changes, TransactionInFlight, put_in_flight

Sign = Callable[[Sequence[tuple[str, bytes]], int], SignedTransaction]
"""Signs messages (type URL, encoded without creator) with a timestamp in nanoseconds."""


class Begun(NamedTuple):
    """A transaction that is in flight on disk, and its bytes, which have not left yet."""

    transaction: TransactionInFlight
    raw: bytes


class Signer(NamedTuple):
    """With what transactions are signed: ``timestamps`` has one for each of them, in nanoseconds."""

    sign: Sign
    account_number: int | None
    timestamps: Sequence[int]


def begin_transactions(
    connection: sqlite3.Connection,
    changes: Changes,
    height: int,
    room: Room,
    signer: Signer,
    shares: NodeShares,
    now: float,
) -> tuple[list[Begun], int]:
    """Begin as many transactions as there are timestamps, messages and ``room``; ``height`` is their first block.

    Also return how many batches failed because the disk has damaged them.
    """
    begun: list[Begun] = []
    shares.begin_round()
    damaged = 0
    for number, timeout_ns in enumerate(signer.timestamps):
        left = room.max_total_bytes - sum(len(each.raw) for each in begun)
        if begun and left < room.max_bytes:
            break
        room_left = msgspec.structs.replace(room, transactions=room.transactions - number)
        chosen, lost = next_messages(connection, changes, height, room_left, shares, now)
        damaged += lost
        if not chosen:
            break
        signed = signer.sign([(message.type_url, message.body) for message in chosen], timeout_ns)
        messages = [message.in_flight() for message in chosen]
        put_in_flight(connection, changes, messages, signed.hash, timeout_ns, height)
        transaction = TransactionInFlight(
            signed.hash,
            timeout_ns,
            messages,
            first_height=height,
            size=len(signed.raw),
            may_be_known=False,
            account_number=signer.account_number,
        )
        begun.append(Begun(transaction, signed.raw))
    return begun, damaged
