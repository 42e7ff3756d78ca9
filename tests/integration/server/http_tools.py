"""A raw HTTP client on a real socket and a running server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from dapi.http.listener import HttpListener
from dapi.http.settings import HttpSettings
from dapi.http.site import JsonSite
from tests.integration.waiting import PATIENCE_SECONDS


class RawClient(Protocol):
    """Collects what comes; ``closed`` fires with all of it when the connection is gone."""

    transport: Any  # a TCP connection, from when it is made

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[bytes] = Deferred()
        self._dripping: LoopingCall | None = None
        self._waiting: list[tuple[bytes, Deferred[bytes]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for wanted, fired in list(self._waiting):
            if wanted in self.received:
                self._waiting.remove((wanted, fired))
                fired.callback(self.received)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._dripping is not None and self._dripping.running:
            self._dripping.stop()
        self.closed.callback(self.received)

    def when_received(self, wanted: bytes) -> Deferred[bytes]:
        """Fire when these bytes have come."""
        fired: Deferred[bytes] = Deferred()
        self._waiting.append((wanted, fired))
        self.dataReceived(b"")
        return fired.addTimeout(PATIENCE_SECONDS, reactor)

    def when_closed(self) -> Deferred[bytes]:
        """Fire with all that came, when the server has closed."""
        return self.closed.addTimeout(PATIENCE_SECONDS, reactor)

    def drip(self, data: bytes, interval_seconds: float) -> None:
        """Send these bytes over and over, one at a time."""
        position = 0

        def send_one() -> None:
            nonlocal position
            self.transport.write(data[position % len(data) : position % len(data) + 1])
            position += 1

        self._dripping = LoopingCall(send_one)
        self._dripping.start(interval_seconds)


async def connect(port: int) -> RawClient:
    """Connect a raw client."""
    client = RawClient()
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), client)
    return client


def parse(answer: bytes) -> tuple[int, dict[str, str], Any]:
    """Split one whole answer into status, headers and decoded body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert int(headers["content-length"]) == len(body), answer
    return int(status.split()[1]), headers, json.loads(body) if body else None


@asynccontextmanager
async def serving(resource: IResource, **settings: Any) -> AsyncIterator[HttpListener]:
    """Serve a resource on a free port."""
    site = JsonSite(IReactorTime(reactor), resource, HttpSettings(**{"drain_seconds": 0.3, **settings}))
    listener = HttpListener(IReactorTCP(reactor), "test", site, 0, "127.0.0.1")
    listener.startService()
    try:
        yield listener
    finally:
        await listener.stopService().addTimeout(PATIENCE_SECONDS, reactor)
