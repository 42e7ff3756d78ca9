"""One of the chain's nodes, as the host that answers for it."""

from __future__ import annotations

from typing import Any

from dapi.simulator.chain.methods import Methods, RpcError
from dapi.simulator.chain.node import ChainNode
from tests.model.network import Answer, Host


class ChainHost(Host):
    """One of the chain's nodes."""

    def __init__(self, node: ChainNode) -> None:
        super().__init__(self._answer)
        self.node = node
        self._methods = Methods(node)

    def _answer(self, method: str, path: str, body: Any) -> Answer:
        try:
            return 200, {
                "jsonrpc": "2.0",
                "id": body["id"],
                "result": self._methods.call(body["method"], body["params"]),
            }
        except RpcError as error:
            return 200, {"jsonrpc": "2.0", "id": body["id"], "error": error.as_json()}
