"""What is known and done of each PoC stage, in the database: what to do next follows from it, after a restart too."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator

import msgspec
from google.protobuf.message import DecodeError
from twisted.internet.defer import Deferred

from dapi.database import Database, transaction
from dapi.messages.inference_pb2 import MsgSubmitPocValidation
from dapi.outbox.ledger import NodeLedger, stage_ledger
from dapi.outbox.queries import LISTED, NOT_HANDED_OUT
from dapi.phases.phases import PocStage

_COLUMNS = "stage, node_count, is_handed_out, block_hash"
_VERDICTS = (
    f"SELECT message FROM {LISTED} WHERE height = ?1 AND kind = 'validated' AND run != '{NOT_HANDED_OUT}'"
    " UNION ALL SELECT message FROM finished"
    " WHERE height = ?1 AND kind = 'validated' AND state = 'confirmed' AND message IS NOT NULL"
)
# The windows of older stages are over, and their messages were finished long ago.
_REMEMBERED = 50


class StageRecord(msgspec.Struct, frozen=True):
    """A stage as the chain tells of it now, and what was done for it.

    ``node_count`` is fixed when the stage begins, and sent in its inits: another one would restart every node.
    ``is_handed_out`` is true when its validation needs nothing more: all participants have a verdict, or its window is
    over. ``block_hash`` is the text that the nodes seed their computation with, None as long as it is not known.
    """

    stage: PocStage
    node_count: int
    is_handed_out: bool
    block_hash: str | None = None


class StageBook:
    """The stages in the database. Every Deferred fails with StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, stage: PocStage, node_count: int) -> Deferred[StageRecord]:
        """Record a stage, or its governed windows if it is known already; fires with its record."""
        encoded = msgspec.json.encode(stage).decode()

        def write(connection: sqlite3.Connection) -> StageRecord:
            with transaction(connection):
                connection.execute(
                    "INSERT INTO stages (height, stage, node_count) VALUES (?1, ?2, ?3)"
                    " ON CONFLICT (height) DO UPDATE SET stage = ?2 WHERE stage != ?2",
                    (stage.height, encoded, node_count),
                )
                query = f"SELECT {_COLUMNS} FROM stages WHERE height = ?"
                return _record(connection.execute(query, (stage.height,)).fetchone())

        return self._database.write(write)

    def record_handed_out(self, height: int) -> Deferred[None]:
        """Record that the validation of the stage ``height`` needs nothing more."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE stages SET is_handed_out = 1 WHERE height = ?", (height,))

        return self._database.write(write)

    def record_run(self, height: int, run: str, block_hash: str) -> Deferred[None]:
        """Record the run of the stage ``height`` (see ``run_id``): batches of another one are not sent.

        Also record the block hash that it has, so that no restart depends on a chain node that still has the block.
        """

        def write(connection: sqlite3.Connection) -> None:
            statement = "UPDATE stages SET run = ?, block_hash = ? WHERE height = ?"
            connection.execute(statement, (run, block_hash, height))

        return self._database.write(write)

    def participants_answered(self, height: int) -> Deferred[set[str]]:
        """Fire with the addresses of the participants with a verdict in the stage ``height`` that did not fail.

        A verdict that nobody asked for is none, nor is one that the disk has damaged.
        """

        def read(connection: sqlite3.Connection) -> set[str]:
            return set(_participants(message for (message,) in connection.execute(_VERDICTS, (height,))))

        return self._database.read(read)

    def latest(self, limit: int = _REMEMBERED) -> Deferred[list[StageRecord]]:
        """Fire with the latest stages, the newest first, but for rows that the disk has damaged."""
        query = f"SELECT {_COLUMNS} FROM stages ORDER BY height DESC LIMIT ?"
        return self._database.read(lambda connection: list(_records(connection.execute(query, (limit,)))))

    def ledger(self, height: int) -> Deferred[dict[str, NodeLedger]]:
        """Fire with what became of each node's work in the stage ``height``, by node id."""
        return stage_ledger(self._database, height)


def _participants(verdicts: Iterable[bytes]) -> Iterator[str]:
    for verdict in verdicts:
        with contextlib.suppress(DecodeError):
            yield MsgSubmitPocValidation.FromString(verdict).participant_address


def _records(rows: Iterable[tuple[str, int, int, str | None]]) -> Iterator[StageRecord]:
    for row in rows:
        with contextlib.suppress(msgspec.MsgspecError):
            yield _record(row)


def _record(row: tuple[str, int, int, str | None]) -> StageRecord:
    encoded, node_count, is_handed_out, block_hash = row
    return StageRecord(msgspec.json.decode(encoded, type=PocStage), node_count, bool(is_handed_out), block_hash)
