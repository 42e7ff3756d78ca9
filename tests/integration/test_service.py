"""The whole tree on real ports and a real file: start, stop, status, two of them, and again on the same database."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
import treq
from twisted.application.service import IService, MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, globalLogPublisher
from twisted.web.client import Agent
from zope.interface.verify import verifyObject

from dapi.broker.duties import Intention
from dapi.broker.node_worker_commands import StartPocCommand
from dapi.broker.nodes import NodeConfig, decode_node_config
from dapi.chain.keyring import SigningKey
from dapi.config import ApiConfig, ChainNodeConfig, Config, PocConfig, Secret, StorageConfig, WebSocketConfig
from dapi.errors import StartError
from dapi.messages import Kind, Via
from dapi.mlnode.client import MAIN_NETWORK_PARAMS, TEST_NETWORK_PARAMS, PowParams
from dapi.outbox.outbox import OutboxEntry
from dapi.phases.duty import Duty
from dapi.service import DapiService, make_service
from tests.batches import generated_batch
from tests.integration.certificates import Authority

PATIENCE_SECONDS = 20


def node(node_id: str, **more: Any) -> NodeConfig:
    port = 1 + sum(node_id.encode())
    return decode_node_config(
        {"id": node_id, "host": "127.0.0.1", "inference_port": 1, "poc_port": port, "models": {"m": {}}, **more}
    )


def config(path: Path, *nodes: NodeConfig, **more: Any) -> Config:
    api = ApiConfig(ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0)
    return Config(**{"api": api, "storage": StorageConfig(path=str(path), reserve_bytes=2**20), "nodes": nodes, **more})


Start = Callable[..., Deferred[DapiService]]


@pytest_twisted.async_yield_fixture
async def start() -> AsyncIterator[Start]:
    """Starts services, which are stopped at the end."""
    services: list[DapiService] = []

    async def begin(settings: Config, **more: Any) -> DapiService:
        service = make_service(settings, **more)
        services.append(service)
        service.startService()
        await when_loaded(service)
        return service

    yield lambda *arguments, **more: Deferred.fromCoroutine(begin(*arguments, **more))
    for service in services:
        await service.stopService()


async def when_loaded(service: DapiService) -> None:
    """Wait until the configured nodes are registered, which is done in the background, one change after the other."""
    await service.broker.register_missing([])


async def until(predicate: Callable[[], Any]) -> None:
    deadline = reactor.seconds() + PATIENCE_SECONDS
    while not predicate():
        assert reactor.seconds() < deadline
        await deferLater(reactor, 0.05)


@pytest.fixture
def log() -> Any:
    """What is logged, as text."""
    lines: list[str] = []

    def keep(event: LogEvent) -> None:
        if event.get("log_format"):
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(keep)
    yield lines
    globalLogPublisher.removeObserver(keep)


async def call(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    """GET a path, or POST JSON to it; the status and the decoded answer."""
    method = "GET" if body is None else "POST"
    headers = {"Content-Type": "application/json"}
    response = await treq.request(
        method,
        f"http://127.0.0.1:{port}{path}",
        headers=headers,
        data=None if body is None else msgspec.json.encode(body),
        agent=Agent(reactor),
    ).addTimeout(PATIENCE_SECONDS, reactor)
    content = await treq.content(response)
    return response.code, json.loads(content) if content else None


def entry(batch_id: str) -> OutboxEntry:
    return OutboxEntry(batch_id, Kind.GENERATED, "a", 5, 1, Via.HTTP, b"message")


def params_of_inits(service: DapiService) -> PowParams:
    command = service.broker.command_for(service.broker.nodes()[0], Intention(Duty.GENERATE))
    assert isinstance(command, StartPocCommand)
    return command.request.params


@pytest_twisted.ensureDeferred
async def test_takes_a_batch_and_tells_of_it(start: Start, tmp_path: Path) -> None:
    service = await start(config(tmp_path / "a.db", node("a")))
    assert verifyObject(IService, service)
    assert params_of_inits(service) == MAIN_NETWORK_PARAMS
    batch = generated_batch(node_id=1)
    for _ in range(2):
        assert await call(service.callback_listener.port, "/v1/poc-batches/generated", batch) == (200, None)
    code, page = await call(service.admin_listener.port, "/admin/v1/batches")
    assert code == 200
    assert [(row["node_id"], row["seen"], row["via"]) for row in page["batches"]] == [("a", 2, "http")]
    code, status = await call(service.admin_listener.port, "/admin/v1/status")
    assert code == 200
    assert status["batches"]["stored"] == 1
    assert status["database"]["state"] == "ok"
    assert status["outbox"]["pending_bytes"] == 0
    assert status["callbacks"]["batches"]["generated"] == 2
    assert status["callbacks"]["port"] == service.callback_listener.port
    assert status["callbacks"]["url"] == f"http://127.0.0.1:{service.callback_listener.port}/v1/poc-batches"
    assert [(each["node_id"], each["node_num"]) for each in status["nodes"]] == [("a", 1)]
    assert status["nodes"][0]["websocket"]["state"] == "stopped"
    assert status["broker"] == {"is_loaded": True, "problem": None, "highest_num": 1}
    assert status["uptime_seconds"] >= 0
    assert status["version"] == "0.1.0"


@pytest_twisted.ensureDeferred
async def test_each_setting_reaches_its_part(start: Start, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("1" * 64)
    key_file.chmod(0o600)
    participant = SigningKey(b"2" * 32)
    service = await start(
        config(
            tmp_path / "a.db",
            node("a"),
            chain_node=ChainNodeConfig(
                url="http://127.0.0.1:1,http://127.0.0.1:2",
                key_file=str(key_file),
                account_public_key=base64.b64encode(participant.public_key).decode(),
                max_nonces_per_message=5,
                max_transaction_bytes=20_000,
            ),
            websocket=WebSocketConfig(
                idle_seconds=7.0, max_message_bytes=2048, compression=True, ca_file=Authority().write(tmp_path)
            ),
            poc=PocConfig(network="test", follow_chain=False),
        )
    )
    assert (tmp_path / "a.db.reserve").stat().st_size == 2**20
    worker = service.broker.worker_by_num(1)
    websocket = worker.websocket_client._settings  # type: ignore[attr-defined]
    assert {name: getattr(websocket, name) for name in WebSocketConfig.__struct_fields__} == {
        "idle_seconds": 7.0,
        "max_message_bytes": 2048,
        "compression": True,
        "ca_file": service._config.websocket.ca_file,
    }
    assert params_of_inits(service) == TEST_NETWORK_PARAMS
    assert service.chain is not None
    assert service.chain.conductor is None
    submitting = service.chain.submitter._settings
    assert (submitting.max_nonces, submitting.max_transaction_bytes) == (5, 20_000)
    assert service.chain.submitter.status()["participant"] == participant.address
    assert (await service.status())["chain"]["oldest_waiting_seconds"] is None
    await service.outbox.put(entry("1"))
    assert (await service.status())["chain"]["oldest_waiting_seconds"] >= 0


@pytest_twisted.ensureDeferred
async def test_without_a_chain_it_says_so(start: Start, tmp_path: Path, log: list[str]) -> None:
    service = await start(config(tmp_path / "a.db"))
    status = await service.status()
    assert status["chain"]["state"] == "not configured"
    assert "nothing is submitted" in status["chain"]["reason"]
    assert any("no chain is configured" in line for line in log)


@pytest_twisted.ensureDeferred
async def test_an_admin_api_that_is_open_to_others_is_warned_of(start: Start, tmp_path: Path, log: list[str]) -> None:
    # On loopback, a name that a page of another site could have is refused.
    for host, status in (("127.0.0.1", 403), ("0.0.0.0", 200)):
        api = ApiConfig(ml_server_port=0, admin_server_host=host, admin_server_port=0)
        service = await start(config(tmp_path / f"{host}.db", api=api))
        url = f"http://127.0.0.1:{service.admin_listener.port}/admin/v1/status"
        response = await treq.get(url, headers={"Host": "dapi.example"}, agent=Agent(reactor))
        await treq.content(response)
        assert response.code == status
    assert [line for line in log if "asks for no password" in line] == [
        "the admin API is open to whoever reaches 0.0.0.0: it asks for no password"
    ]


@pytest_twisted.ensureDeferred
async def test_nodes_that_cannot_be_registered_at_once_are_later(start: Start, tmp_path: Path, log: list[str]) -> None:
    await (await start(config(tmp_path / "a.db"))).stopService()
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        service = await start(config(tmp_path / "a.db", node("a")))
        await until(lambda: any("not registered yet" in line for line in log))
        other.execute("ROLLBACK")
    await until(service.broker.nodes)


@pytest_twisted.ensureDeferred
async def test_the_password_is_in_no_answer(start: Start, tmp_path: Path, log: list[str]) -> None:
    chain = ChainNodeConfig(keyring_password=Secret("hunter2"))
    service = await start(config(tmp_path / "a.db", chain_node=chain))
    _, status = await call(service.admin_listener.port, "/admin/v1/status")
    assert "hunter2" not in json.dumps(status)
    assert "hunter2" not in "\n".join(log)


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
    first, second = service.stopService(), service.stopService()
    assert await first is None
    assert await second is None
    assert await service.stopService() is None


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


@pytest_twisted.ensureDeferred
async def test_a_node_that_cannot_reach_the_callbacks_is_named(start: Start, tmp_path: Path, log: list[str]) -> None:
    await start(config(tmp_path / "a.db", node("near"), node("far", host="192.0.2.1")))
    (warning,) = [line for line in log if "api.poc_callback_url" in line]
    assert warning.startswith("far: ")


@pytest_twisted.ensureDeferred
async def test_the_callback_urls_password_is_for_the_nodes_only(start: Start, tmp_path: Path, log: list[str]) -> None:
    api = ApiConfig(ml_server_port=0, admin_server_port=0, poc_callback_url="http://user:hunter2@127.0.0.1:9100")
    service = await start(config(tmp_path / "a.db", node("far", host="192.0.2.1"), api=api))
    assert service.callback_url == "http://user:hunter2@127.0.0.1:9100/v1/poc-batches"
    assert (await service.status())["callbacks"]["url"] == "http://127.0.0.1:9100/v1/poc-batches"
    assert [line for line in log if "api.poc_callback_url" in line]
    assert not [line for line in log if "hunter2" in line]


@pytest_twisted.ensureDeferred
async def test_the_callback_url_is_what_was_set(start: Start, tmp_path: Path, log: list[str]) -> None:
    api = ApiConfig(ml_server_port=0, admin_server_port=0, poc_callback_url="http://10.0.0.9:9100/x/")
    service = await start(config(tmp_path / "a.db", node("far", host="192.0.2.1"), api=api))
    assert service.callback_url == "http://10.0.0.9:9100/x/v1/poc-batches"
    assert not [line for line in log if "api.poc_callback_url" in line]
