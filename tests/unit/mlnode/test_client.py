"""Calls to a node, against a stubbed one: what is sent, and what its answers become."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from dapi.mlnode.client import (
    TEST_NETWORK_PARAMS,
    InferenceUpState,
    InferenceUpStatus,
    MLNodeClient,
    MLNodeState,
    PowState,
    PowStatus,
)
from tests.batches import generated_batch, generated_fields
from tests.unit.mlnode.stubbed_node import BASE_URL, INIT, StubbedNode


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

    def test_validate(self) -> None:
        result = self.call(b"null", lambda client: client.validate(generated_batch()))
        self.assertEqual((None, "POST /api/v1/pow/validate", generated_fields()), result)

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
