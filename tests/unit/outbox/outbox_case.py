"""An outbox on a real database, and batches to put into it."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from hypothesis import HealthCheck, settings

from dapi.messages import Kind, Receipt, State, Via
from dapi.outbox import queries
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.outbox.pages import BatchPage
from tests.unit.database.store_tools import StoreTestCase

SHARED = "batch_id, kind, node_id, via, height, nonces, seen, received_at, last_seen_at, attempts, tx_hash"
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])


def entry(batch_id: str = "a", message: bytes = b"message", **fields: Any) -> OutboxEntry:
    values = {"kind": Kind.GENERATED, "node_id": "node1", "height": 1000, "nonces": 20, "via": Via.WEBSOCKET, **fields}
    return OutboxEntry(batch_id=batch_id, message=message, **values)


class OutboxTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open_database()
        self.outbox = self.make_outbox()

    def make_outbox(self, **settings: Any) -> Outbox:
        return Outbox(self.clock, self.database, now=self.clock.seconds, **settings)

    def restart(self) -> None:
        self.close_database(self.database)
        self.database = self.open_database()
        self.outbox = self.make_outbox()

    def put(self, batch_id: str = "a", **fields: Any) -> Receipt:
        return self.clock.wait_for(self.outbox.put(entry(batch_id, **fields)))

    def finish(self, batch_id: str, state: State = State.CONFIRMED) -> None:
        """Move a batch to what is finished, as the submitter will."""

        def move(connection: sqlite3.Connection) -> None:
            connection.execute(
                f"INSERT INTO finished (seq, state, finished_at, included_height, reason, {SHARED})"
                f" SELECT seq, ?, 5000.0, 1002, 'why', {SHARED} FROM unfinished WHERE batch_id = ?",
                (state.value, batch_id),
            )
            moved = connection.execute(
                "DELETE FROM unfinished WHERE batch_id = ? RETURNING seq", (batch_id,)
            ).fetchall()
            connection.execute(queries.COUNT_FINISHED, {"seqs": json.dumps([seq for (seq,) in moved])})

        self.clock.wait_for(self.database.write(move))

    def counts(self) -> dict[str, int]:
        """The counts that are not 0."""
        counts = self.clock.wait_for(self.outbox.counts())
        self.assertEqual(list(counts), [state.value for state in State])
        by_kind = self.clock.wait_for(self.outbox.counts_by_kind())
        self.assertEqual(by_kind.total(), sum(counts.values()))
        return {state: number for state, number in counts.items() if number}

    def batches(self, **filters: Any) -> BatchPage:
        return self.clock.wait_for(self.outbox.batches(**filters))

    def ids(self, **filters: Any) -> list[str]:
        return [row.batch_id for row in self.batches(**filters).batches]

    def traced(self) -> list[str]:
        """Statements that change something, from now on, in the order of their execution."""
        statements: list[str] = []

        def note(statement: str) -> None:
            if statement.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT")):
                statements.append(statement[:6])

        self.clock.wait_for(self.database.write(lambda connection: connection.set_trace_callback(note)))
        return statements
