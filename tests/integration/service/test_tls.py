"""Both ports over TLS: who comes in, and that a new certificate breaks off nothing.

The clients are those of the standard library.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.threads import deferToThread

from dapi.cli.admin_client import AdminClient
from dapi.cli.errors import CliError
from dapi.cli.exit_codes import ExitCode
from dapi.config import ApiConfig, Config, StorageConfig, TlsConfig
from dapi.http import server_tls
from dapi.messages.secret import Secret
from dapi.service import DapiService, make_service
from tests.integration.certificates import Authority
from tests.integration.waiting import PATIENCE_SECONDS, soon, until

reactor: Any = global_reactor
T = TypeVar("T")
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@asynccontextmanager
async def dapi(folder: Path, tls: TlsConfig) -> AsyncIterator[DapiService]:
    """A dapi without a chain, whose admin API asks for a token."""
    config = Config(
        api=ApiConfig(
            ml_server_host="127.0.0.1",
            ml_server_port=0,
            admin_server_host="127.0.0.1",
            admin_server_port=0,
            admin_token=Secret(TOKEN),
        ),
        storage=StorageConfig(path=str(folder / "outbox.db")),
        tls=tls,
    )
    service = make_service(config, reactor, random=random.Random(1))
    service.startService()
    try:
        yield service
    finally:
        await soon(service.stopService())


def on_thread(function: Callable[..., T], *arguments: Any) -> Any:
    return soon(deferToThread(function, *arguments))


def connection(port: int, trusted: str, *, client: tuple[str, str] | None = None) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=trusted)
    if client is not None:
        context.load_cert_chain(*client)
    return http.client.HTTPSConnection("localhost", port, timeout=PATIENCE_SECONDS, context=context)


def ask(opened: http.client.HTTPSConnection, method: str, path: str, body: str | None = None, **headers: str) -> Any:
    """Return status, headers and body of an answer."""
    opened.request(method, path, body, headers)
    answer = opened.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def ends_at(opened: http.client.HTTPSConnection) -> str:
    """Return when the certificate that this connection began with ends."""
    certificate: Any = opened.sock.getpeercert()
    return str(certificate["notAfter"])


@pytest_twisted.ensureDeferred
async def test_both_ports(authority: Authority, tmp_path: Path) -> None:
    trusted = authority.write(tmp_path)
    certificate, key = authority.write_for(tmp_path, "localhost")
    async with dapi(tmp_path, TlsConfig(certificate=certificate, key=key)) as service:
        callbacks, admin = service.callback_listener.port, service.admin_listener.port
        assert service.callback_url == f"https://127.0.0.1:{callbacks}/v1/poc-batches"
        opened = connection(callbacks, trusted)
        status, _, body = await on_thread(ask, opened, "POST", "/v1/poc-batches/generated", "{}")
        assert (status, "no right callback token" in json.loads(body)["error"]) == (403, True)
        opened = connection(admin, trusted)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        status, _, body = await on_thread(lambda: ask(opened, "GET", "/admin/v1/status", **bearer))
        found = json.loads(body)
        assert status == 200
        assert [found[port]["tls"]["days_left"] for port in ("callbacks", "admin")] == [30.0, 30.0]
        # The page's session goes over TLS alone.
        form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"https://localhost:{admin}"}
        status, headers, _ = await on_thread(lambda: ask(opened, "POST", "/login", f"token={TOKEN}", **form))
        assert status == 303
        assert "; Secure" in headers["Set-Cookie"]
        await on_thread(opened.close)


def speak_plainly(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as opened:
        opened.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b""
        try:
            while more := opened.recv(4096):
                received += more
        except ConnectionResetError:
            pass
        return received


@pytest_twisted.ensureDeferred
async def test_whoever_speaks_plainly_gets_no_answer(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.write_for(tmp_path, "localhost")
    async with dapi(tmp_path, TlsConfig(certificate=certificate, key=key)) as service:
        received = await on_thread(speak_plainly, service.callback_listener.port)
        assert b"HTTP" not in received
        await until(lambda: service.callback_listener.site.connections == 0)


@pytest_twisted.ensureDeferred
async def test_a_new_certificate_is_shown_and_no_connection_ends(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_tls, "LOOK_SECONDS", 0.05)
    trusted = authority.write(tmp_path)
    certificate, key = authority.write_for(tmp_path, "localhost")
    async with dapi(tmp_path, TlsConfig(certificate=certificate, key=key)) as service:
        port = service.callback_listener.port
        old, new = connection(port, trusted), connection(port, trusted)
        assert (await on_thread(ask, old, "GET", "/healthz"))[0] == 200
        before = ends_at(old)
        Path(key).write_text("half of a key")
        tls = service.callback_listener.tls
        assert tls is not None
        await until(lambda: tls.status().problem is not None)
        authority.write_for(tmp_path, "localhost", days=60)
        await until(lambda: tls.status().problem is None)
        assert (await on_thread(ask, old, "GET", "/healthz"))[0] == 200
        assert ends_at(old) == before
        assert (await on_thread(ask, new, "GET", "/healthz"))[0] == 200
        assert ends_at(new) != before
        await on_thread(old.close)
        await on_thread(new.close)


@pytest_twisted.ensureDeferred
async def test_certificates_of_clients(authority: Authority, tmp_path: Path) -> None:
    trusted = authority.write(tmp_path)
    certificate, key = authority.write_for(tmp_path, "localhost")
    of_node = authority.write_for(tmp_path, "node", name="node")
    of_other = Authority("another").write_for(tmp_path, "node", name="other")
    tls = TlsConfig(certificate=certificate, key=key, client_ca_file=trusted)
    async with dapi(tmp_path, tls) as service:
        callbacks, admin = service.callback_listener.port, service.admin_listener.port
        for port, client, is_taken in (
            (callbacks, of_node, True),
            (callbacks, None, False),
            (callbacks, of_other, False),
            (admin, None, True),
        ):
            opened = connection(port, trusted, client=client)
            try:
                status = (await on_thread(ask, opened, "GET", "/healthz"))[0]
            except OSError:
                status = None
            assert (status == 200) is is_taken, (port == admin, client)
            await on_thread(opened.close)
        await until(lambda: service.callback_listener.site.connections == 0)


@pytest_twisted.ensureDeferred
async def test_the_command_line_speaks_https(authority: Authority, tmp_path: Path) -> None:
    trusted = authority.write(tmp_path)
    certificate, key = authority.write_for(tmp_path, "localhost")
    (tmp_path / "another").mkdir()
    another = Authority("another").write(tmp_path / "another")
    async with dapi(tmp_path, TlsConfig(certificate=certificate, key=key)) as service:
        url = f"https://localhost:{service.admin_listener.port}"
        found = await on_thread(AdminClient(url, TOKEN, trusted).get, "/status")
        assert found["admin"]["tls"]["problem"] is None
        for ca_file, host in ((another, "localhost"), (None, "localhost"), (trusted, "127.0.0.1")):
            client = AdminClient(url.replace("localhost", host), TOKEN, ca_file)
            with pytest.raises(CliError, match=r"cannot be trusted: .*--ca-file") as caught:
                await on_thread(client.get, "/status")
            assert caught.value.exit_code == ExitCode.UNREACHABLE
