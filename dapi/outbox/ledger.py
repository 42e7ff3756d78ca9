"""What became of each node's work in a PoC stage, counted from what is kept."""

from __future__ import annotations

import sqlite3
from functools import partial

import msgspec
from twisted.internet.defer import Deferred

from dapi.database import Database
from dapi.messages import Kind, State
from dapi.outbox import queries


class LedgerLine(msgspec.Struct, frozen=True):
    """The messages of one node, kind and state in a stage.

    ``node_id`` is None where no node is known (verdicts that came by HTTP, seeds). ``deliveries`` counts a batch that
    came twice twice.
    """

    node_id: str | None
    kind: Kind
    state: State
    batches: int
    nonces: int
    deliveries: int


class NodeLedger(msgspec.Struct):
    """What became of one node's work in a stage, in batches but for ``nonces``.

    ``generated`` is all that it delivered, each batch once, and ``doubled`` how many deliveries came on top of that;
    ``stored``, ``in_flight``, ``confirmed``, ``failed`` and ``expired`` are in which states those are now.
    ``validated`` counts its verdicts on others.
    """

    generated: int = 0
    nonces: int = 0
    doubled: int = 0
    stored: int = 0
    in_flight: int = 0
    confirmed: int = 0
    failed: int = 0
    expired: int = 0
    validated: int = 0


def by_node(lines: list[LedgerLine]) -> dict[str, NodeLedger]:
    """Sum up the lines of a stage by node; messages of which no node is known come under an empty id."""
    ledgers: dict[str, NodeLedger] = {}
    for line in lines:
        ledger = ledgers.setdefault(line.node_id or "", NodeLedger())
        if line.kind is Kind.VALIDATED:
            ledger.validated += line.batches
        elif line.kind is Kind.GENERATED:
            ledger.generated += line.batches
            ledger.nonces += line.nonces
            ledger.doubled += line.deliveries - line.batches
            setattr(ledger, line.state, getattr(ledger, line.state) + line.batches)
    return ledgers


def stage_ledger(database: Database, height: int) -> Deferred[list[LedgerLine]]:
    """Fire with what became of the messages of the stage that starts at ``height``; fails with StoreError."""
    return database.read(partial(_sum, height=height))


def _sum(connection: sqlite3.Connection, *, height: int) -> list[LedgerLine]:
    return [
        LedgerLine(node_id, Kind(kind), State(state), batches, nonces, deliveries)
        for node_id, kind, state, batches, nonces, deliveries in connection.execute(queries.LEDGER, (height,))
    ]
