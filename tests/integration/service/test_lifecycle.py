"""The whole starts, stops, starts again, and lives beside another one."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.application.service import MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred

from dapi.errors import StartError
from dapi.service import make_service
from tests.batches import generated_batch
from tests.integration.service.services import Start, call, config, entry, node, when_loaded
from tests.integration.waiting import PATIENCE_SECONDS, until
from tests.logs import Log


@pytest_twisted.ensureDeferred
async def test_nodes_that_cannot_be_registered_at_once_are_later(start: Start, tmp_path: Path, log: Log) -> None:
    await (await start(config(tmp_path / "a.db"))).stopService()
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        service = await start(config(tmp_path / "a.db", node("a")))
        await until(lambda: log.lines(containing="not registered yet"))
        other.execute("ROLLBACK")
    await until(service.broker.nodes)


@pytest_twisted.ensureDeferred
async def test_two_beside_each_other_share_nothing(start: Start, tmp_path: Path) -> None:
    one = await start(config(tmp_path / "1.db", node("a")))
    two = await start(config(tmp_path / "2.db", node("b")))
    ports = {part.port for each in (one, two) for part in (each.callback_listener, each.admin_listener)}
    assert len(ports) == 4
    batch = generated_batch(node_id=1)
    await call(one.callback_listener.port, "/v1/poc-batches/generated", batch)
    assert [each["id"] for each in (await call(two.admin_listener.port, "/admin/v1/batches"))[1]["batches"]] == []
    assert [each.id for each in one.broker.nodes()] == ["a"]
    assert [each.id for each in two.broker.nodes()] == ["b"]
    await one.stopService()
    assert (await call(two.admin_listener.port, "/admin/v1/status"))[0] == 200


@pytest_twisted.ensureDeferred
async def test_lives_in_anybodys_multi_service(tmp_path: Path) -> None:
    parent = MultiService()
    service = make_service(config(tmp_path / "a.db"))
    service.setServiceParent(parent)
    parent.startService()
    assert (await call(service.admin_listener.port, "/admin/v1/status"))[0] == 200
    await service.disownServiceParent()
    assert not service.running
    await parent.stopService()


@pytest_twisted.ensureDeferred
async def test_tells_when_the_nodes_are_registered(tmp_path: Path) -> None:
    counts: list[int] = []
    service = make_service(
        config(tmp_path / "a.db", node("a"), node("b")),
        on_registered=lambda: counts.append(len(service.broker.nodes())),
    )
    for _ in range(2):
        counts.clear()
        service.startService()
        await until(lambda: counts == [2])
        await service.stopService()


@pytest_twisted.ensureDeferred
async def test_begins_afresh_with_another_chain(start: Start, tmp_path: Path, log: Log) -> None:
    service = await start(config(tmp_path / "a.db", node("a")))
    before = service.database
    # It may be told several times, by parts that stop meanwhile.
    for _ in range(2):
        service._begin_afresh("its chain id is b, not a")
    await until(lambda: service.running and service.database is not before)
    await when_loaded(service)
    assert [each.id for each in service.broker.nodes()] == ["a"]
    assert len(log.lines(containing="dapi begins afresh")) == 1


@pytest_twisted.ensureDeferred
async def test_stays_stopped_when_it_is_stopped_while_it_begins_afresh(start: Start, tmp_path: Path) -> None:
    service = await start(config(tmp_path / "a.db"))
    service._begin_afresh("its chain id is b, not a")
    await service.stopService()
    assert not service.running


@pytest_twisted.ensureDeferred
async def test_starts_again_on_the_same_database(start: Start, tmp_path: Path) -> None:
    service = await start(config(tmp_path / "a.db", node("a"), node("b")))
    batch = generated_batch(node_id=2)
    await call(service.callback_listener.port, "/v1/poc-batches/generated", batch)
    await service.stopService()
    service.startService()
    await when_loaded(service)
    assert (await service.status())["batches"]["stored"] == 1
    await service.stopService()
    other = await start(config(tmp_path / "a.db", node("b"), node("c")))
    assert (await other.status())["batches"]["stored"] == 1
    assert [(each.id, each.num) for each in other.broker.nodes()] == [("a", 1), ("b", 2), ("c", 3)]
    await call(other.callback_listener.port, "/v1/poc-batches/generated", batch)
    assert (await other.status())["batches"]["stored"] == 1


@pytest_twisted.ensureDeferred
async def test_a_failed_start_leaves_nothing_behind(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for which in ("ml_server_port", "admin_server_port"):
            settings = config(tmp_path / "a.db", node("a"))
            api = msgspec.structs.replace(settings.api, **{which: port})
            service = make_service(msgspec.structs.replace(settings, api=api))
            with pytest.raises(StartError, match=str(port)):
                service.startService()
            assert not service.running
            await service.stopService()
    # The file is free again.
    await start(config(tmp_path / "a.db"))


@pytest_twisted.ensureDeferred
async def test_starts_from_the_ground_up_and_stops_the_database_last(start: Start, tmp_path: Path) -> None:
    service = make_service(config(tmp_path / "a.db"))
    started: list[object] = []
    stopped: list[object] = []

    def watch(part: Any) -> None:
        start_part, stop_part = part.startService, part.stopService

        def start_watched() -> None:
            started.append(part)
            start_part()

        def stop_watched() -> Deferred[None]:
            return maybeDeferred(stop_part).addCallback(lambda _: stopped.append(part))

        part.startService, part.stopService = start_watched, stop_watched

    for part in service:
        watch(part)
    service.startService()
    await service.stopService()
    tokens, large_batches = service._parts.callback_tokens, service._parts.large_batches
    assert started[:5] == [service.database, tokens, large_batches, service.callback_listener, service.broker]
    assert started[-2:] == [service.admin_listener, service._watch]
    assert set(stopped) == set(started)
    assert stopped[-1] is service.database


@pytest_twisted.ensureDeferred
async def test_starts_again_with_parts_that_know_only_what_is_on_disk(start: Start, tmp_path: Path) -> None:
    service = await start(config(tmp_path / "a.db", node("a")))
    before = (service.database, service.outbox, service.broker, service.callback_listener, service.admin_listener)
    await service.stopService()
    assert list(service) == []
    # Another process may have been at the file meanwhile.
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as other:
        other.execute("UPDATE nodes SET enabled = 0")
        other.commit()
    service.startService()
    await when_loaded(service)
    after = (service.database, service.outbox, service.broker, service.callback_listener, service.admin_listener)
    assert not set(map(id, before)) & set(map(id, after))
    assert [each.enabled for each in service.broker.nodes()] == [False]


@pytest_twisted.ensureDeferred
async def test_a_database_in_use_refuses_and_leaves_its_owner_alone(start: Start, tmp_path: Path) -> None:
    first = await start(config(tmp_path / "a.db"))
    second = make_service(config(tmp_path / "a.db"))
    with pytest.raises(StartError, match=r"a\.db"):
        second.startService()
    await second.stopService()
    assert (await call(first.admin_listener.port, "/admin/v1/status"))[0] == 200


@pytest_twisted.ensureDeferred
async def test_what_came_before_the_stop_is_on_disk_after_it(start: Start, tmp_path: Path) -> None:
    service = await start(config(tmp_path / "a.db"))
    receipts = [service.outbox.put(entry(str(number))) for number in range(1500)]
    await service.stopService()
    assert all(receipt.called for receipt in receipts)
    other = await start(config(tmp_path / "a.db"))
    assert (await other.status())["batches"]["stored"] == 1500


@pytest_twisted.ensureDeferred
async def test_stop_is_harmless_at_any_time(tmp_path: Path) -> None:
    service = make_service(config(tmp_path / "a.db"))
    await service.stopService()
    service.startService()
    assert await gatherResults([service.stopService(), service.stopService()]) == [None, None]
    assert await gatherResults([service.stopService()]) == [None]


@pytest_twisted.ensureDeferred
async def test_a_start_before_the_stop_is_done_is_refused_and_harms_nothing(start: Start, tmp_path: Path) -> None:
    service = await start(config(tmp_path / "a.db", node("a")))
    stopped = service.stopService()
    with pytest.raises(StartError, match="still stopping"):
        service.startService()
    assert not service.running
    await stopped
    service.startService()
    await when_loaded(service)
    assert (await service.status())["database"]["state"] == "ok"


@pytest_twisted.ensureDeferred
async def test_a_parts_failure_is_told_and_the_others_are_stopped(tmp_path: Path, logged_errors: Any) -> None:
    class Stubborn(Service):
        def stopService(self) -> Deferred[None]:
            return fail(ZeroDivisionError("stubborn"))

    service = make_service(config(tmp_path / "a.db"))
    service.startService()
    Stubborn().setServiceParent(service)
    with pytest.raises(ZeroDivisionError):
        await service.stopService()
    assert logged_errors.flush(ZeroDivisionError)
    service.startService()
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_a_file_that_breaks_while_it_runs_is_told(start: Start, tmp_path: Path, logged_errors: Any) -> None:
    broken: Deferred[str] = Deferred()
    service = await start(config(tmp_path / "a.db"), on_broken=broken.callback)
    for path in (tmp_path / "a.db", tmp_path / "a.db-wal"):
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
    code, _ = await call(service.admin_listener.port, "/admin/v1/batches")
    assert code == 503
    assert "a.db" in await broken.addTimeout(PATIENCE_SECONDS, reactor)
    code, status = await call(service.admin_listener.port, "/admin/v1/status")
    assert code == 200
    assert status["database"]["state"] == "broken"
    await service.stopService()
    # Such a file cannot be closed without complaint.
    logged_errors.flush(sqlite3.DatabaseError)
