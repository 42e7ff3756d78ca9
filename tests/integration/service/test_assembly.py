"""Each setting reaches its part, and the whole answers as one."""

from __future__ import annotations

import base64
import contextlib
import json
import resource
import sqlite3
from functools import partial
from pathlib import Path

import msgspec
import pytest
import pytest_twisted
import treq
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from zope.interface.verify import verifyObject

from dapi.broker.duties import Intention
from dapi.broker.node_worker_commands import StartPocCommand
from dapi.chain.keyring import SigningKey
from dapi.config import ApiConfig, ChainNodeConfig, PocConfig, Secret, TlsConfig, WebSocketConfig
from dapi.errors import ConfigError
from dapi.mlnode.client import MAIN_NETWORK_PARAMS, TEST_NETWORK_PARAMS, PowParams
from dapi.phases.duty import Duty
from dapi.service import DapiService, make_service
from tests.batches import generated_batch
from tests.integration.certificates import Authority
from tests.integration.service.services import Start, call, config, entry, node, when_loaded
from tests.integration.waiting import until
from tests.logs import Log


def is_warned(log: Log, text: str, warnings: list[str]) -> bool:
    return [warning.partition(":")[0] for warning in log.warnings(text)] == warnings


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
async def test_lists_a_damaged_row_among_the_others(start: Start, tmp_path: Path) -> None:
    service = await start(config(tmp_path / "a.db"))
    for batch_id in "abc":
        await service.outbox.put(entry(batch_id))
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("UPDATE unfinished SET last_seen_at = x'ff' WHERE batch_id = 'b'")
    code, page = await call(service.admin_listener.port, "/admin/v1/batches")
    assert code == 200
    assert [(row["batch_id"], row["state"]) for row in page["batches"]] == [
        ("c", "stored"),
        ("b", "damaged"),
        ("a", "stored"),
    ]
    assert page["batches"][1]["reason"] == "damaged on disk: last_seen_at"
    assert set(page["batches"][0]) - set(page["batches"][1]) == {"last_seen_at"}


@pytest_twisted.ensureDeferred
async def test_the_status_is_plain_json_data(start: Start, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("1" * 64)
    key_file.chmod(0o600)
    chain_node = ChainNodeConfig(url="http://127.0.0.1:1", key_file=str(key_file))
    service = await start(config(tmp_path / "a.db", node("a"), chain_node=chain_node))
    await call(service.callback_listener.port, "/v1/poc-batches/generated", generated_batch(node_id=1))
    status = await service.status()
    assert json.loads(json.dumps(status)) == status
    assert status["callbacks"]["answers"] == {"200": 1}
    assert status["nodes"][0]["batches"]["stored"] == 1


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
            websocket=WebSocketConfig(idle_seconds=7.0, max_message_bytes=2048, compression=True),
            tls=TlsConfig(ca_file=Authority().write(tmp_path)),
            poc=PocConfig(network="test", follow_chain=False),
        )
    )
    assert (tmp_path / "a.db.reserve").stat().st_size == 2**20
    worker = service.broker.worker_by_num(1)
    websocket = worker.websocket_client._settings
    assert {name: getattr(websocket, name) for name in WebSocketConfig.__struct_fields__} == {
        "idle_seconds": 7.0,
        "max_message_bytes": 2048,
        "compression": True,
    }
    assert websocket.ca_file == service._config.tls.ca_file is not None
    assert worker.ml_client._exchanges._trust_root is not None
    assert params_of_inits(service) == TEST_NETWORK_PARAMS
    assert service.chain is not None
    assert service.chain.conductor is None
    submitting = service.chain.submitter._settings
    assert (submitting.max_nonces, submitting.max_transaction_bytes) == (5, 20_000)
    assert service.chain.submitter.status()["participant"] == participant.address
    chain_status = (await service.status())["chain"]
    assert chain_status["oldest_unfinished_seconds"] is None
    assert [node["name"] for node in chain_status["nodes"]] == ["127.0.0.1:1", "127.0.0.1:2"]
    await service.outbox.put(entry("1"))
    assert (await service.status())["chain"]["oldest_unfinished_seconds"] >= 0


@pytest_twisted.ensureDeferred
async def test_without_a_chain_it_says_so(start: Start, tmp_path: Path, log: Log) -> None:
    service = await start(config(tmp_path / "a.db"))
    status = await service.status()
    assert status["chain"]["state"] == "not configured"
    assert "nothing is submitted" in status["chain"]["reason"]
    assert log.warnings("no chain is configured")


@pytest_twisted.ensureDeferred
async def test_a_reactor_that_waits_by_the_wall_clock_is_warned_of(start: Start, tmp_path: Path, log: Log) -> None:
    # That there is no warning where dapi owns the process is in test_clock: a reactor that runs keeps its clock.
    await start(config(tmp_path / "a.db"))
    (warning,) = log.warnings("waits by the wall clock")
    assert "dapi.timing.clock.make_monotonic(reactor)" in warning


