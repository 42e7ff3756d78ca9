"""From a node's PoC URL to its WebSocket URL."""

from __future__ import annotations

from dapi.errors import ConfigError
from dapi.websocket.address import WebSocketAddress, split_url

WEBSOCKET_PATH = "/api/v1/pow/ws"
"""Where an ML node serves its WebSocket, below its version prefix and PoC segment."""


def websocket_url(poc_url: str) -> str:
    """Return the WebSocket URL of the node whose PoC URL is ``poc_url``.

    http becomes ws, https wss, no scheme ws; the path (version prefix, PoC segment) is kept and ``/api/v1/pow/ws``
    added. A ws or wss URL that has a path is taken for the full one and returned as it is. ConfigError when it is no
    such URL, carries a user or password, a fragment, or a query (which only a full ws or wss URL may have).
    """
    return websocket_address(poc_url).url


def websocket_address(poc_url: str) -> WebSocketAddress:
    """Return the parts of ``websocket_url(poc_url)``; fails like it."""
    parts = split_url(poc_url, "PoC URL")
    path = parts.path.rstrip("/")
    if parts.is_websocket and path:
        address = parts.address(parts.path + (f"?{parts.query}" if parts.query else ""))
        return address._replace(url=poc_url)
    if parts.query:
        raise ConfigError(f"the PoC URL of host {parts.host} has a query: only a full ws:// or wss:// URL may have one")
    return parts.address(path + ("" if path.endswith(WEBSOCKET_PATH) else WEBSOCKET_PATH))
