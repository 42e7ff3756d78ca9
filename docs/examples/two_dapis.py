"""Two dapis beside a service of another kind in one process: ``python two_dapis.py FOLDER``.

Each dapi is of another participant: it has a key, a database, ports, a status page and metrics of its own. The other
service is a small web site that says of both whether something is wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import MultiService
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from dapi.config import ApiConfig, Config, StorageConfig
from dapi.service import DapiService, make_service
from dapi.timing.clock import make_monotonic


class Overview(Resource):
    """Answers with the ids of the problems of each dapi."""

    isLeaf = True

    def __init__(self, dapis: Mapping[str, DapiService]) -> None:
        super().__init__()
        self._dapis = dapis

    def render_GET(self, request: Request) -> bytes:  # noqa: N802
        """Answer in JSON; what ``problems`` returns is there already, so nobody waits."""
        request.setHeader(b"Content-Type", b"application/json")
        problems = {name: [each.id for each in dapi.problems()] for name, dapi in self._dapis.items()}
        return json.dumps(problems).encode()


def config_of(folder: Path, callback_port: int, admin_port: int) -> Config:
    """Return the settings of one of them. With ``chain_node`` it would also send: see docs/settings.md."""
    return Config(
        api=ApiConfig(ml_server_port=callback_port, admin_server_port=admin_port),
        storage=StorageConfig(path=str(folder / "outbox.db")),
    )


def make_process(
    reactor: Any, configs: Mapping[str, Config], overview_port: int
) -> tuple[MultiService, dict[str, DapiService]]:
    """Return all services of the process, and the dapis by name."""
    process = MultiService()
    dapis = {name: make_service(config, reactor) for name, config in configs.items()}
    for dapi in dapis.values():
        dapi.setServiceParent(process)
    endpoint = TCP4ServerEndpoint(reactor, overview_port, interface="127.0.0.1")
    site = Site(Overview(dapis))
    StreamServerEndpointService(endpoint, site).setServiceParent(process)
    return process, dapis


def main() -> None:
    """Run until a signal."""
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    make_monotonic(reactor)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    folder = Path(sys.argv[1])
    ports = {"first": (9100, 9200), "second": (9101, 9201)}
    configs = {name: config_of(folder / name, *both) for name, both in ports.items()}
    process, _ = make_process(reactor, configs, 9300)
    process.startService()
    reactor.addSystemEventTrigger("before", "shutdown", process.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
