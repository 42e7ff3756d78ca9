"""Settings of a whole dapi on free ports, and calls to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from dapi.broker.nodes import NodeConfig, decode_node_config
from dapi.config import ApiConfig, Config, StorageConfig
from dapi.messages import Kind, Via
from dapi.messages.sizes import MIB
from dapi.outbox.outbox import OutboxEntry
from dapi.service import DapiService
from tests.integration.waiting import PATIENCE_SECONDS

Start: TypeAlias = Callable[..., Deferred[DapiService]]


def node(node_id: str, **more: Any) -> NodeConfig:
    port = 1 + sum(node_id.encode())
    return decode_node_config(
        {"id": node_id, "host": "127.0.0.1", "inference_port": 1, "poc_port": port, "models": {"m": {}}, **more}
    )


def config(path: Path, *nodes: NodeConfig, **more: Any) -> Config:
    # The tests post by hand; what a token is good for is in test_callback_tokens.
    api = ApiConfig(ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0, callback_auth="optional")
    return Config(**{"api": api, "storage": StorageConfig(path=str(path), reserve_bytes=MIB), "nodes": nodes, **more})


async def when_loaded(service: DapiService) -> None:
    """Wait until the configured nodes are registered, which is done in the background, one change after the other."""
    await service.broker.register_missing([])


async def call(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    """GET a path, or POST JSON to it; the status and the decoded answer."""
    method = "GET" if body is None else "POST"
    headers = Headers({"Content-Type": ["application/json"]})
    response = await treq.request(
        method,
        f"http://127.0.0.1:{port}{path}",
        headers=headers,
        data=None if body is None else msgspec.json.encode(body),
        agent=Agent(reactor),
    ).addTimeout(PATIENCE_SECONDS, reactor)
    content = await treq.content(response)
    return response.code, json.loads(content) if content else None


def entry(batch_id: str) -> OutboxEntry:
    return OutboxEntry(batch_id, Kind.GENERATED, "a", 5, 1, Via.HTTP, b"message")
