"""What was lost in the latest stages: messages that failed or expired, so that people hear of it while it is news."""

from __future__ import annotations

import sqlite3

import msgspec
from twisted.internet.defer import Deferred

from dapi.database import Database
from dapi.messages import Kind, State
from dapi.outbox import queries

DAMAGED = "damaged on disk: its bytes are not those that were stored, and were not sent"
"""Why a message has failed whose body the disk has damaged."""

_STAGES = 3
# A newer hardware diff takes the place of one that expires, and a claim that is not paid is told by what is owed.
_KINDS = (Kind.GENERATED, Kind.VALIDATED, Kind.SEED)


class Loss(msgspec.Struct, frozen=True):
    """So many messages of a stage and kind that are in ``state``, which is failed or expired, and why the last one is.

    ``is_damaged`` tells those apart that the disk has damaged.
    """

    height: int
    kind: Kind
    state: State
    is_damaged: bool
    messages: int
    reason: str


def losses(database: Database) -> Deferred[list[Loss]]:
    """Fire with what was lost in the latest three stages, the oldest first; fails with StoreError."""

    def read(connection: sqlite3.Connection) -> list[Loss]:
        values = {"stages": _STAGES, "damaged": DAMAGED, "kinds": msgspec.json.encode(_KINDS).decode()}
        return [
            Loss(height, Kind(kind), State(state), bool(is_damaged), messages, reason)
            for height, kind, state, is_damaged, messages, reason, _ in connection.execute(queries.LOSSES, values)
        ]

    return database.read(read)
