"""Deletes batches that were finished long ago; what they were counted as stays.

The ledger, which all counts are read from, counts a batch when it is finished, so a row that is deleted takes nothing
along that is shown in a sum. Its place in the file is used again; the file does not become smaller.

A batch that comes once more after its row was deleted is unknown. It is stored, acknowledged and counted as a new one.
Its window ended long ago, so it expires with the next block.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.task import deferLater

from dapi.database import Database, transaction
from dapi.errors import StoreError
from dapi.messages.sizes import MIB
from dapi.outbox import queries
from dapi.timing.loop import LoopService

DEFAULT_KEEP_DAYS = 30.0

_DAY_SECONDS = 86400.0
# Between two looks, and before the first one: a start has enough to do.
_LOOK_SECONDS = 3600.0
_FIRST_LOOK_SECONDS = 60.0
# Of one step. It takes the thread that stores what comes for some milliseconds, and rests for 19 times as long after
# that, or this long.
_MAX_ROWS = 256
_MAX_BYTES = 8 * MIB
_REST_SECONDS = 0.1
_REST_OF_STEP = 19


class Step(NamedTuple):
    """How many rows a step has ``deleted``, and the last row that it has looked at, None when no other is due."""

    deleted: int
    last: int | None


class Retention(LoopService):
    """Looks once an hour for batches and verdicts that were finished more than ``keep_days`` ago, and deletes them.

    It keeps what is of the latest two epochs, and of the one that runs, however old it is, so that what comes again
    within a window is known. dapi's own messages (seeds, declared nodes, claims), some a day, stay for ever.

    It deletes a few rows at a time, and rests in between: together the steps take a twentieth of the time of the thread
    that stores what comes. A database that cannot write now is tried again at the next look.
    """

    def __init__(
        self,
        reactor: Any,
        database: Database,
        *,
        keep_days: float = DEFAULT_KEEP_DAYS,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(reactor)
        self._database = database
        self.keep_days = keep_days
        self._now = now

    async def loop(self) -> None:
        """Look, and look again."""
        await deferLater(self._reactor, _FIRST_LOOK_SECONDS)
        while self.running:
            try:
                await self._look()
            except StoreError as error:
                # The database itself tells what is wrong with it.
                self.log.info("old batches are kept for another hour: {error}", error=str(error))
            await deferLater(self._reactor, _LOOK_SECONDS)

    async def _look(self) -> None:
        before = self._now() - self.keep_days * _DAY_SECONDS
        deleted, last = 0, 0
        while True:
            began = self._reactor.seconds()
            step = await self._database.write(partial(delete_some, after=last, before=before))
            deleted += step.deleted
            if step.last is None:
                break
            last = step.last
            took = self._reactor.seconds() - began
            await deferLater(self._reactor, max(_REST_SECONDS, _REST_OF_STEP * took))
        if deleted:
            await self._database.write(_merge_ledger)
            text = "{deleted} batches that were finished more than {days:g} days ago are deleted; they stay counted"
            self.log.info(text, deleted=deleted, days=self.keep_days)


def delete_some(connection: sqlite3.Connection, *, after: int, before: float) -> Step:
    """Delete those of the next rows ``after`` one that were finished before a time (unix seconds) and may go."""
    values = {"after": after, "before": before, "limit": _MAX_ROWS, "max_bytes": _MAX_BYTES}
    seqs, number, last, are_young = connection.execute(queries.FINISHED_BEFORE, values).fetchone()
    if number:
        with transaction(connection):
            connection.execute(queries.DELETE_STORIES, {"seqs": seqs})
            connection.execute(queries.DELETE_FINISHED, {"seqs": seqs})
    return Step(number, None if last is None or are_young else last)


def _merge_ledger(connection: sqlite3.Connection) -> None:
    """Make one stage, 0, of those in the ledger that the chain never told of: others make up as many as they like."""
    with transaction(connection):
        for statement in queries.MERGE_LEDGER:
            connection.execute(statement)
