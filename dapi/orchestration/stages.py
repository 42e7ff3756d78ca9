"""What was seen and done for each PoC stage, in the database: what to do next follows from it, after a restart too."""

from __future__ import annotations

import sqlite3
from functools import partial

import msgspec
from twisted.internet.defer import Deferred

from dapi.database import Database, transaction
from dapi.messages import Kind, State
from dapi.messages.inference_pb2 import MsgSubmitPocValidation
from dapi.outbox.ledger import LedgerLine, stage_ledger
from dapi.phases.phases import PocStage

_COLUMNS = "stage, node_count, is_handed_out"
_VERDICTS = (
    "SELECT message FROM unfinished WHERE height = ?1 AND kind = ?2"
    " UNION ALL SELECT message FROM finished WHERE height = ?1 AND kind = ?2 AND state = ?3 AND message IS NOT NULL"
)
# Windows of older stages are over; their batches have been finished long ago.
_REMEMBERED = 50


class StageRecord(msgspec.Struct, frozen=True):
    """A stage as it was first seen.

    ``node_count`` is what its inits carry, fixed when it began: another one would restart every node. ``is_handed_out``
    tells that all batches of its validation were given to nodes and answered, or that its window is over.
    """

    stage: PocStage
    node_count: int
    is_handed_out: bool


class StageBook:
    """The stages in the database. Every Deferred fails with StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, stage: PocStage, node_count: int) -> Deferred[StageRecord]:
        """Note a stage, unless it is known already; fires with what is kept of it."""
        return self._database.write(partial(_begin, stage=stage, node_count=node_count))

    def handed_out(self, height: int) -> Deferred[None]:
        """Note that the validation of the stage ``height`` needs nothing more."""
        return self._database.write(partial(_handed_out, height=height))

    def participants_answered(self, height: int) -> Deferred[set[str]]:
        """Fire with the addresses of those on whom there is a verdict in the stage ``height`` that did not fail."""
        return self._database.read(partial(_participants_answered, height=height))

    def latest(self, limit: int = _REMEMBERED) -> Deferred[list[StageRecord]]:
        """Fire with the latest stages, the newest first."""
        return self._database.read(partial(_latest, limit=limit))

    def ledger(self, height: int) -> Deferred[list[LedgerLine]]:
        """Fire with what became of the messages of the stage ``height``."""
        return stage_ledger(self._database, height)


def _begin(connection: sqlite3.Connection, *, stage: PocStage, node_count: int) -> StageRecord:
    # The windows are governed: what counts is what the chain says of them now.
    encoded = msgspec.json.encode(stage).decode()
    with transaction(connection):
        connection.execute(
            "INSERT INTO stages (height, stage, node_count) VALUES (?1, ?2, ?3)"
            " ON CONFLICT (height) DO UPDATE SET stage = ?2 WHERE stage != ?2",
            (stage.height, encoded, node_count),
        )
        query = f"SELECT {_COLUMNS} FROM stages WHERE height = ?"
        return _record(connection.execute(query, (stage.height,)).fetchone())


def _handed_out(connection: sqlite3.Connection, *, height: int) -> None:
    connection.execute("UPDATE stages SET is_handed_out = 1 WHERE height = ?", (height,))


def _participants_answered(connection: sqlite3.Connection, *, height: int) -> set[str]:
    rows = connection.execute(_VERDICTS, (height, Kind.VALIDATED, State.CONFIRMED))
    return {MsgSubmitPocValidation.FromString(message).participant_address for (message,) in rows}


def _latest(connection: sqlite3.Connection, *, limit: int) -> list[StageRecord]:
    query = f"SELECT {_COLUMNS} FROM stages ORDER BY height DESC LIMIT ?"
    return [_record(row) for row in connection.execute(query, (limit,))]


def _record(row: tuple[str, int, int]) -> StageRecord:
    encoded, node_count, is_handed_out = row
    return StageRecord(msgspec.json.decode(encoded, type=PocStage), node_count, bool(is_handed_out))
