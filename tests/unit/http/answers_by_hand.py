"""An agent whose answers come piece by piece, when a test says so."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer


@implementer(IPushProducer)
class Connection:
    """Knows whether it is paused, or closed by us."""

    disconnecting = False

    def __init__(self) -> None:
        self.is_paused = False
        self.is_closed = False

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False

    def stopProducing(self) -> None:
        self.is_closed = True

    def loseConnection(self) -> None:
        self.is_closed = True


class AnswerByHand:
    """One answer: ``send`` pieces of its body, then ``end`` or ``lose`` it."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.headers = Headers()
        self.length = 0
        self.connection = Connection()
        self._body: IProtocol | None = None

    def deliverBody(self, protocol: IProtocol) -> None:
        self._body = protocol
        protocol.makeConnection(cast(ITransport, self.connection))

    def send(self, data: bytes) -> None:
        assert self._body is not None
        self._body.dataReceived(data)

    def end(self) -> None:
        self._stop(Failure(ResponseDone()))

    def lose(self) -> None:
        self._stop(Failure(ResponseFailed([Failure(ConnectionLost("it went away"))])))

    def _stop(self, reason: Failure) -> None:
        assert self._body is not None
        self._body.connectionLost(reason)


@implementer(IAgent)
class AgentByHand:
    """Gives one answer after the other; ``hangs`` where no answer comes."""

    def __init__(self, *codes: int) -> None:
        self.answers = [AnswerByHand(code) for code in codes]
        self.requests: list[tuple[bytes, bytes]] = []
        self.sent: list[bytes] = []
        self.hangs = False

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[IResponse]:
        self.requests.append((method, uri))
        if bodyProducer is not None:
            bodyProducer.startProducing(self)
        if self.hangs:
            return Deferred()
        return succeed(cast(IResponse, self.answers[len(self.requests) - 1]))

    def write(self, data: bytes) -> None:
        """Take a request's body."""
        self.sent.append(data)
