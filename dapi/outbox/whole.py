"""Lists batches with their messages, as much at a time as fits into an answer."""

from __future__ import annotations

import json
import sqlite3
from typing import NamedTuple

import msgspec

from dapi.messages import Kind, State
from dapi.messages.sizes import MIB
from dapi.outbox import queries
from dapi.outbox.pages import BatchPage, page

_MAX_BYTES = 4 * MIB


class WholePage(NamedTuple):
    """A page of batches, and their messages by ``seq``: protobuf without the creator.

    A message is missing where the chain has it and dapi does not keep it any more, or where the disk has damaged it.
    """

    page: BatchPage
    messages: dict[int, bytes]


def whole_page(
    connection: sqlite3.Connection,
    *,
    node_id: str | None,
    kind: Kind | None,
    state: State | None,
    limit: int,
    before: int | None,
) -> WholePage:
    """Read one page; see Outbox.whole_batches."""
    # A batch may be finished between two statements.
    connection.execute("BEGIN")
    found = page(connection, node_id=node_id, kind=kind, state=state, limit=limit, before=before)
    seqs = sorted((*(row.seq for row in found.batches), *(row.seq for row in found.damaged)), reverse=True)
    lengths = dict(connection.execute(queries.LENGTHS, {"seqs": json.dumps(seqs)}).fetchall())
    kept: list[int] = []
    room = _MAX_BYTES
    for seq in seqs:
        room -= lengths[seq]
        if kept and room < 0:
            break
        kept.append(seq)
    messages = connection.execute(queries.WHOLE, {"seqs": json.dumps(kept)})
    bodies = {seq: message for seq, message in messages if isinstance(message, bytes)}
    if len(kept) == len(seqs):
        return WholePage(found, bodies)
    last = kept[-1]
    shortened = msgspec.structs.replace(
        found,
        batches=[row for row in found.batches if row.seq >= last],
        damaged=[row for row in found.damaged if row.seq >= last],
        next=last,
    )
    return WholePage(shortened, bodies)
