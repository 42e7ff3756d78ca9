"""Keeps callbacks: the bodies in files, what is known of each in a row of the database."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dapi.database import Database
from dapi.database.lane import Lane
from dapi.database.to_disk import to_disk
from dapi.errors import StartError, StoreBusyError
from dapi.http.raw_client import PIECE_BYTES, BodySource, BytesSource
from dapi.messages.sizes import MIB
from dapi.relay import rows
from dapi.relay.bodies import SMALL_BYTES, Body, FileSource, LargeBody, SmallBody, scan_part, scan_small, write_together
from dapi.relay.facts import Facts
from dapi.relay.payload import FINISHED, Payload, PayloadState, Place
from dapi.relay.scan import Scan, read_whole

MAX_BODY_BYTES = 128 * MIB
_WRITERS = 8
_SUFFIX = ".body"
_MAX_RECENT_BYTES = 32 * MIB
# A file stays until none of its bodies is needed, so one body may hold this much more of the disk.
_TOGETHER_BYTES = 4 * MIB


@attrs.define
class _New:
    """A callback that is to be kept; ``seq`` fires with its number, None where the same body is kept already."""

    row: rows.NewRow
    is_alone: bool
    seq: Deferred[int | None] = attrs.field(factory=Deferred)


@attrs.define
class _File:
    """A file of bodies: ``size`` is that of all of them, ``offsets`` are where those begin that are still needed."""

    size: int = 0
    offsets: set[int] = attrs.field(factory=set)

    def add(self, offset: int, size: int) -> None:
        self.offsets.add(offset)
        self.size += size


class RelayStore(Service):
    """The bodies in ``folder`` and their rows in ``database``, which has to be started before.

    When ``keep`` returns, a callback survives a power cut; what waits meanwhile is brought to the disk together: small
    bodies in one file, rows with one commit. ``bytes`` is the size of all bodies that are in files. The latest small
    ones are in memory, too, until they are first read.
    """

    log = Logger()

    def __init__(self, reactor: Any, database: Database, folder: str, *, now: Callable[[], float] = time.time) -> None:
        self.bytes = 0
        self._database = database
        self._folder = Path(folder)
        self.now = now
        self._together = Lane(reactor, "dapi relay writer")
        # Of large bodies. Syncs that run side by side share the disk's work.
        self._writers = [Lane(reactor, f"dapi relay writer {number}") for number in range(_WRITERS)]
        self._janitor = Lane(reactor, "dapi relay janitor")
        self._reader = Lane(reactor, "dapi relay reader")
        # Never waits for the disk.
        self._scanner = Lane(reactor, "dapi relay scanner")
        self._numbers = itertools.count()
        self._boot = ""
        self._files: dict[str, _File] = {}
        self._recent: dict[Place, bytearray] = {}
        self._recent_bytes = 0
        self._waiting: deque[_New] = deque()
        self._is_committing = False

    def startService(self) -> None:
        """Open the folder, or raise StartError."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A power cut must not take the folder away, with all that is in it.
            to_disk(self._folder.parent)
        except OSError as error:
            raise StartError(f"the folder {self._folder} cannot be made: {error}; check its permissions") from error
        self._boot = f"{int(self.now() * 1000):x}-{os.getpid():x}"
        super().startService()  # type: ignore[no-untyped-call]
        for lane in self._lanes():
            lane.start()

    def stopService(self) -> Deferred[None]:
        """Finish what is queued; fires when the threads are gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for lane in self._lanes():
            await lane.stop()

    def _lanes(self) -> tuple[Lane, ...]:
        return (self._together, *self._writers, self._janitor, self._reader, self._scanner)

    def open_body(
        self, target: bytes, length: int, *, pause: Callable[[], object], resume: Callable[[], object]
    ) -> Body:
        """Return where a body goes that is about to come."""
        if length <= SMALL_BYTES:
            return SmallBody(target)
        number = next(self._numbers)
        return LargeBody(self._writers[number % _WRITERS], self._path(number), target, pause=pause, resume=resume)

    def _is_of_now(self, name: str) -> bool:
        """Tell whether a file was made since the start, by its name."""
        return name.startswith(f"{self._boot}-")

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._boot}-{number:x}{_SUFFIX}"

    async def read(self, body: Body) -> Facts:
        """Return what a whole body says; raises StoreError. ``keep`` has to follow, or ``discard``."""
        if isinstance(body, SmallBody):
            # On the reactor's thread: a node's largest in 0.4 ms, one that is made to take long in 3 ms.
            if (facts := read_whole(body.content)) is not None:
                return facts
            return await self._writers[next(self._numbers) % _WRITERS].submit(lambda: scan_small(body.content))
        try:
            return await body.finish()
        except OSError as error:
            raise self._busy(error) from error

    def _busy(self, error: OSError) -> StoreBusyError:
        return StoreBusyError(f"{self._folder}: {error.strerror or error}")

    async def look_through(self, body: Body) -> Facts:
        """Return what a whole body says that is not kept; it may be large, and in memory. Raises OSError."""
        scan, offset = Scan(), 0
        while piece := await body.read(offset, PIECE_BYTES):
            await self._scanner.submit(partial(scan.feed, piece))
            offset += len(piece)
        return await self._scanner.submit(scan.facts)

    async def keep(self, row: rows.NewRow, *, is_alone: bool = False) -> Payload | None:
        """Keep a callback that was read; return its payload, None where the same body is kept already.

        With ``is_alone`` its body is in a file of its own, so that no other body stays for as long. Raises StoreError.
        """
        body = row.body
        if (seq := await self._commit(_New(row, is_alone))) is None:
            body.discard()
            return None
        if isinstance(body, SmallBody):
            self._remember(body.place, body.content)
        return Payload(seq, body.place, body.target, row.headers, body.length, row.received_at, row.said, row.facts)

    async def load(self) -> list[Payload]:
        """Return what was kept before the start; bodies that belong to no row are deleted. Raises StoreError."""
        payloads = [each for each in await self._database.read(rows.load) if not self._is_of_now(each.place.name)]
        try:
            facts = await self._janitor.submit(lambda: self._look_at_files(payloads))
        except OSError as error:
            raise self._busy(error) from error
        lost = [payload for payload in payloads if payload.state not in FINISHED and payload.seq not in facts]
        if lost:
            await self.finish(
                [(payload, PayloadState.SET_ASIDE, "its body is not on disk any more") for payload in lost]
            )
            self.log.error("{count} callbacks have lost their bodies on the disk", count=len(lost))
        for payload in payloads:
            payload.has_body = payload.seq in facts
            payload.facts = facts.get(payload.seq, payload.facts)
            if payload.has_body:
                self._add(payload.place, payload.size)
        return [payload for payload in payloads if payload.seq in facts or payload.state in FINISHED]

    def source(self, payload: Payload) -> BodySource:
        """Return the body of a payload; from memory once, where it is there."""
        if (whole := self._recent.pop(payload.place, None)) is not None:
            self._recent_bytes -= len(whole)
            return BytesSource(whole)
        return FileSource(self._reader, self._folder / payload.place.name, payload.place.offset, payload.size)

    async def finish(self, ended: Iterable[tuple[Payload, PayloadState, str | None]]) -> None:
        """Record what has become of payloads; raises StoreError."""
        changes = [(payload.seq, state, reason) for payload, state, reason in ended]
        await self._database.write(lambda connection: rows.finish(connection, changes))

    async def drop_bodies(self, places: Iterable[Place]) -> None:
        """Give the room of bodies back to the disk, once a file has no other; their rows stay."""
        unused = []
        for place in places:
            self._recent_bytes -= len(self._recent.pop(place, ()))
            if (file := self._files.get(place.name)) is None:
                continue
            file.offsets.discard(place.offset)
            if not file.offsets:
                self.bytes -= self._files.pop(place.name).size
                unused.append(place.name)
        await self._janitor.submit(lambda: self._delete(unused))

    async def forget_before(self, height: int, before: float) -> None:
        """Delete what is finished and of stages before a height, or of none and before a time. Raises StoreError."""
        places = await self._database.write(lambda connection: rows.forget_before(connection, height, before))
        await self.drop_bodies(places)

    def _add(self, place: Place, size: int) -> None:
        self._files.setdefault(place.name, _File()).add(place.offset, size)
        self.bytes += size

    def _remember(self, place: Place, body: bytearray) -> None:
        self._recent[place] = body
        self._recent_bytes += len(body)
        while self._recent_bytes > _MAX_RECENT_BYTES:
            self._recent_bytes -= len(self._recent.pop(next(iter(self._recent))))

    def _commit(self, new: _New) -> Deferred[int | None]:
        self._waiting.append(new)
        if not self._is_committing:
            self._is_committing = True
            committing = Deferred.fromCoroutine(self._commit_all())
            committing.addErrback(lambda failure: self.log.failure("committing callbacks broke", failure))
        return new.seq

    async def _commit_all(self) -> None:
        """Commit what waits, and what has come meanwhile, until nothing waits."""
        try:
            while self._waiting:
                group = self._next_group()
                try:
                    numbers = await self._bring_to_disk(group)
                except OSError as error:
                    self._fail(group, self._busy(error))
                except Exception as error:  # noqa: BLE001 - whoever waits for one of them gets it
                    self._fail(group, error)
                else:
                    for new, number in zip(group, numbers, strict=True):
                        new.seq.callback(number)
        finally:
            self._is_committing = False

    def _next_group(self) -> list[_New]:
        group, size = [], 0
        while self._waiting and size < _TOGETHER_BYTES:
            new = self._waiting.popleft()
            group.append(new)
            if isinstance(new.row.body, SmallBody):
                size += new.row.body.length
        return group

    async def _bring_to_disk(self, group: list[_New]) -> list[int | None]:
        names = await self._together.submit(partial(self._write, group))
        try:
            numbers = await self._database.write(partial(self._insert, new=[new.row for new in group]), intake=True)
            for new, number in zip(group, numbers, strict=True):
                if number is not None:
                    self._add(new.row.body.place, new.row.body.length)
        finally:
            if unused := [name for name in names if name not in self._files]:
                self._janitor.submit(lambda: self._delete(unused))
        return numbers

    def _fail(self, group: list[_New], error: Exception) -> None:
        for new in group:
            new.seq.errback(error)

    # The writer's thread.

    def _write(self, group: list[_New]) -> list[str]:
        """Write the small bodies of a group, and return the names of their files."""
        small = [(new.row.body, new.is_alone) for new in group if isinstance(new.row.body, SmallBody)]
        files = [[body for body, is_alone in small if not is_alone], *([body] for body, is_alone in small if is_alone)]
        names: list[str] = []
        try:
            for bodies in filter(None, files):
                path = self._path(next(self._numbers))
                write_together(path, bodies)
                names.append(path.name)
        except OSError:
            self._delete(names)
            raise
        return names

    # The database's thread.

    def _insert(self, connection: sqlite3.Connection, new: list[rows.NewRow]) -> list[int | None]:
        # First, so that no row is there whose file may be lost with the power.
        to_disk(self._folder)
        return rows.insert(connection, new)

    # The janitor's thread.

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            _delete(self._folder / name)

    def _look_at_files(self, payloads: list[Payload]) -> dict[int, Facts]:
        """Delete files without a row, and return the facts of the bodies that are there, by the payloads' numbers."""
        by_name: dict[str, list[Payload]] = {}
        for payload in payloads:
            by_name.setdefault(payload.place.name, []).append(payload)
        facts: dict[int, Facts] = {}
        # Unlike glob, this fails where the folder cannot be read: then nothing is known to be lost.
        for name in os.listdir(self._folder):
            path = self._folder / name
            if name in by_name:
                facts.update(_facts_in(path, by_name[name]))
            # What comes now, after the start, has no row yet.
            elif path.suffix == _SUFFIX and not self._is_of_now(name):
                _delete(path)
        return facts


def _facts_in(path: Path, payloads: Iterable[Payload]) -> Iterator[tuple[int, Facts]]:
    """Yield the facts of the bodies that are in a file, by the payloads' numbers."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    for payload in payloads:
        offset = payload.place.offset
        if offset + payload.size > size:
            continue
        facts = payload.facts
        if payload.state not in FINISHED:
            # One that cannot be read now is tried again when it is handed on.
            with contextlib.suppress(OSError):
                facts = scan_part(path, offset, payload.size)
        yield payload.seq, facts


def _delete(path: Path) -> None:
    """Delete a file. Where that fails it takes room until a start: no reason to end anything else."""
    with contextlib.suppress(OSError):
        path.unlink()
