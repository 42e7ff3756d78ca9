"""``twistd -n dapi`` as a process: how it starts, answers, refuses and ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import sqlite3
from pathlib import Path

import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.error import ConnectError
from twisted.web.client import Agent, ResponseFailed

from tests.batches import validated_fields
from tests.integration.ports import free_port
from tests.integration.twistd_process import Run, Twistd, admin_port, customized, get, post, put, twistd
from tests.integration.waiting import soon, until_awaited

__all__ = ["twistd"]


DEAD_NODE = {"id": "a", "host": "127.0.0.1", "inference_port": 1, "poc_port": 1, "models": {"m": {}}}


def refusal(process: Twistd) -> str:
    """Why a process did not start, which it tells once and last."""
    assert process.output.count("cannot start: ") == 1
    return process.last_line().partition("cannot start: ")[2]


@pytest_twisted.ensureDeferred
async def test_starts_answers_and_ends_on_sigterm(twistd: Run, tmp_path: Path) -> None:
    process = twistd()
    port = await admin_port(process)
    status = await get(port, "/admin/v1/status")
    assert status["chain"]["state"] == "not configured"
    assert status["database"]["state"] == "ok"
    # What the README says to look for in the log.
    await process.when_written(r"\[dapi\.\S+#warn\] no chain is configured")
    process.signal("TERM")
    # twistd itself ends by the signal it was sent, once all is stopped.
    assert await process.when_ended() == -signal.SIGTERM
    assert "Traceback" not in process.output
    assert not list(tmp_path.glob("outbox.db-*"))


@pytest_twisted.ensureDeferred
async def test_stops_in_order_when_its_terminal_is_gone(twistd: Run, tmp_path: Path) -> None:
    process = twistd()
    await admin_port(process)
    process.signal("HUP")
    assert await process.when_ended() == 0
    assert "stopping: SIGHUP came" in process.output
    assert "Traceback" not in process.output
    # The database was closed.
    assert not list(tmp_path.glob("outbox.db-*"))


@pytest_twisted.ensureDeferred
async def test_both_ports_tell_whether_it_lives_and_takes_batches(twistd: Run) -> None:
    process = twistd()
    ports = [await admin_port(process)]
    ports.append(int((await process.when_written(r"callbacks: listening on 127\.0\.0\.1:(\d+)"))[1]))
    for port in ports:
        assert await get(port, "/healthz") == {"status": "ok"}

        async def is_ready(port: int = port) -> bool:
            response = await soon(treq.get(f"http://127.0.0.1:{port}/readyz", agent=Agent(reactor)))
            answer = json.loads(await treq.content(response))
            # Not before the nodes are loaded, which is a moment later than the port is open.
            assert answer["ready"] == (response.code == 200) == (not answer["reasons"])
            return bool(answer["ready"])

        await until_awaited(is_ready)


@pytest_twisted.ensureDeferred
async def test_systemd_is_told_that_it_is_ready_alive_and_stopping(twistd: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as systemd:
        systemd.bind(str(tmp_path / "notify"))

        async def told() -> str:
            with contextlib.suppress(BlockingIOError):
                return systemd.recv(200).decode()
            return ""

        process = twistd(environ={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1500000"})
        assert await until_awaited(told) == "READY=1\nWATCHDOG=1"
        assert await until_awaited(told) == "WATCHDOG=1"
        process.signal("TERM")
        await process.when_ended()
        last = ""
        while text := await told():
            last = text
        assert last == "STOPPING=1"


@pytest_twisted.ensureDeferred
async def test_a_slow_disk_holds_up_the_end_for_two_commits_at_most(twistd: Run, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    environ = customized(tmp_path / "site", "slow_disk", SLOW_DISK_SECONDS="2", DAPI_API__CALLBACK_AUTH="optional")
    process = twistd(environ=environ)
    port = await admin_port(process)
    callbacks = re.search(r"callbacks: listening on 127\.0\.0\.1:(\d+)", process.output)
    assert callbacks is not None
    url = f"http://127.0.0.1:{callbacks[1]}/v1/poc-batches/validated"
    # From here on the status counts without asking the disk.
    await get(port, "/admin/v1/status")
    posting = []

    def post(height: int) -> None:
        posting.append(treq.post(url, json=validated_fields(block_height=height), agent=Agent(reactor)))
        # Whoever waits when the process ends hears nothing.
        posting[-1].addErrback(lambda _: None)

    async def is_writing() -> bool:
        # One more, where the disk had the last one before anybody looked.
        if all(each.called for each in posting):
            post(len(posting) + 1)
        status = await get(port, "/admin/v1/status")
        return bool(status["outbox"]["pending_bytes"])

    # All of them at once could be in the first commit. So the others come while that one takes its time.
    await until_awaited(is_writing)
    for height in range(len(posting) + 1, 201):
        post(height)

    async def pending() -> int:
        status = await get(port, "/admin/v1/status")
        return int(status["outbox"]["pending"]) if status["outbox"]["pending"] > 20 else 0

    number = await until_awaited(pending)
    process.signal("TERM")
    await process.when_ended()
    before, _, after = process.output.partition("Received SIGTERM")
    assert "the disk syncs" in before
    # Besides the commit that was under way there is one.
    assert after.count("the disk syncs") <= 1, process.output
    assert "Traceback" not in process.output
    await gatherResults(posting)
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as found:
        assert found.execute("SELECT count(*) FROM unfinished").fetchone() >= (number,)


@pytest_twisted.ensureDeferred
async def test_may_open_as_many_files_as_the_system_allows(twistd: Run) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1] // 2), before[1]))
    try:
        process = twistd()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    await admin_port(process)
    assert resource.prlimit(process.transport.pid, resource.RLIMIT_NOFILE) == (before[1], before[1])


@pytest_twisted.ensureDeferred
async def test_a_pid_file_that_a_killed_one_left_keeps_nobody_out(twistd: Run, tmp_path: Path) -> None:
    pid_file = tmp_path / "twistd.pid"
    # In a container, what is started after a kill -9 has the number that is in the file.
    pid_file.write_text(str(os.getpid()))
    process = twistd()
    await admin_port(process)
    process.signal("TERM")
    await process.when_ended()
    assert pid_file.read_text() == str(os.getpid())


@pytest_twisted.ensureDeferred
async def test_the_callback_port_is_open_before_the_admin_port(twistd: Run) -> None:
    process = twistd()
    await admin_port(process)
    assert process.output.index("callbacks: listening on") < process.output.index("admin: listening on")


@pytest_twisted.ensureDeferred
async def test_takes_batches_while_neither_chain_nor_node_answers(twistd: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("1" * 64)
    key.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        nodes = tmp_path / "nodes.json"
        node = {"id": "a", "host": "127.0.0.1", "inference_port": 1, "poc_port": port, "models": {"m": {}}}
        nodes.write_text(json.dumps([node]))
        process = twistd(
            *("--node-config", str(nodes), "--chain-url", f"http://127.0.0.1:{port}"),
            environ={"DAPI_CHAIN_NODE__KEY_FILE": str(key), "DAPI_API__CALLBACK_AUTH": "optional"},
        )
        callbacks = await process.when_written(r"callbacks: listening on 127\.0\.0\.1:(\d+)")
        url = f"http://127.0.0.1:{callbacks[1]}/v1/poc-batches/validated"
        taken = await treq.post(url, json=validated_fields(), agent=Agent(reactor))
        assert (taken.code, await treq.content(taken)) == (200, b"")
        await admin_port(process)


@pytest_twisted.ensureDeferred
async def test_a_second_one_on_the_same_database_refuses(twistd: Run, tmp_path: Path) -> None:
    first = twistd()
    port = await admin_port(first)
    second = twistd()
    assert await second.when_ended() == 1
    assert str(tmp_path / "outbox.db") in refusal(second)
    assert "Traceback" not in second.output
    assert (await get(port, "/admin/v1/status"))["database"]["state"] == "ok"


@pytest_twisted.ensureDeferred
async def test_a_busy_port_refuses(twistd: Run) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        process = twistd(admin_port=port)
        assert await process.when_ended() == 1
        assert refusal(process).startswith("admin")
        assert str(port) in refusal(process)
    # What it had opened before is closed again, so the next one can start.
    again = twistd(admin_port=port)
    await admin_port(again)


@pytest_twisted.ensureDeferred
async def test_a_database_that_must_not_be_touched_refuses(twistd: Run, tmp_path: Path) -> None:
    (tmp_path / "corrupt.db").write_bytes(b"no database at all" * 1000)
    first = twistd(database="newer.db")
    await admin_port(first)
    first.signal("TERM")
    await first.when_ended()
    connection = sqlite3.connect(tmp_path / "newer.db")
    connection.execute("PRAGMA user_version = 4711")
    connection.close()
    for name, reason in (("corrupt.db", "corrupt"), ("newer.db", "newer"), ("corrupt.db/outbox.db", "path")):
        process = twistd(database=name)
        assert await process.when_ended() == 1
        assert reason in refusal(process)
        assert name in refusal(process)


@pytest_twisted.ensureDeferred
async def test_an_empty_database_refuses_until_a_new_one_is_asked_for(twistd: Run, tmp_path: Path) -> None:
    (tmp_path / "outbox.db").touch()
    process = twistd()
    assert await process.when_ended() == 1
    assert f"cannot start: the database {tmp_path / 'outbox.db'} is empty" in process.last_line()
    assert "--new-database" in process.last_line()
    assert (tmp_path / "outbox.db").stat().st_size == 0
    process = twistd("--new-database")
    port = await admin_port(process)
    assert (await get(port, "/admin/v1/status"))["batches"]["stored"] == 0
    process.signal("TERM")
    await process.when_ended()
    await admin_port(twistd())


@pytest_twisted.ensureDeferred
async def test_ends_with_a_failure_when_its_file_breaks(twistd: Run, tmp_path: Path) -> None:
    process = twistd()
    port = await admin_port(process)
    await process.when_written(r"\d+ nodes loaded")
    for path in (tmp_path / "outbox.db", tmp_path / "outbox.db-wal"):
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
    # Where dapi itself has used its file before, it is about to end, or has ended.
    with contextlib.suppress(ConnectError, ResponseFailed):
        refused = await treq.get(f"http://127.0.0.1:{port}/admin/v1/batches", agent=Agent(reactor))
        assert refused.code == 503
        await treq.content(refused)
    assert await process.when_ended() == 1
    assert re.search(r"critical\] stopping: .*outbox\.db", process.output)


@pytest_twisted.ensureDeferred
async def test_a_wrong_setting_refuses(twistd: Run) -> None:
    process = twistd("--chain-url", "node:26657")
    assert await process.when_ended() == 1
    wrong, help_ = process.output.splitlines()
    assert wrong.startswith("dapi: chain_node.url (option --chain-url) is not allowed: an RPC URL")
    assert "--help" in help_
    process = twistd(environ={"KEYRING_BACKEND": "os", "KEYRING_PASSWORD": "hunter2"})
    assert await process.when_ended() == 1
    wrong, _ = process.output.splitlines()
    assert "environment KEYRING_BACKEND" in wrong
    assert "one of file, test" in wrong
    assert "hunter2" not in process.output
    process = twistd("--no-such-option")
    assert await process.when_ended() == 1
    assert process.output.splitlines() == ["dapi: option --no-such-option not recognized", help_]


@pytest_twisted.ensureDeferred
async def test_debug_lines_are_written_on_request_only(twistd: Run, tmp_path: Path) -> None:
    (tmp_path / "nodes.json").write_text(json.dumps([DEAD_NODE]))
    block = {"block_height": 5, "block_hash": "AB", "public_key": "02aa"}
    for name, levels, is_written in (
        ("a.db", {}, False),
        ("b.db", {"DAPI_LOG__LEVEL": "info,broker=debug"}, True),
        ("c.db", {"DAPI_LOG__LEVEL": "debug,broker=info"}, False),
    ):
        process = twistd("--node-config", str(tmp_path / "nodes.json"), database=name, environ=levels)
        port = await admin_port(process)
        await process.when_written("a: registered")
        # The second failure is the same as the first: a debug line.
        for _ in range(2):
            assert not (await post(port, "/admin/v1/poc/start", block))["results"]["a"]["succeeded"]
        if is_written:
            await process.when_written(r"NodeWorker#debug\]")
        process.signal("TERM")
        await process.when_ended()
        assert ("NodeWorker#debug]" in process.output) is is_written


@pytest_twisted.ensureDeferred
async def test_a_log_in_a_file_has_the_level_that_is_asked_for(twistd: Run, tmp_path: Path) -> None:
    process = twistd("--log-level", "warn", log_file="dapi.log", admin_port=70000)
    assert await process.when_ended() == 1
    assert "--admin-port" in process.output
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = twistd("--log-level", "warn", log_file="dapi.log", admin_port=taken.getsockname()[1])
        assert await process.when_ended() == 1
    # Whoever started it by hand sees the terminal only.
    assert refusal(process).startswith("admin")
    lines = (tmp_path / "dapi.log").read_text().splitlines()
    assert [re.search(r"#(\w+)\]", line)[1] for line in lines if "#" in line] == ["warn", "critical"]  # type: ignore[index]


@pytest_twisted.ensureDeferred
async def test_the_log_is_json_lines_on_request_and_its_level_changes_while_it_runs(twistd: Run) -> None:
    process = twistd(environ={"DAPI_LOG__FORMAT": "json"})
    port = int((await process.when_written(r'"message":"admin: listening on 127\.0\.0\.1:(\d+)"'))[1])
    assert await get(port, "/admin/v1/log") == {"level": "info", "configured": "info"}
    await put(port, "/admin/v1/log", {"level": "critical"})
    process.signal("TERM")
    await process.when_ended()
    lines = [json.loads(line) for line in process.output.splitlines()]
    assert all(line["time"] and line["message"] for line in lines)
    warnings = [line["message"] for line in lines if line["level"] == "warn"]
    assert any(message.startswith("no chain is configured") for message in warnings)
    # What twistd says at its end is of a lower level.
    assert "Server Shut Down." not in {line["message"] for line in lines}


@pytest_twisted.ensureDeferred
async def test_a_key_that_cannot_be_used_refuses(twistd: Run, tmp_path: Path) -> None:
    process = twistd("--chain-url", "http://127.0.0.1:1", environ={"DAPI_CHAIN_NODE__KEY_FILE": str(tmp_path / "key")})
    assert await process.when_ended() == 1
    assert str(tmp_path / "key") in refusal(process)
    assert "Traceback" not in process.output
    assert not (tmp_path / "outbox.db").exists()


@pytest_twisted.ensureDeferred
async def test_secrets_are_in_no_line_and_no_answer(twistd: Run, tmp_path: Path) -> None:
    vectors = json.loads((Path(__file__).parents[1] / "vectors" / "keyring.json").read_text("utf-8"))
    (tmp_path / "keyring-file").mkdir()
    (tmp_path / "keyring-file" / "warm.info").write_text(vectors["files"]["keyring-file/participant.info"])
    # Nobody listens there, and whatever fails is told.
    node = {"id": "a", "host": "127.0.0.1", "inference_port": 1, "poc_port": 1, "models": {"m": {}}}
    (tmp_path / "nodes.json").write_text(json.dumps([{**node, "websocket_url": "ws://127.0.0.1:1/ws?key=hush-node"}]))
    process = twistd(
        *("--node-config", str(tmp_path / "nodes.json"), "--chain-url", "http://127.0.0.1:1/rpc?key=hush-chain"),
        environ={
            "KEY_NAME": "warm",
            "KEYRING_PASSWORD": vectors["password"],
            "DAPI_CHAIN_NODE__KEYRING_DIR": str(tmp_path),
            "DAPI_POC__FOLLOW_CHAIN": "false",
        },
    )
    port = await admin_port(process)
    await process.when_written("a: registered")
    block = {"block_height": 5, "block_hash": "AB", "public_key": vectors["participant"]["public_key"]}
    shown = [await post(port, "/admin/v1/poc/start", block)]
    shown += [await get(port, f"/admin/v1/{route}") for route in ("status", "nodes", "batches")]
    text = json.dumps(shown, ensure_ascii=False)
    assert vectors["participant"]["address"] in text
    for secret in (vectors["password"], vectors["participant"]["secret"], "hush-node", "hush-chain"):
        assert secret not in text
        assert secret not in process.output


@pytest_twisted.ensureDeferred
async def test_an_unknown_setting_is_told_and_costs_nothing_else(twistd: Run, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("api: {ml_sever_port: 9100}\n")
    process = twistd("--config", str(config))
    await admin_port(process)
    await process.when_written(r"api\.ml_sever_port")