@pytest_twisted.ensureDeferred
async def test_too_few_open_files_for_the_nodes_are_warned_of(
    start: Start, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, told in ((204, []), (203, ["2 nodes may need 204 open files, and 203 are allowed"])):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        service = await start(config(tmp_path / f"{limit}.db", node("a"), node("b")))
        await when_loaded(service)
        problems = (await service.status())["problems"]
        assert [each["problem"] for each in problems if each["id"] == "files-short"] == told
        await until(partial(is_warned, log, "open files", told))


@pytest_twisted.ensureDeferred
async def test_an_admin_api_that_others_can_reach_asks_for_its_token(start: Start, tmp_path: Path, log: Log) -> None:
    token = "0123456789abcdef"
    api = ApiConfig(ml_server_port=0, admin_server_host="0.0.0.0", admin_server_port=0)
    with pytest.raises(ConfigError, match=r"set api\.admin_token or api\.admin_token_file"):
        await start(config(tmp_path / "a.db", api=api))
    api = msgspec.structs.replace(api, admin_token=Secret(token), admin_hosts="dapi.example, other.example")
    service = await start(config(tmp_path / "a.db", api=api))
    base = f"http://127.0.0.1:{service.admin_listener.port}"

    async def code(path: str, **headers: str) -> int:
        sent = Headers({name: [value] for name, value in headers.items()})
        response = await treq.get(f"{base}{path}", headers=sent, agent=Agent(reactor), allow_redirects=False)
        assert token.encode() not in await treq.content(response)
        return int(response.code)

    right = f"Bearer {token}"
    for path in ("/admin/v1/status", "/admin/v1/nodes", "/metrics"):
        assert [await code(path), await code(path, authorization="Bearer x")] == [401, 401]
        assert await code(path, authorization=right, host="example.com") == 403
        for host in ("dapi.example", "other.example:9200", "10.0.0.5"):
            assert await code(path, authorization=right, host=host) == 200
    assert await code("/", accept="text/html") == 303
    assert await code("/healthz", host="anything.example") == 200
    assert not log.lines(containing=token)


@pytest_twisted.ensureDeferred
async def test_the_password_is_in_no_answer(start: Start, tmp_path: Path, log: Log) -> None:
    chain = ChainNodeConfig(keyring_password=Secret("hunter2"))
    service = await start(config(tmp_path / "a.db", chain_node=chain))
    _, status = await call(service.admin_listener.port, "/admin/v1/status")
    assert "hunter2" not in json.dumps(status)
    assert "hunter2" not in "\n".join(log.lines())


@pytest_twisted.ensureDeferred
async def test_a_node_that_cannot_reach_the_callbacks_is_named(start: Start, tmp_path: Path, log: Log) -> None:
    await start(config(tmp_path / "a.db", node("near"), node("far", host="192.0.2.1")))
    await until(lambda: bool(log.warnings("api.poc_callback_url")))
    (line,) = log.warnings("api.poc_callback_url")
    assert line.startswith("far cannot reach http://127.0.0.1:")


@pytest_twisted.ensureDeferred
async def test_the_callback_urls_password_is_for_the_nodes_only(start: Start, tmp_path: Path, log: Log) -> None:
    api = ApiConfig(ml_server_port=0, admin_server_port=0, poc_callback_url="http://user:hunter2@127.0.0.1:9100")
    service = await start(config(tmp_path / "a.db", node("far", host="192.0.2.1"), api=api))
    assert service.callback_url == "http://user:hunter2@127.0.0.1:9100/v1/poc-batches"
    assert (await service.status())["callbacks"]["url"] == "http://127.0.0.1:9100/v1/poc-batches"
    assert "hunter2" not in str(service.problems())
    await until(lambda: bool(log.warnings("api.poc_callback_url")))
    assert not log.lines(containing="hunter2")


@pytest_twisted.ensureDeferred
async def test_the_callback_url_is_what_was_set(start: Start, tmp_path: Path, log: Log) -> None:
    api = ApiConfig(ml_server_port=0, admin_server_port=0, poc_callback_url="http://10.0.0.9:9100/x/")
    for url in (f"{api.poc_callback_url}v1/poc-batches", "http://10.0.0.9:9100/x/v1/poc-batches/"):
        # Some write the whole of it.
        whole = msgspec.structs.replace(api, poc_callback_url=url)
        service = make_service(config(tmp_path / "b.db", api=whole), reactor)
        assert service.callback_url == "http://10.0.0.9:9100/x/v1/poc-batches"
    service = await start(config(tmp_path / "a.db", node("far", host="192.0.2.1"), api=api))
    assert service.callback_url == "http://10.0.0.9:9100/x/v1/poc-batches"
    await when_loaded(service)
    assert [each["id"] for each in (await service.status())["problems"]] == ["chain-not-configured", "not-driving"]
