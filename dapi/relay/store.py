"""Keeps callbacks: a body in a file of its own, what is known of it in a row of the database."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dapi.database import Database
from dapi.database.lane import Lane
from dapi.errors import StartError, StoreBusyError, StoreError
from dapi.http.raw_client import BodySource, BytesSource
from dapi.messages.sizes import MIB
from dapi.relay import rows
from dapi.relay.bodies import FileSource, IncomingBody, scan_file
from dapi.relay.payload import FINISHED, Payload, PayloadState
from dapi.relay.scan import Facts, Target

MAX_BODY_BYTES = 128 * MIB
_WRITERS = 8
_MAX_RECENT_BYTES = 32 * MIB


class RelayStore(Service):
    """The bodies in ``folder`` and their rows in ``database``, which has to be started before.

    When ``keep`` returns, a callback survives a power cut; the rows of all that wait are committed together. ``bytes``
    is the size of all bodies that are kept. The latest small ones are in memory, too, until they are first read.
    """

    log = Logger()

    def __init__(self, reactor: Any, database: Database, folder: str, *, now: Callable[[], float] = time.time) -> None:
        self.bytes = 0
        self._database = database
        self._folder = Path(folder)
        self.now = now
        # Syncs that run side by side share the disk's work.
        self._writers = [Lane(reactor, f"dapi relay writer {number}") for number in range(_WRITERS)]
        self._janitor = Lane(reactor, "dapi relay janitor")
        self._reader = Lane(reactor, "dapi relay reader")
        self._numbers = itertools.count()
        self._boot = ""
        self._recent: dict[str, bytearray] = {}
        self._recent_bytes = 0
        self._waiting: list[tuple[rows.NewRow, Deferred[int | None]]] = []
        self._is_committing = False

    def startService(self) -> None:
        """Open the folder, or raise StartError."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"the folder {self._folder} cannot be made: {error}; check its permissions") from error
        self._boot = f"{int(self.now() * 1000):x}-{os.getpid():x}"
        super().startService()  # type: ignore[no-untyped-call]
        for lane in (*self._writers, self._janitor, self._reader):
            lane.start()

    def stopService(self) -> Deferred[None]:
        """Finish what is queued; fires when the threads are gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for lane in (*self._writers, self._janitor, self._reader):
            await lane.stop()

    def open_body(
        self, target: bytes, length: int, *, pause: Callable[[], object], resume: Callable[[], object]
    ) -> IncomingBody:
        """Return where a body goes that is about to come."""
        number = next(self._numbers)
        path = self._folder / f"{self._boot}-{number:x}.body"
        return IncomingBody(self._writers[number % _WRITERS], path, target, length, pause=pause, resume=resume)

    async def write(self, body: IncomingBody) -> Facts:
        """Bring a body to disk, and return what it says; raises StoreError. ``keep`` has to follow, or ``discard``."""
        try:
            return await body.finish()
        except OSError as error:
            raise StoreBusyError(f"{self._folder}: {error.strerror or error}") from error

    async def keep(
        self, body: IncomingBody, facts: Facts, headers: tuple[tuple[bytes, bytes], ...], said: Target, peer: str
    ) -> Payload | None:
        """Keep a callback whose body is written; return its payload, None where the same body is kept already.

        Raises StoreError.
        """
        row = rows.NewRow(body.digest, body.path.name, body.target, headers, body.length, self.now(), peer, said, facts)
        seq = await self._commit(row)
        whole = body.leave_memory()
        if seq is None:
            body.discard()
            return None
        if whole is not None:
            self._remember(row.name, whole)
        self.bytes += body.length
        return Payload(seq, row.name, row.target, headers, row.size, row.received_at, said, facts)

    async def load(self) -> list[Payload]:
        """Return what is kept, after a start; bodies that belong to no row are deleted. Raises StoreError."""
        payloads = await self._database.read(rows.load)
        facts = await self._janitor.submit(lambda: self._look_at_files(payloads))
        for payload in payloads:
            payload.has_body = payload.seq in facts
            payload.facts = facts.get(payload.seq, payload.facts)
        self.bytes = sum(payload.size for payload in payloads if payload.seq in facts)
        lost = [payload for payload in payloads if payload.state not in FINISHED and payload.seq not in facts]
        if lost:
            await self.finish(
                [(payload, PayloadState.SET_ASIDE, "its body is not on disk any more") for payload in lost]
            )
            self.log.error("{count} callbacks have lost their bodies on the disk", count=len(lost))
        return [payload for payload in payloads if payload.seq in facts or payload.state in FINISHED]

    def source(self, payload: Payload) -> BodySource:
        """Return the body of a payload; from memory once, where it is there."""
        if (whole := self._recent.pop(payload.name, None)) is not None:
            self._recent_bytes -= len(whole)
            return BytesSource(whole)
        return FileSource(self._reader, self._folder / payload.name, payload.size)

    async def finish(self, ended: Iterable[tuple[Payload, PayloadState, str | None]]) -> None:
        """Record what has become of payloads; raises StoreError."""
        changes = [(payload.seq, state, reason) for payload, state, reason in ended]
        await self._database.write(lambda connection: rows.finish(connection, changes))

    async def drop_bodies(self, names: Iterable[str]) -> None:
        """Give the room of bodies back to the disk; their rows stay."""
        dropped = list(names)
        for name in dropped:
            self._recent_bytes -= len(self._recent.pop(name, ()))
        self.bytes -= await self._janitor.submit(lambda: self._delete(dropped))

    async def forget_before(self, height: int, before: float) -> None:
        """Delete what is finished and of stages before a height, or of none and before a time. Raises StoreError."""
        names = await self._database.write(lambda connection: rows.forget_before(connection, height, before))
        await self.drop_bodies(names)

    def _remember(self, name: str, body: bytearray) -> None:
        self._recent[name] = body
        self._recent_bytes += len(body)
        while self._recent_bytes > _MAX_RECENT_BYTES:
            self._recent_bytes -= len(self._recent.pop(next(iter(self._recent))))

    def _commit(self, row: rows.NewRow) -> Deferred[int | None]:
        done: Deferred[int | None] = Deferred()
        self._waiting.append((row, done))
        if not self._is_committing:
            self._is_committing = True
            committing = Deferred.fromCoroutine(self._commit_all())
            committing.addErrback(lambda failure: self.log.failure("committing callbacks broke", failure))
        return done

    async def _commit_all(self) -> None:
        """Commit what waits, and what has come meanwhile, until nothing waits."""
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                new = [row for row, _ in group]
                try:
                    numbers = await self._database.write(partial(self._insert, new=new), intake=True)
                except OSError as error:
                    self._fail(group, StoreBusyError(f"{self._folder}: {error.strerror or error}"))
                except StoreError as error:
                    self._fail(group, error)
                else:
                    for (_, done), number in zip(group, numbers, strict=True):
                        done.callback(number)
        finally:
            self._is_committing = False

    def _fail(self, group: list[tuple[rows.NewRow, Deferred[int | None]]], error: Exception) -> None:
        for _, done in group:
            done.errback(error)

    # The database's thread.

    def _insert(self, connection: sqlite3.Connection, new: list[rows.NewRow]) -> list[int | None]:
        # First, so that no row is there whose file may be lost with the power.
        self._sync_folder()
        return rows.insert(connection, new)

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    # The janitor's thread.

    def _delete(self, names: list[str]) -> int:
        """Delete files, and return how large they were."""
        freed = 0
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                path = self._folder / name
                freed += path.stat().st_size
                path.unlink()
        return freed

    def _look_at_files(self, payloads: list[Payload]) -> dict[int, Facts]:
        """Delete files without a row, and return the facts of the bodies that are there, by the payloads' numbers."""
        by_name = {payload.name: payload for payload in payloads}
        facts: dict[int, Facts] = {}
        for path in self._folder.glob("*.body"):
            payload = by_name.get(path.name)
            # What comes now, after the start, has no row yet.
            if payload is None and not path.name.startswith(self._boot):
                path.unlink()
            elif payload is not None and path.stat().st_size == payload.size:
                facts[payload.seq] = payload.facts if payload.state in FINISHED else scan_file(path)
        return facts
