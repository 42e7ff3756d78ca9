"""A simulated node's JSON-RPC methods, as functions of what the node knows: no socket.

Shapes and words: docs/protocol/chain.md, 'JSON-RPC'; docs/protocol/measured.md, 'Queries on a real chain'.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from typing import Any

from dapi.simulator.chain.blocks import Block, TxRecord
from dapi.simulator.chain.mempool import MempoolRefused
from dapi.simulator.chain.node import ChainNode
from dapi.simulator.chain.requests import QueryRefused

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
SERVER_ERROR = -32000

_TITLES = {
    PARSE_ERROR: "Parse error. Invalid JSON",
    INVALID_REQUEST: "Invalid Request",
    METHOD_NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
    INTERNAL_ERROR: "Internal error",
    SERVER_ERROR: "Server error",
}


class RpcError(Exception):
    """A call fails; ``data`` is where CometBFT puts the useful text."""

    def __init__(self, code: int, data: str) -> None:
        super().__init__(data)
        self.code = code
        self.data = data

    def as_json(self) -> dict[str, Any]:
        """Return the ``error`` of the answer."""
        return {"code": self.code, "message": _TITLES[self.code], "data": self.data}


class Params:
    """The named parameters of a call, read as CometBFT reads them."""

    def __init__(self, params: Any) -> None:
        if params is not None and not isinstance(params, Mapping):
            raise RpcError(INVALID_PARAMS, "this simulated chain takes named params only")
        self._params = params or {}

    def text(self, name: str) -> str:
        """Return a string; empty when it is missing."""
        value = self._params.get(name, "")
        if not isinstance(value, str):
            raise RpcError(INVALID_PARAMS, f"error converting json params to arguments: {name} must be a string")
        return value

    def base64(self, name: str) -> bytes:
        """Return bytes that came as base64."""
        try:
            return base64.b64decode(self.text(name), validate=True)
        except binascii.Error as error:
            raise RpcError(INVALID_PARAMS, f"error converting json params to arguments: {name}: {error}") from error

    def hex(self, name: str) -> bytes:
        """Return bytes that came as hex."""
        try:
            return bytes.fromhex(self.text(name))
        except ValueError as error:
            raise RpcError(INVALID_PARAMS, f"error converting json params to arguments: {name}: {error}") from error

    def int64(self, name: str) -> int:
        """Return a 64-bit number, which must have come as a string; 0 when it is missing."""
        value = self._params.get(name, "0")
        if not isinstance(value, str) or not value.lstrip("-").isdigit():
            data = f"error converting json params to arguments: invalid 64-bit integer encoding {value!r}"
            raise RpcError(INVALID_PARAMS, f"{data}, expected string")
        return int(value)


class Methods:
    """Answers calls to a node: ``call`` returns the result, or raises RpcError."""

    def __init__(self, node: ChainNode) -> None:
        self._node = node
        self._methods: dict[str, Callable[[Params], dict[str, Any]]] = {
            "status": self._status,
            "broadcast_tx_sync": self._broadcast_tx_sync,
            "tx": self._tx,
            "block": self._block,
            "block_results": self._block_results,
            "abci_query": self._abci_query,
        }

    def call(self, method: str, params: Any) -> dict[str, Any]:
        """Run one method."""
        if method not in self._methods:
            raise RpcError(METHOD_NOT_FOUND, "")
        return self._methods[method](Params(params))

    def _status(self, _params: Params) -> dict[str, Any]:
        node = self._node
        latest = node.latest
        return {
            "node_info": {
                "network": node.blockchain.state.chain_id,
                "other": {"tx_index": "off" if node.switches.is_indexing_off else "on"},
            },
            "sync_info": {
                "latest_block_hash": latest.hash,
                "latest_block_height": str(latest.height),
                "latest_block_time": format_time(latest.time_ns if node.has_block else 0),
                "earliest_block_height": str(node.lowest_height),
                "catching_up": node.switches.is_catching_up,
            },
        }

    def _broadcast_tx_sync(self, params: Params) -> dict[str, Any]:
        try:
            result = self._node.broadcast(params.base64("tx"))
        except MempoolRefused as refusal:
            raise RpcError(INTERNAL_ERROR, str(refusal)) from refusal
        return {
            "code": result.code,
            "data": "",
            "log": result.log,
            "codespace": result.codespace,
            "hash": result.hash,
        }

    def _tx(self, params: Params) -> dict[str, Any]:
        tx_hash = params.base64("hash").hex().upper()
        if self._node.switches.is_indexing_off:
            raise RpcError(INTERNAL_ERROR, "transaction indexing is disabled")
        record = self._node.find(tx_hash)
        if record is None:
            raise RpcError(INTERNAL_ERROR, f"tx ({tx_hash}) not found")
        return {
            "hash": tx_hash,
            "height": str(record.height),
            "index": record.index,
            "tx_result": _tx_result(record),
            "tx": _to_base64(record.tx.raw),
        }

    def _block(self, params: Params) -> dict[str, Any]:
        return block_json(self._node.blockchain.state.chain_id, self._block_at(params))

    def _block_results(self, params: Params) -> dict[str, Any]:
        block = self._block_at(params)
        results = [_tx_result(record) for record in block.records]
        return {"height": str(block.height), "txs_results": results or None, "finalize_block_events": []}

    def _block_at(self, params: Params) -> Block:
        latest = self._node.height
        height = params.int64("height") or latest
        if height > latest:
            text = f"height {height} must be less than or equal to the current blockchain height {latest}"
            raise RpcError(INTERNAL_ERROR, text)
        block = self._node.block(height)
        if block is None:
            lowest = self._node.lowest_height
            raise RpcError(INTERNAL_ERROR, f"height {height} is not available, lowest height is {lowest}")
        return block

    def _abci_query(self, params: Params) -> dict[str, Any]:
        path, data, height = params.text("path"), params.hex("data"), params.int64("height")
        response = {"log": "", "info": "", "index": "0", "key": None, "value": None, "proofOps": None, "codespace": ""}
        try:
            value = self._node.query(path, data, height)
        except QueryRefused as refusal:
            refused = {"code": refusal.code, "codespace": refusal.codespace, "log": str(refusal)}
            return {"response": {**response, **refused, "height": str(height)}}
        found = {"code": 0, "value": _to_base64(value), "height": str(height or self._node.height)}
        return {"response": {**response, **found}}


def block_json(chain_id: str, block: Block) -> dict[str, Any]:
    """Return a block as ``block`` and the NewBlock event show it."""
    header = {"chain_id": chain_id, "height": str(block.height), "time": format_time(block.time_ns)}
    txs = [_to_base64(record.tx.raw) for record in block.records]
    return {"block_id": {"hash": block.hash}, "block": {"header": header, "data": {"txs": txs}}}


def new_block_event(chain_id: str, block: Block, query: str) -> dict[str, Any]:
    """Return the ``result`` of a NewBlock event."""
    results = [_tx_result(record) for record in block.records]
    value = {**block_json(chain_id, block), "result_finalize_block": {"tx_results": results}}
    data = {"type": "tendermint/event/NewBlock", "value": value}
    return {"query": query, "data": data, "events": {"tm.event": ["NewBlock"]}}


def format_time(time_ns: int) -> str:
    """Write a time as Go does: RFC 3339, nanoseconds without the zeros at their end."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def _tx_result(record: TxRecord) -> dict[str, Any]:
    return {
        "code": record.code,
        "data": _to_base64(record.data) if record.data else None,
        "log": record.log,
        "info": "",
        "gas_wanted": str(record.tx.auth.fee.gas_limit),
        "gas_used": "0",
        "events": [],
        "codespace": record.codespace,
    }


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
