"""Calls to a node, against a stubbed one: what is sent, what its answers become, and every way to fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from treq.testing import RequestTraversalAgent, StringStubbingResource
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
from dapi.mlnode.client import (
    MAIN_NETWORK_PARAMS,
    TEST_NETWORK_PARAMS,
    InferenceUpState,
    InferenceUpStatus,
    InitRequest,
    MLNodeClient,
    MLNodeState,
    PowState,
    PowStatus,
)
from tests.batches import generated_batch, generated_fields

BASE_URL = "http://10.0.0.21:8080/v3.0.8/node"

INIT = InitRequest(
    block_hash="ABCdef",
    block_height=1000,
    public_key="02aa",
    params=MAIN_NETWORK_PARAMS,
    node_id=2,
    node_count=4,
    url="http://10.0.0.1:9100/v1/poc-batches",
)


class StubbedNode:
    """Answers every call with the same; remembers what came."""

    def __init__(self, answer: bytes = b"null", status: int = 200, headers: dict[bytes, bytes] | None = None) -> None:
        self.requests: list[tuple[bytes, str, dict[bytes, list[bytes]], bytes]] = []
        self._answer = (status, headers or {}, answer)
        self.clock = Clock()
        self.client = MLNodeClient(
            self.clock,
            BASE_URL,
            node_id="node1",
            agent=RequestTraversalAgent(StringStubbingResource(self._respond)),
        )

    def _respond(
        self, method: bytes, url: str, params: object, headers: dict[bytes, list[bytes]], body: bytes
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        self.requests.append((method, url, headers, body))
        return self._answer


class CallTests(SynchronousTestCase):
    """Each call sends what the protocol says, and fires with what the answer says."""

    def call(self, answer: bytes, make: Callable[[MLNodeClient], Deferred[Any]]) -> tuple[Any, str, Any]:
        node = StubbedNode(answer)
        result = self.successResultOf(make(node.client))
        [(method, url, headers, body)] = node.requests
        self.assertEqual([b"application/json"] if body else None, headers.get(b"Content-Type"))
        self.assertEqual([b"close"], headers[b"Connection"])
        self.assertEqual([], node.clock.getDelayedCalls())
        self.assertTrue(url.startswith(BASE_URL))
        return result, f"{method.decode()} {url.removeprefix(BASE_URL)}", json.loads(body) if body else None

    def test_state(self) -> None:
        for state in MLNodeState:
            answer = json.dumps({"state": state.value}).encode()
            self.assertEqual((state, "GET /api/v1/state", None), self.call(answer, MLNodeClient.state))

    def test_stop(self) -> None:
        self.assertEqual((None, "POST /api/v1/stop", None), self.call(b'{"status":"OK"}', MLNodeClient.stop))

    def test_pow_status(self) -> None:
        for state in PowState:
            answer = json.dumps({"status": state.value, "is_model_initialized": True}).encode()
            expected = (PowStatus(state, True), "GET /api/v1/pow/status", None)
            self.assertEqual(expected, self.call(answer, MLNodeClient.pow_status))

    def test_pow_status_without_flag(self) -> None:
        result, _, _ = self.call(b'{"status": "NOT_LOADED"}', MLNodeClient.pow_status)
        self.assertEqual(PowStatus(PowState.NOT_LOADED, None), result)

    def test_init(self) -> None:
        for what, state in (("generate", PowState.GENERATING), ("validate", PowState.VALIDATING)):
            answer = json.dumps(
                {"status": "OK", "pow_status": {"status": state.value, "is_model_initialized": False}}
            ).encode()
            result, request, body = self.call(answer, lambda c, w=what: getattr(c, f"init_{w}")(INIT))  # type: ignore[misc]
            self.assertEqual(PowStatus(state, False), result)
            self.assertEqual(f"POST /api/v1/pow/init/{what}", request)
            self.assertEqual(
                {
                    "block_hash": "ABCdef",
                    "block_height": 1000,
                    "public_key": "02aa",
                    "batch_size": 100,
                    "r_target": 1.4013564660458173,
                    "fraud_threshold": 1e-7,
                    "params": {
                        "dim": 1792,
                        "n_layers": 64,
                        "n_heads": 64,
                        "n_kv_heads": 64,
                        "vocab_size": 8196,
                        "ffn_dim_multiplier": 10.0,
                        "multiple_of": 8192,
                        "norm_eps": 1e-5,
                        "rope_theta": 10000.0,
                        "use_scaled_rope": False,
                        "seq_len": 256,
                    },
                    "node_id": 2,
                    "node_count": 4,
                    "url": "http://10.0.0.1:9100/v1/poc-batches",
                },
                body,
            )

    def test_params_of_the_test_network(self) -> None:
        params = TEST_NETWORK_PARAMS
        self.assertEqual(
            (1024, 32, 32, 32, 2048, 128),
            (params.dim, params.n_layers, params.n_heads, params.n_kv_heads, params.multiple_of, params.seq_len),
        )

    def test_switch(self) -> None:
        self.assertEqual(
            (None, "POST /api/v1/pow/phase/generate", None), self.call(b"{}", MLNodeClient.switch_to_generate)
        )
        self.assertEqual(
            (None, "POST /api/v1/pow/phase/validate", None), self.call(b"", MLNodeClient.switch_to_validate)
        )

    def test_validate(self) -> None:
        result = self.call(b"null", lambda client: client.validate(generated_batch()))
        self.assertEqual((None, "POST /api/v1/pow/validate", generated_fields()), result)

    def test_pow_stop(self) -> None:
        answer = b'{"status":"OK","pow_status":{"status":"STOPPED","is_model_initialized":false}}'
        expected = (PowStatus(PowState.STOPPED, False), "POST /api/v1/pow/stop", None)
        self.assertEqual(expected, self.call(answer, MLNodeClient.pow_stop))

    def test_inference_up(self) -> None:
        body = {"model": "Qwen/Qwen2.5-7B-Instruct", "dtype": "float16", "additional_args": ["--quantization", "fp8"]}
        self.assertEqual(
            (None, "POST /api/v1/inference/up", body),
            self.call(
                b'{"status":"OK"}',
                lambda c: c.inference_up("Qwen/Qwen2.5-7B-Instruct", additional_args=("--quantization", "fp8")),
            ),
        )

    def test_inference_up_async(self) -> None:
        body = {"model": "Qwen/Qwen2.5-7B-Instruct", "dtype": "float16", "additional_args": ["--quantization", "fp8"]}
        self.assertEqual(
            (None, "POST /api/v1/inference/up/async", body),
            self.call(
                b'{"status":"starting"}',
                lambda c: c.inference_up_async("Qwen/Qwen2.5-7B-Instruct", additional_args=("--quantization", "fp8")),
            ),
        )

    def test_inference_up_status(self) -> None:
        for state in InferenceUpState:
            answer = json.dumps(
                {
                    "status": state.value,
                    "is_starting": False,
                    "is_running": False,
                    "elapsed_seconds": None,
                    "error": "no memory",
                }
            ).encode()
            expected = (InferenceUpStatus(state, "no memory"), "GET /api/v1/inference/up/status", None)
            self.assertEqual(expected, self.call(answer, MLNodeClient.inference_up_status))

    def test_inference_health(self) -> None:
        node = StubbedNode(b"")
        self.assertIsNone(self.successResultOf(node.client.inference_health("http://10.0.0.21:5000/v3.0.8/")))
        [(method, url, _, body)] = node.requests
        self.assertEqual((b"GET", "http://10.0.0.21:5000/v3.0.8/health", b""), (method, url, body))


ALL_CALLS: dict[str, Callable[[MLNodeClient], Deferred[Any]]] = {
    "state": MLNodeClient.state,
    "stop": MLNodeClient.stop,
    "pow/status": MLNodeClient.pow_status,
    "pow/init/generate": lambda client: client.init_generate(INIT),
    "pow/init/validate": lambda client: client.init_validate(INIT),
    "pow/phase/generate": MLNodeClient.switch_to_generate,
    "pow/phase/validate": MLNodeClient.switch_to_validate,
    "pow/validate": lambda client: client.validate(generated_batch()),
    "pow/stop": MLNodeClient.pow_stop,
    "inference/up": lambda client: client.inference_up("model"),
    "inference/up/async": lambda client: client.inference_up_async("model"),
    "inference/up/status": MLNodeClient.inference_up_status,
    "health": lambda client: client.inference_health("http://10.0.0.21:5000"),
}

DECODED_CALLS = set(ALL_CALLS) - {
    "pow/phase/generate",
    "pow/phase/validate",
    "inference/up",
    "inference/up/async",
    "health",
}


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

    def test_only_the_first_of_the_body(self) -> None:
        error = self.error(StubbedNode(b"a\n" + "é".encode() * 500, 500))
        self.assertEqual("a " + "é" * 198, error.body)

    def test_body_that_is_no_text(self) -> None:
        self.assertEqual("\ufffd\ufffd ", self.error(StubbedNode(b"\xff\xfe\x00", 502)).body)

    def test_answer_that_is_not_documented(self) -> None:
        for call in DECODED_CALLS:
            for answer in (b"<html>welcome</html>", b"", b'{"status": "error"}', b"[]", b'"\xff"'):
                error = self.error(StubbedNode(answer), call)
                self.assertEqual(200, error.status)
                self.assertIn("not the documented answer", str(error))

    def test_unknown_state(self) -> None:
        self.assertIn("BUSY", str(self.error(StubbedNode(b'{"state": "BUSY"}'))))

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
        resource.requests[0].transport.abortConnection()
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


def _facts(error: MLNodeError) -> tuple[str, str, int | None, str]:
    return error.node_id, error.call, error.status, error.body
