"""Bounds what one node may have waiting for the chain, so that it cannot fill the disk for the others."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from functools import partial
from typing import Any

import attrs
import msgspec
from twisted.internet.task import deferLater

from dapi.database import Database
from dapi.errors import QuotaError, StoreError
from dapi.messages import Kind
from dapi.messages.sizes import MIB
from dapi.outbox import queries
from dapi.outbox.outbox import OutboxEntry
from dapi.timing.loop import LoopService

COUNT_SECONDS = 15.0
# At most: a nonce has up to 9 bytes, its distance 8; a row has the rest.
_NONCE_BYTES = 17
_ROW_BYTES = 400


class NodeQuotaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the unfinished messages of one node may come to, and what it may bring for a stage.

    A node makes about 60 in a stage, of 10 MB together.
    """

    max_messages: int = 20_000
    max_bytes: int = 1024 * MIB


@attrs.define
class _Waiting:
    messages: int = 0
    bytes: int = 0

    def add(self, messages: int, nonces: int) -> None:
        self.messages += messages
        self.bytes += messages * _ROW_BYTES + nonces * _NONCE_BYTES


class NodeQuota(LoopService):
    """Knows how much of each node waits for the chain, and refuses more than the settings allow.

    What is finished waits no more, and stays on the disk for a month: so a node may also bring no more than that for
    one stage. It counts in the database every 15 s, and adds what has come since. A message that came again is counted
    as one more until then. ``admit`` asks nobody, and refuses nothing before the first count. Bytes are those that a
    message takes at most.
    """

    def __init__(self, reactor: Any, database: Database, settings: NodeQuotaSettings | None = None) -> None:
        super().__init__(reactor)
        self._database = database
        self._settings = settings or NodeQuotaSettings()
        self._waiting: dict[str | None, _Waiting] = {}
        # What has come since the latest count began.
        self._new: defaultdict[str | None, _Waiting] = defaultdict(_Waiting)
        self._is_counted = False
        # The stages and nodes of which so much is finished.
        self._had_enough: set[tuple[int, str | None]] = set()
        self._refused = 0

    async def loop(self) -> None:
        """Count again and again."""
        while self.running:
            try:
                await self._count()
            except StoreError as error:
                # The database itself says so where people look.
                self.log.debug("what waits of each node is not counted: {error}", error=str(error))
            await deferLater(self._reactor, COUNT_SECONDS)

    async def _count(self) -> None:
        new: defaultdict[str | None, _Waiting] = defaultdict(_Waiting)
        self._new = new
        bounds = {"messages": self._settings.max_messages, "nonces": self._settings.max_bytes // _NONCE_BYTES}
        found, self._had_enough = await self._database.read(partial(_counted, bounds))
        self._waiting = found
        for node_id, each in new.items():
            total = found.setdefault(node_id, _Waiting())
            total.messages += each.messages
            total.bytes += each.bytes
        self._is_counted = True

    def admit(self, entry: OutboxEntry) -> None:
        """Count an entry that is to be put into the outbox; raises QuotaError when its node has enough there."""
        waiting = self._waiting.setdefault(entry.node_id, _Waiting())
        if self._is_counted and self._is_full(waiting):
            self._refused += 1
            whose = entry.node_id or "HTTP callbacks"
            raise QuotaError(
                f"{waiting.messages} messages ({waiting.bytes} bytes) of {whose} wait for the chain, and no more are "
                "taken: see why nothing is sent, or raise storage.max_node_messages and storage.max_node_bytes"
            )
        if entry.kind is Kind.GENERATED and (entry.height, entry.node_id) in self._had_enough:
            self._refused += 1
            raise QuotaError(
                f"{entry.node_id} has brought all that a node may for the stage {entry.height}: see what it sends, or "
                "raise storage.max_node_messages and storage.max_node_bytes"
            )
        nonces = entry.nonces if entry.kind is Kind.GENERATED else 0
        waiting.add(1, nonces)
        self._new[entry.node_id].add(1, nonces)

    def status(self) -> dict[str, Any]:
        """Return how many messages were ``refused``, and which nodes are ``full``: their unfinished messages."""
        full = {node_id: each.messages for node_id, each in self._waiting.items() if node_id and self._is_full(each)}
        return {"refused": self._refused, "full": full}

    def _is_full(self, waiting: _Waiting) -> bool:
        return waiting.messages >= self._settings.max_messages or waiting.bytes >= self._settings.max_bytes


# The reader's thread.


def _counted(
    bounds: dict[str, int], connection: sqlite3.Connection
) -> tuple[dict[str | None, _Waiting], set[tuple[int, str | None]]]:
    found: dict[str | None, _Waiting] = {}
    for node_id, messages, nonces in connection.execute(queries.WAITING_OF_NODES):
        found[node_id] = _Waiting()
        found[node_id].add(messages, nonces)
    return found, set(connection.execute(queries.HAD_ENOUGH, bounds).fetchall())
