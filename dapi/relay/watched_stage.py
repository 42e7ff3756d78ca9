"""What is kept of one stage and model of PoC v2, for the ledger of ``GET epochs``: values, and their rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec

from dapi.database import transaction
from dapi.relay.api_answers import StageKind, StageWindow

_MAX_ROWS = 400


class WatchedStage(msgspec.Struct, kw_only=True):
    """One stage and model; None: not known.

    ``stored`` is what the api container has on disk, ``committed`` what the chain has, both in artifacts;
    ``handed_on`` is what the relay has delivered, in all and by node id. ``votes`` are ours, on ``participants`` that
    have committed. ``end`` is the last block for artifacts, ``validation_end`` the first one after validation.
    ``restarts`` counts how often the container was started anew while the stage was open.
    """

    height: int
    model: str
    kind: StageKind
    start: int
    end: int
    validation_start: int
    validation_end: int
    stored: int | None = None
    stored_at_a_third: int | None = None
    stored_at_the_end: int | None = None
    committed: int | None = None
    has_weights: bool | None = None
    participants: int | None = None
    votes: int | None = None
    restarts: int = 0
    handed_on: dict[str, int] | None = None

    @classmethod
    def of(cls, stage: StageWindow, model: str) -> WatchedStage:
        """Return the record of a stage of which nothing is known yet."""
        return cls(**msgspec.structs.asdict(stage), model=model)

    @property
    def share_at_a_third(self) -> float | None:
        """Which share of what was stored at the end was stored at the first third of the stage; others judge by it."""
        if self.stored_at_a_third is None or not self.stored_at_the_end:
            return None
        return round(self.stored_at_a_third / self.stored_at_the_end, 3)

    def shown(self) -> dict[str, Any]:
        """Return it as JSON data."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return {**found, "share_at_a_third": self.share_at_a_third}


def save(connection: sqlite3.Connection, records: Mapping[tuple[int, str], bytes]) -> None:
    """Keep records, each in JSON, by height and model, with one commit; those of the 400 highest stages stay."""
    rows = [(*key, record.decode()) for key, record in records.items()]
    with transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO poc_v2_stages (height, model, record) VALUES (?, ?, ?)", rows)
        connection.execute(
            "DELETE FROM poc_v2_stages WHERE (height, model) NOT IN"
            " (SELECT height, model FROM poc_v2_stages ORDER BY height DESC, model LIMIT ?)",
            (_MAX_ROWS,),
        )


def load(connection: sqlite3.Connection, *, limit: int) -> list[WatchedStage]:
    """Return the records of the highest stages, the highest first."""
    rows = connection.execute("SELECT record FROM poc_v2_stages ORDER BY height DESC, model LIMIT ?", (limit,))
    return [msgspec.json.decode(record, type=WatchedStage) for (record,) in rows]
