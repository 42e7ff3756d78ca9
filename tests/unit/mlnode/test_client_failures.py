"""Every way in which a call to a node can fail: a wrong answer, none, or half of one."""

from __future__ import annotations

from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as TCPConnectionRefusedError
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed, ResponseNeverReceived
from twisted.web.iweb import IAgent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from dapi.errors import MLNodeError
from dapi.mlnode.client import MLNodeClient, MLNodeState
from tests.logs import log_of
from tests.unit.mlnode.stubbed_node import ALL_CALLS, BASE_URL, StubbedNode

DECODED_CALLS = set(ALL_CALLS) - {"inference/up", "inference/up/async", "health"}


class RefusalTests(SynchronousTestCase):
    """Whatever is not the documented answer is an error that says where and what."""

    def error(self, node: StubbedNode, call: str = "state") -> MLNodeError:
        error = self.failureResultOf(ALL_CALLS[call](node.client), MLNodeError).value
        assert isinstance(error, MLNodeError)
        self.assertEqual([], node.clock.getDelayedCalls())
        return error

    def test_other_status_than_2xx(self) -> None:
        for call in ALL_CALLS:
            for status in (301, 400, 404, 409, 422, 500):
                error = self.error(StubbedNode(b'{"detail":"no"}', status, {b"Location": b"http://x/"}), call)
                self.assertEqual(("node1", call, status, '{"detail":"no"}'), _facts(error))
                self.assertEqual(f'node1: {call} ({status}): refused: {{"detail":"no"}}', str(error))

    def test_no_callback_token_that_the_node_quotes(self) -> None:
        token = f"cb-1-2-{'A1_-' * 11}"
        error = self.error(StubbedNode(f'{{"input":{{"url":"http://a/{token}"}}}}'.encode(), 422))
        self.assertEqual(error.body, '{"input":{"url":"http://a/(hidden)"}}')
        self.assertNotIn("A1_", str(error))

    def test_only_the_first_of_the_body(self) -> None:
        error = self.error(StubbedNode(b"a\n" + "é".encode() * 500, 500))
        self.assertEqual("a " + "é" * 198, error.body)

    def test_body_that_is_no_text(self) -> None:
        self.assertEqual("\ufffd\ufffd ", self.error(StubbedNode(b"\xff\xfe\x00", 502)).body)

    def test_answer_that_is_not_documented(self) -> None:
        for call in DECODED_CALLS:
            deep = b'{"x": ' + b"[" * 60_000
            for answer in (b"<html>welcome</html>", b"", b'{"status": "error"}', b"[]", b'"\xff"', deep):
                error = self.error(StubbedNode(answer), call)
                self.assertEqual(200, error.status)
                self.assertIn("not the documented answer", str(error))

    def test_unknown_state(self) -> None:
        self.assertIn("BUSY", str(self.error(StubbedNode(b'{"state": "BUSY"}'))))
        # What a terminal would do something with.
        evil = b'{"state": "\\u001b[31m' + b"B" * 60_000 + b'"}'
        said = str(self.error(StubbedNode(evil)))
        self.assertTrue(said.isprintable())
        self.assertLess(len(said), 1000)

    def test_unknown_pow_state(self) -> None:
        answer = b'{"status": "OK", "pow_status": {"status": "DREAMING"}}'
        self.assertIn("DREAMING", str(self.error(StubbedNode(answer), "pow/init/generate")))

    def test_answer_too_long(self) -> None:
        for call in ALL_CALLS:
            error = self.error(StubbedNode(b"x" * 65537), call)
            self.assertEqual(("node1", call, 200, "x" * 200), _facts(error))
            self.assertIn("longer than 65536 bytes", str(error))

    def test_error_that_is_too_long_keeps_its_status(self) -> None:
        self.assertEqual(500, self.error(StubbedNode(b"x" * 65537, 500)).status)

    def test_longest_answer(self) -> None:
        answer = b'{"state": "POW"}'.ljust(65536)
        self.assertIs(MLNodeState.POW, self.successResultOf(StubbedNode(answer).client.state()))


@implementer(IAgent)
class FailingAgent:
    """Fails as the reactor would; or, without an error, never answers."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.cancelled = 0

    def request(self, *arguments: object, **options: object) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred(self._cancel)
        if self.error is not None:
            answer.errback(Failure(self.error))
        return answer

    def _cancel(self, answer: Deferred[Any]) -> None:
        self.cancelled += 1
        # This is how Twisted's own client says that a request was cancelled.
        answer.errback(Failure(ResponseNeverReceived([Failure(CancelledError())])))


class _HalfAnswer(Resource):
    """Sends the head and the first half of an answer, and then nothing."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def render(self, request: Request) -> int:
        self.requests.append(request)
        request.write(b'{"state":')
        return NOT_DONE_YET


