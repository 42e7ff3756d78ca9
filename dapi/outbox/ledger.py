"""What became of each node's work in a PoC stage, counted from what is kept."""

from __future__ import annotations

import sqlite3
from functools import partial

import msgspec
from twisted.internet.defer import Deferred

from dapi.database import Database
from dapi.outbox import queries


class NodeLedger(msgspec.Struct, frozen=True):
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


def stage_ledger(database: Database, height: int) -> Deferred[dict[str, NodeLedger]]:
    """Fire with the ledgers of the stage that starts at ``height``, by node id; fails with StoreError.

    What no node is known of (verdicts that came by HTTP, seeds) comes under an empty id.
    """
    return database.read(partial(_stage_ledger, height=height))


def _stage_ledger(connection: sqlite3.Connection, *, height: int) -> dict[str, NodeLedger]:
    rows = connection.execute(queries.LEDGER, {"height": height})
    return {node_id: NodeLedger(*counts) for node_id, *counts in rows}
