"""A request goes out byte for byte as it is given, and its answer is bounded."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dapi.http.exchange import NoAnswerError
from dapi.http.raw_client import MAX_ANSWER_BYTES, BytesSource, RawAnswer, RawClient

ODD = b"/v2/poc-batches/a%252Fb;c//%7e%7E/generated?"


class Transport(StringTransport):
    """One that can be aborted."""

    def abortConnection(self) -> None:
        self.disconnecting = True


class RawClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def request(self, target: bytes = ODD, base_url: str = "http://127.0.0.1:9100") -> Deferred[RawAnswer]:
        client = RawClient(self.reactor, base_url, connect_timeout_seconds=5, ca_file=None)
        headers = [(b"Content-Type", b"application/json")]
        return Deferred.fromCoroutine(client.request(b"POST", target, headers, BytesSource(b"body")))

    def connect(self) -> Any:
        """Let the connection be made; return its protocol."""
        host, port, factory, _timeout, _bind = self.reactor.tcpClients[-1]
        self.assertEqual((host, port), ("127.0.0.1", 9100))
        protocol: Any = factory.buildProtocol(None)
        self.transport = Transport()
        protocol.makeConnection(self.transport)
        return protocol

    def test_the_target_as_it_is(self) -> None:
        for base_url, prefix in (("http://127.0.0.1:9100", b""), ("http://127.0.0.1:9100/below/", b"/below")):
            self.request(base_url=base_url).addErrback(lambda _: None)
            self.connect()
            sent = self.transport.value()
            self.assertEqual(sent.partition(b"\r\n")[0], b"POST " + prefix + ODD + b" HTTP/1.1")
            self.assertTrue(sent.endswith(b"\r\n\r\nbody"))
            self.assertIn(b"Content-Length: 4\r\n", sent)

    def test_an_answer(self) -> None:
        answer = self.request()
        self.connect().dataReceived(b"HTTP/1.1 503 x\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nno")
        self.assertEqual(self.successResultOf(answer), RawAnswer(503, b"a/b", b"no"))

    def test_a_large_answer_is_cut(self) -> None:
        answer = self.request()
        self.connect().dataReceived(b"HTTP/1.1 200 x\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 100_000)
        self.assertEqual(len(self.successResultOf(answer).body), MAX_ANSWER_BYTES)

    def test_no_answer(self) -> None:
        for received in (b"", b"HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nno", b"\x00junk\r\n\r\n"):
            answer = self.request()
            protocol = self.connect()
            protocol.dataReceived(received)
            if not received.startswith(b"\x00"):
                protocol.connectionLost(Failure(ConnectionDone()))
            self.failureResultOf(answer, NoAnswerError)

    def test_cancelled_while_it_connects_and_while_it_waits(self) -> None:
        connecting = self.request()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        waiting = self.request()
        self.connect()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertTrue(self.transport.disconnecting)
