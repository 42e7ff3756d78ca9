"""From a node's PoC URL to the address of its WebSocket."""

from __future__ import annotations

from dapi.errors import ConfigError
from dapi.websocket.address import WebSocketAddress, split_url

WEBSOCKET_PATH = "/api/v1/pow/ws"
"""Where an ML node serves its WebSocket, below version prefix and PoC segment (docs/protocol/node.md, 'WebSocket')."""


def websocket_address(poc_url: str) -> WebSocketAddress:
    """Return where the node whose PoC URL is ``poc_url`` serves its WebSocket.

    http becomes ws, https wss, no scheme ws; the path (version prefix, PoC segment) is kept and ``/api/v1/pow/ws``
    added. A ws or wss URL that has a path is the WebSocket's own. ConfigError when it is no such URL, carries a user or
    password, a fragment, or a query (which only a full ws or wss URL may have).
    """
    scheme, address = split_url(poc_url, "PoC URL")
    path, _, query = address.resource.partition("?")
    path = path.rstrip("/")
    if scheme in ("ws", "wss") and path:
        return address
    if query:
        raise ConfigError(
            f"the PoC URL of host {address.host} has a query: only a full ws:// or wss:// URL may have one"
        )
    return address._replace(resource=path + ("" if path.endswith(WEBSOCKET_PATH) else WEBSOCKET_PATH))
