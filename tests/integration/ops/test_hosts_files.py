"""What ``ops/`` has for whoever runs dapi: the unit for systemd, the image, and nginx before a node."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.error import ConnectError

from dapi.config import TlsConfig
from dapi.websocket.client import WebSocketState
from tests import programs
from tests.integration.certificates import Authority
from tests.integration.ports import free_port
from tests.integration.processes import WatchedProcess
from tests.integration.service.conftest import start
from tests.integration.service.services import Start, config
from tests.integration.simulated_node import NodeTestBed
from tests.integration.waiting import soon, until, until_awaited
from tests.integration.websocket.conftest import running
from tests.integration.websocket.servers import Running
from tests.ops_files import OPS, text_of

__all__ = ["running", "start"]

reactor: Any = global_reactor
# In tenths: systemd calls what is below 2.0 safe.
MAX_EXPOSURE = 19


@programs.needs("systemd-analyze")
def test_the_unit_is_sound_and_exposes_little(tmp_path: Path) -> None:
    # A program that is there; what it is matters to nobody.
    unit = tmp_path / "dapi.service"
    unit.write_text(text_of("dapi.service").replace("/opt/dapi/bin/twistd", sys.executable))
    assert unit.name not in programs.run("systemd-analyze", "verify", str(unit))
    programs.run("systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", str(unit))
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes\n", "").replace("User=dapi\n", ""))
    with pytest.raises(AssertionError, match="exposure"):
        programs.run("systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", str(unit))


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="hadolint is installed on Linux x86_64 only"
)
def test_the_image_is_described_without_a_fault(tmp_path: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, OPS / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    wrong = tmp_path / "Containerfile"
    wrong.write_text(text_of("Containerfile").replace("FROM docker.io/library/debian:12-slim", "FROM debian:latest"))
    assert subprocess.run([hadolint, wrong], capture_output=True, check=False).returncode == 1


class Nginx:
    """nginx with the configuration of ``ops/``, on other ports; ``port`` is where it listens."""

    def __init__(self, folder: Path, node_port: int) -> None:
        self.port = free_port()
        self._configuration = folder / "nginx.conf"
        text = text_of("nginx.conf").replace("listen 8080", f"listen 127.0.0.1:{self.port}")
        text = text.replace("127.0.0.1:8081", f"127.0.0.1:{node_port}")
        # Where it may write without being root.
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"    {kind}_temp_path {folder / kind};\n" for kind in kinds)
        text = text.replace("http {\n", f"http {{\n{paths}", 1)
        self._configuration.write_text(f"daemon off;\nmaster_process off;\npid {folder / 'pid'};\n{text}")
        self._options = ("-p", str(folder), "-e", "stderr", "-c", str(self._configuration))
        self._process = WatchedProcess()

    def check(self) -> None:
        programs.run("nginx", "-t", *self._options)

    def start(self) -> None:
        nginx = programs.path_of("nginx")
        reactor.spawnProcess(self._process, nginx, [nginx, *self._options], env={})

    async def stop(self) -> None:
        await self._process.kill()


@pytest_twisted.async_yield_fixture
async def bed() -> AsyncIterator[NodeTestBed]:
    bed = NodeTestBed()
    yield bed
    await bed.end()


@programs.needs("nginx")
@pytest_twisted.ensureDeferred
async def test_a_nodes_websocket_and_a_large_request_pass_nginx(
    bed: NodeTestBed, running: Running, tmp_path: Path
) -> None:
    nginx = Nginx(tmp_path, bed.node.port)
    nginx.check()
    nginx.start()
    try:
        # Through the proxy from here on, below the prefix of a version, too.
        for prefix in ("", "/v3.0.8"):
            url = f"http://127.0.0.1:{nginx.port}{prefix}/api/v1/state"

            async def is_answered(url: str = url) -> bool:
                try:
                    response = await soon(bed.http.get(url))
                except ConnectError:
                    return False
                await response.content()
                return bool(response.code == 200)

            await until_awaited(is_answered)
        assert (await bed.init())[0] == 200
        client = running.connect(f"http://127.0.0.1:{nginx.port}")
        await until(lambda: client.status().state is WebSocketState.OPEN and client.status().acks > 0)
        # More than nginx takes where nothing is said of it.
        response = await soon(bed.http.post(f"http://127.0.0.1:{nginx.port}/nothing", data=b"x" * 3_000_000))
        await response.content()
        assert response.code != 413
    finally:
        await nginx.stop()


async def health(port: int) -> int:
    """Run the image's check of health; its exit code."""
    process = WatchedProcess()
    environ = {"DAPI_API__ADMIN_SERVER_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
    reactor.spawnProcess(process, sys.executable, [sys.executable, str(OPS / "healthcheck.py")], env=environ)
    return await process.when_ended()


@pytest_twisted.ensureDeferred
async def test_the_images_check_of_health(start: Start, tmp_path: Path) -> None:
    service = await start(config(tmp_path / "a.db"))
    port = service.admin_listener.port
    assert await health(port) == 0
    await service.stopService()
    assert await health(port) == 1
    certificate, key = Authority().write_for(tmp_path, "another.example")
    service = await start(config(tmp_path / "b.db", tls=TlsConfig(certificate=certificate, key=key)))
    assert await health(service.admin_listener.port) == 0
