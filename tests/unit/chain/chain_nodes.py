"""Stubbed nodes of the chain, and what they answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from treq.testing import RequestTraversalAgent, StringStubbingResource
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent
from zope.interface import implementer

from dapi.chain.rpc import ChainRpc
from dapi.errors import ChainError

RAW = b"a transaction"
HASH = hashlib.sha256(RAW).hexdigest().upper()
NOT_FOUND = f"tx ({HASH}) not found"


class Answer:
    """What a stubbed node answers to every call of a method."""

    def __init__(self, body: Any, status: int = 200) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


def result(value: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": value}


def error(data: str, code: int = -32603) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": "Internal error", "data": data}}


def status(
    height: int = 7,
    *,
    catching_up: bool = False,
    network: str = "gonka-test",
    tx_index: str = "on",
    earliest: int = 1,
    seconds: int = 20,
) -> dict[str, Any]:
    return result(
        {
            "node_info": {"network": network, "other": {"tx_index": tx_index, "rpc_address": "x"}},
            "sync_info": {
                "latest_block_hash": f"AB{height}",
                "latest_block_height": str(height),
                "latest_block_time": f"2023-11-14T22:14:{seconds}.000000001Z",
                "earliest_block_height": str(earliest),
                "catching_up": catching_up,
            },
        }
    )


def checked(code: int = 0, codespace: str = "", log: str = "") -> dict[str, Any]:
    return result({"code": code, "data": "", "log": log, "codespace": codespace, "hash": HASH})


def found(code: int = 0, log: str = "l") -> dict[str, Any]:
    executed = {"code": code, "codespace": "c", "log": log, "data": "AAE="}
    return result({"hash": HASH, "height": "9", "index": 0, "tx_result": executed})


def looked_up(answer: Any) -> dict[str, Any]:
    """The answers to ``lookup``, of which ``answer`` is the one to ``tx``."""
    return {"status": status(8), "tx": answer}


@implementer(IAgent)
class Nodes:
    """Stubbed nodes by host; each answers by method, or fails, or keeps silent (a Deferred).

    An answer to a method may be a function of the call's parameters.
    """

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = answers
        self.asked: list[tuple[str, str]] = []
        self.params: Any = None
        self.paths: list[str] = []
        # Calls to these hosts are answered when the host is released.
        self.held: dict[str, list[Callable[[], None]]] = {}

    def release(self, host: str) -> None:
        """Answer what a held node was asked."""
        for answer in self.held.pop(host):
            answer()

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Any:
        host = urlsplit(uri.decode()).hostname or ""
        self.paths.append(urlsplit(uri.decode()).path)
        answer = self.answers[host]
        if host in self.held:
            released: Deferred[Any] = Deferred()
            self.held[host].append(lambda: self.request(method, uri, headers, bodyProducer).chainDeferred(released))
            return released
        if isinstance(answer, Exception):
            self.asked.append((host, ""))
            return fail(answer)
        if isinstance(answer, Deferred):
            self.asked.append((host, ""))
            return answer
        stub = StringStubbingResource(lambda *call: self._respond(host, call[4]))
        return RequestTraversalAgent(stub).request(method, uri, headers, bodyProducer)

    def _respond(self, host: str, body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        request = json.loads(body)
        assert request["jsonrpc"] == "2.0"
        self.asked.append((host, request["method"]))
        self.params = request["params"]
        answer = self.answers[host]
        if isinstance(answer, dict) and "jsonrpc" not in answer:
            answer = answer[request["method"]]
        if callable(answer):
            answer = answer(request["params"])
        if isinstance(answer, dict):
            answer = Answer({"id": request["id"], **answer})
        return answer.status, {}, answer.body


class RpcTestCase(SynchronousTestCase):
    """A client of the nodes a, b, …, in this order."""

    def setUp(self) -> None:
        self.clock = Clock()

    def client(self, nodes: Nodes, **settings: Any) -> ChainRpc:
        urls = [f"http://{host}:26657" for host in nodes.answers]
        return ChainRpc(self.clock, urls, agent=nodes, **settings)

    def ask(self, answer: Any, call: Callable[[ChainRpc], Deferred[Any]]) -> Any:
        """What the call fires with when the only node answers so."""
        outcome = self.successResultOf(call(self.client(Nodes(a=answer))))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return outcome

    def refuse(self, answer: Any, call: Callable[[ChainRpc], Deferred[Any]], kind: type[ChainError]) -> Any:
        """What the call fails with when the only node answers so."""
        failure = self.failureResultOf(call(self.client(Nodes(a=answer))), kind)
        self.assertIs(failure.type, kind)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return failure.value


def broadcast(client: ChainRpc) -> Deferred[Any]:
    return client.broadcast_tx_sync(RAW)
