"""HTTP without sockets: requests that are answered by functions, or lost on the way."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost, ConnectionRefusedError  # noqa: A004 - what the reactor fails with
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

Answer = tuple[int, Any]
"""An HTTP status, and what is encoded as JSON."""


class Way(enum.Enum):
    """What becomes of the requests to a host."""

    OPEN = "it answers"
    REFUSED = "nobody is at the port"
    SILENT = "the request is taken, not executed, and never answered"
    ANSWER_LOST = "the request is executed, and the connection breaks before the answer"
    BROKEN = "it answers 503"


class Host:
    """Somebody who answers requests: ``answer`` takes a method, a path and a decoded body."""

    def __init__(self, answer: Callable[[str, str, Any], Answer]) -> None:
        self.answer = answer
        self.way = Way.OPEN


@implementer(IAgent)
class MemoryAgent:
    """Brings the requests of one dapi to the hosts; ``before`` is asked first, and returns whether the sender lives."""

    def __init__(self, hosts: dict[str, Host], before: Callable[[], bool]) -> None:
        self._hosts = hosts
        self._before = before

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        if not self._before():
            return Deferred()
        url = urlsplit(uri.decode())
        host = self._hosts[url.hostname or ""]
        if host.way is Way.REFUSED:
            return fail(ConnectionRefusedError())
        if host.way is Way.SILENT:
            return Deferred()
        if host.way is Way.BROKEN:
            return succeed(MemoryResponse(503, b"{}"))
        body = _body_of(bodyProducer)
        status, answer = host.answer(method.decode(), url.path, json.loads(body) if body else None)
        # Whoever sent it may be killed before the answer comes.
        if not self._before():
            return Deferred()
        if host.way is Way.ANSWER_LOST:
            return fail(ConnectionLost())
        return succeed(MemoryResponse(status, json.dumps(answer).encode()))


class _Consumer:
    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def _body_of(producer: IBodyProducer | None) -> bytes:
    consumer = _Consumer()
    if producer is not None:
        producer.startProducing(consumer)
    return consumer.written


@implementer(IResponse)
class MemoryResponse:
    """An answer that is there at once."""

    version = (b"HTTP", 1, 1)
    phrase = b""
    request = None
    previousResponse = None  # noqa: N815 - the interface's

    def __init__(self, code: int, body: bytes) -> None:
        self.code = code
        self.length = len(body)
        self.headers = Headers()
        self._body = body

    def deliverBody(self, protocol: IProtocol) -> None:
        protocol.dataReceived(self._body)
        protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: Any) -> None:
        raise NotImplementedError
