"""What a year of 50 nodes in the database costs: ``python -m bench.year``.

The rows of a year are made first: a million confirmed batches of 50 nodes in 365 stages. Then, in turns with an empty
database, batches are put into the outbox, 16 at a time, as small as those of 20 nonces and as large as those of 1,000;
the ratio is the median of those of the rounds, and the limit is for that by CPU time. At last, the start of a whole
dapi up to its first status, the slowest list of each state, and what one step of the retention takes. The exit code is
1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from bench import processes
from bench.results import Section
from dapi.config import ApiConfig, Config, StorageConfig
from dapi.database import Database
from dapi.database.file import open_prepared
from dapi.messages import Kind, State, Via
from dapi.messages.sizes import MIB
from dapi.outbox.outbox import Outbox, OutboxEntry
from dapi.outbox.retention import delete_some
from dapi.service import make_service
from dapi.tap import SWITCH_INTERVAL_SECONDS

NODES, STAGES, BLOCKS = 50, 365, 15_391
OUTSTANDING = 16
# The bytes of a message of so many nonces.
SIZES = {20: 600, 1_000: 12_000}
LIMITS = {"ratio": 0.95, "start_seconds": 2.0, "list_ms": 100.0}
_BEGAN_AT = 1.7e9
_STEPS = 40


class Round(NamedTuple):
    """Of one round of intake: batches a second, and microseconds of CPU time a batch."""

    rate: float
    cpu_us: float


def rows(number: int) -> Iterator[tuple[object, ...]]:
    """Yield finished rows as a year makes them: stage after stage, the nodes at random."""
    generator = random.Random(1)
    for seq in range(1, number + 1):
        height = 1 + BLOCKS * (seq * STAGES // (number + 1))
        at = _BEGAN_AT + seq * 365 * 86_400 / number
        batch_id = hashlib.sha256(b"of the year %d" % seq).hexdigest()
        tx_hash = hashlib.sha256(b"transaction %d" % (seq // 20)).hexdigest().upper()
        node_id = f"node{generator.randrange(NODES)}"
        yield (seq, batch_id, node_id, height, at, at, at + 12, tx_hash, height + 40, generator.getrandbits(32))


def make_year(path: Path, number: int) -> None:
    """Make a database with so many confirmed batches, as fast as the disk allows."""
    connection = open_prepared(path)
    connection.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -300000; BEGIN")
    connection.executemany(
        "INSERT INTO finished (seq, kind, state, via, nonces, seen, seen_by_http, attempts, batch_id, node_id, height,"
        " received_at, last_seen_at, finished_at, tx_hash, included_height, crc32)"
        " VALUES (?, 'generated', 'confirmed', 'websocket', 1000, 1, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows(number),
    )
    connection.executescript(
        "INSERT INTO ledger SELECT height, node_id, kind, state, count(*), sum(nonces), 0 FROM finished GROUP BY 1, 2;"
        "UPDATE sqlite_sequence SET seq = (SELECT max(seq) FROM finished) WHERE name = 'unfinished';"
        "INSERT INTO sqlite_sequence SELECT 'unfinished', max(seq) FROM finished"
        " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'unfinished');"
        "PRAGMA wal_checkpoint(TRUNCATE)"
    )
    connection.close()
    os.sync()


def take_in(reactor: Any, outbox: Outbox, size: int, number: int, salt: bytes) -> Deferred[Round]:
    """Put so many batches of a stage into the outbox, each when another one is on disk; fires with the round."""
    body = random.Random(2).randbytes(size)
    ids = (hashlib.sha256(salt + b"%d" % index).hexdigest() for index in range(number))
    nodes = itertools.cycle(f"node{index}" for index in range(NODES))
    done: Deferred[Round] = Deferred()
    left = number
    began, used = time.perf_counter(), _cpu_seconds()

    def put(_: object = None) -> None:
        nonlocal left
        batch_id = next(ids, None)
        if batch_id is not None:
            height = 1 + BLOCKS * STAGES
            entry = OutboxEntry(batch_id, Kind.GENERATED, next(nodes), height, 20, Via.WEBSOCKET, body, "a run")
            outbox.put(entry).addCallback(on_disk).addErrback(done.errback)

    def on_disk(_: object) -> None:
        nonlocal left
        left -= 1
        if left:
            put()
        else:
            seconds = time.perf_counter() - began
            done.callback(Round(number / seconds, (_cpu_seconds() - used) / number * 1e6))

    for _ in range(OUTSTANDING):
        put()
    return done


async def compare(reactor: Any, folder: Path, rounds: int, batches: int) -> dict[str, Any]:
    """Take batches in, in turns into an empty database and into that of a year."""
    databases = {name: Database(reactor, str(folder / f"{name}.db"), on_broken=sys.exit) for name in ("empty", "year")}
    outboxes = {name: Outbox(reactor, database) for name, database in databases.items()}
    found: dict[str, Any] = {}
    for database in databases.values():
        database.startService()
    for nonces, size in SIZES.items():
        measured: dict[str, list[Round]] = {name: [] for name in databases}
        for turn in range(rounds):
            for name, outbox in outboxes.items():
                salt = b"%d %d " % (nonces, turn)
                measured[name].append(await take_in(reactor, outbox, size, batches * 20 // (20 + nonces // 20), salt))
                # So that each round begins with the same.
                await databases[name].write(lambda connection: connection.execute("DELETE FROM unfinished").rowcount)
                await databases[name].write(lambda each: each.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        line = {}
        for name, kept in measured.items():
            line[name] = {field: statistics.median(getattr(one, field) for one in kept) for field in Round._fields}
        pairs = list(zip(measured["year"], measured["empty"], strict=True))
        line["ratio"] = {
            "rate": statistics.median(year.rate / empty.rate for year, empty in pairs),
            "cpu": statistics.median(empty.cpu_us / year.cpu_us for year, empty in pairs),
        }
        found[str(nonces)] = line
        for name in databases:
            print(f"{nonces:>6} nonces, {name:>5}: {line[name]['rate']:8.0f}/s, {line[name]['cpu_us']:6.1f} µs of CPU")
        print(f"{nonces:>6} nonces, ratio: {line['ratio']['rate']:.3f} of the rate, {line['ratio']['cpu']:.3f} by CPU")
    for database in databases.values():
        await database.stopService()
    return found


async def look(reactor: Any, path: Path) -> dict[str, Any]:
    """Start a whole dapi on a database, and list what is in it."""
    ports = ApiConfig(ml_server_port=0, ml_server_host="127.0.0.1", admin_server_port=0)
    service = make_service(Config(api=ports, storage=StorageConfig(path=str(path), reserve_bytes=8 * MIB)), reactor)
    began = time.perf_counter()
    service.startService()
    counted = (await service.status())["batches"]
    start = time.perf_counter() - began
    slowest = 0.0
    for node_id, kind, state in itertools.product((None, "node7", "no such"), (None, *Kind), (None, *State)):
        for before in (None, 10_000):
            began = time.perf_counter()
            await service.outbox.batches(node_id=node_id, kind=kind, state=state, before=before)
            slowest = max(slowest, time.perf_counter() - began)
    await service.stopService()
    print(f"start to the first status: {start:.3f} s; {counted}")
    print(f"slowest list: {slowest * 1000:.1f} ms")
    return {"start_seconds": start, "list_ms": slowest * 1000, "counted": counted}


def delete(path: Path) -> dict[str, Any]:
    """Do some steps of the retention; return what the slowest and the average one took."""
    connection = open_prepared(path)
    last, deleted, took = 0, 0, []
    for _ in range(_STEPS):
        began = time.perf_counter()
        step = delete_some(connection, after=last, before=_BEGAN_AT + 300 * 86_400)
        took.append(1000 * (time.perf_counter() - began))
        last, deleted = step.last or 0, deleted + step.deleted
    connection.close()
    median = statistics.median(took)
    print(f"a step of the retention: {median:.1f} ms, {max(took):.1f} at most; {deleted} rows in {_STEPS} steps")
    return {"median_ms": median, "max_ms": max(took), "rows": deleted}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main(reactor: Any, number: int, rounds: int, batches: int) -> None:
    """Measure, print, and write the section ``year``."""
    section = Section("year")
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    with processes.folder() as name:
        folder = Path(name)
        began = time.perf_counter()
        make_year(folder / "year.db", number)
        size = (folder / "year.db").stat().st_size // 10**6
        print(f"{number} rows made in {time.perf_counter() - began:.1f} s: {size} MB", flush=True)
        intake = await compare(reactor, folder, rounds, batches)
        seen = await look(reactor, folder / "year.db")
        steps = delete(folder / "year.db")
    section.write({"rows": number, "megabytes": size, "intake": intake, **seen, "retention": steps})
    missed = [name for name in ("start_seconds", "list_ms") if seen[name] > LIMITS[name]]
    missed += [f"ratio at {nonces}" for nonces, line in intake.items() if line["ratio"]["cpu"] < LIMITS["ratio"]]
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=10_000, help="of 20 nonces in a round; fewer of the larger ones")
    given = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, given.rows, given.rounds, given.batches)))