class NoAnswerTests(SynchronousTestCase):
    """A node that cannot be reached, or does not answer in time."""

    def client(self, agent: Any, **options: Any) -> MLNodeClient:
        self.clock = Clock()
        return MLNodeClient(self.clock, BASE_URL, node_id="node1", agent=agent, **options)

    def test_connection_failures(self) -> None:
        for error, reason in (
            (TCPConnectionRefusedError(), "Connection was refused by other side"),
            (DNSLookupError("no such host"), "DNS lookup failed: no such host"),
            (OSError("network is unreachable"), "network is unreachable"),
            (ResponseFailed([Failure(TCPConnectionRefusedError())]), "Connection was refused by other side"),
        ):
            failure = self.failureResultOf(self.client(FailingAgent(error)).state(), MLNodeError)
            self.assertEqual(f"node1: state: {reason}", str(failure.value))
            self.assertIsNone(failure.value.status)

    def test_defect_is_not_taken_for_an_error_of_the_node(self) -> None:
        self.failureResultOf(self.client(FailingAgent(ZeroDivisionError())).state(), ZeroDivisionError)

    def test_silence_times_out(self) -> None:
        for call, make in ALL_CALLS.items():
            agent = FailingAgent()
            calling = make(self.client(agent))
            self.clock.advance(29.9 if call != "inference/up" else 1199.9)
            self.assertNoResult(calling)
            self.clock.advance(0.1)
            failure = self.failureResultOf(calling, MLNodeError)
            seconds = 30 if call != "inference/up" else 1200
            self.assertEqual(f"node1: {call}: no complete answer within {seconds} s", str(failure.value))
            self.assertEqual(1, agent.cancelled)

    def test_time_out_covers_the_body(self) -> None:
        resource = _HalfAnswer()
        agent = RequestTraversalAgent(resource)
        calling = self.client(agent, total_timeout_seconds=5.0).state()
        for _ in range(4):
            self.clock.advance(1)
            resource.requests[0].write(b" ")
            agent.flush()
        self.assertNoResult(calling)
        self.clock.advance(1)
        self.failureResultOf(calling, MLNodeError)

    def test_answer_cut_off(self) -> None:
        resource = _HalfAnswer()
        agent = RequestTraversalAgent(resource)
        calling = self.client(agent).state()
        resource.requests[0].loseConnection()
        agent.flush()
        agent.flush()
        self.assertIn("state", str(self.failureResultOf(calling, MLNodeError).value))

    def test_cancelled_call(self) -> None:
        agent = FailingAgent()
        calling = self.client(agent).state()
        calling.cancel()
        self.failureResultOf(calling, CancelledError)
        self.assertEqual(1, agent.cancelled)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_cancelled_in_the_body(self) -> None:
        calling = self.client(RequestTraversalAgent(_HalfAnswer())).state()
        calling.cancel()
        self.failureResultOf(calling, CancelledError)

    def test_close_cancels_what_is_under_way(self) -> None:
        client = self.client(FailingAgent())
        calls = [client.state(), client.stop()]
        self.successResultOf(client.close())
        for calling in calls:
            self.failureResultOf(calling, CancelledError)
        self.assertEqual([], self.clock.getDelayedCalls())


class ConnectTimeoutTests(SynchronousTestCase):
    """Without an agent from outside, the client connects itself."""

    def test_connect_timeout(self) -> None:
        reactor = MemoryReactorClock()
        client = MLNodeClient(reactor, "http://10.0.0.21:8080", node_id="node1")
        calling = client.state()
        # The endpoint tries its first address after a turn of the reactor.
        reactor.advance(0)
        [(_, port, _, timeout, _)] = reactor.tcpClients
        self.assertEqual((8080, 10.0), (port, timeout))
        reactor.advance(30)
        self.failureResultOf(calling, MLNodeError)
        self.assertEqual([], reactor.getDelayedCalls())

    def test_nothing_in_the_log(self) -> None:
        log = log_of(self)
        for scheme in ("http", "https"):
            reactor = MemoryReactorClock()
            calling = MLNodeClient(reactor, f"{scheme}://10.0.0.21:8080", node_id="node1").state()
            reactor.advance(0)
            [(_, _, factory, _, _)] = reactor.tcpClients
            # As a connector does.
            factory.doStart()
            factory.doStop()
            reactor.advance(30)
            self.failureResultOf(calling, MLNodeError)
        self.assertEqual([], log.events)


def _facts(error: MLNodeError) -> tuple[str, str, int | None, str]:
    return error.node_id, error.call, error.status, error.body
