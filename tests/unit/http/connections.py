"""A client's connection to the HTTP server, in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from dapi.http.answers import body_of, json_answer
from dapi.http.channel import JsonChannel
from dapi.http.site import JsonSite

PEER = IPv4Address("TCP", "127.0.0.1", 40000)


class Transport(StringTransport):
    """A connection that closes when it is told to, and remembers whether it was aborted."""

    aborted = False

    def __init__(self, site: JsonSite, peer: IPv4Address = PEER) -> None:
        super().__init__(peerAddress=peer)
        self.protocol: JsonChannel = site.buildProtocol(peer)
        self.is_open = True
        self.protocol.makeConnection(self)

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.lose(ConnectionLost())

    def lose(self, reason: Exception | None = None) -> None:
        if self.is_open:
            self.is_open = False
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def answers(self) -> list[tuple[int, dict[str, str], Any]]:
        """Every answer so far: status, headers, decoded body."""
        found = []
        rest = self.value()
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = int(headers["content-length"])
            body, rest = rest[:length], rest[length:]
            found.append((int(status.split()[1]), headers, json.loads(body) if body else None))
        return found


class Echo(Resource):
    """Answers with the length of the body, or when told to; ``/slow`` is answered by the test."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Request] = []
        self.gone: list[Failure] = []

    def render(self, request: Request) -> Any:
        if request.path == b"/slow":
            request.notifyFinish().addErrback(self.gone.append)
            self.waiting.append(request)
            return NOT_DONE_YET
        return json_answer(request, {"length": len(body_of(request))})
