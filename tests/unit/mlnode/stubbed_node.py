"""A stubbed node, and every call that a client can make to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treq.testing import RequestTraversalAgent, StringStubbingResource
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dapi.mlnode.client import MAIN_NETWORK_PARAMS, InitRequest, MLNodeClient
from tests.batches import generated_batch

BASE_URL = "http://10.0.0.21:8080/v3.0.8/node"

INIT = InitRequest(
    block_hash="ABCdef",
    block_height=1000,
    public_key="02aa",
    params=MAIN_NETWORK_PARAMS,
    node_num=2,
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


ALL_CALLS: dict[str, Callable[[MLNodeClient], Deferred[Any]]] = {
    "state": MLNodeClient.state,
    "stop": MLNodeClient.stop,
    "pow/status": MLNodeClient.pow_status,
    "pow/init/generate": lambda client: client.init_generate(INIT),
    "pow/init/validate": lambda client: client.init_validate(INIT),
    "pow/validate": lambda client: client.validate(generated_batch()),
    "inference/up": lambda client: client.inference_up("model"),
    "inference/up/async": lambda client: client.inference_up_async("model"),
    "inference/up/status": MLNodeClient.inference_up_status,
    "health": lambda client: client.inference_health("http://10.0.0.21:5000"),
}
