"""What can be set about the WebSocket to a node. The defaults are the promised behaviour."""

from __future__ import annotations

from dapi.messages.sizes import MIB
from dapi.websocket.settings import ConnectionSettings


class WebSocketSettings(ConnectionSettings, frozen=True, kw_only=True):
    """Times in seconds, sizes in bytes; those not told of here, and ConfigError, are as in ConnectionSettings.

    ``idle_seconds`` without a batch, or a batch by HTTP whose upload began when the connection had been reading for
    more than ``bypass_grace_seconds`` (the node walks its list every 5 s), have the connection replaced, the latter
    once in ``bypass_interval_seconds`` at most. ``max_waiting_messages`` and ``max_waiting_bytes`` of a connection may
    wait for the disk before reading pauses.
    """

    idle_seconds: float = 60
    bypass_grace_seconds: float = 5
    bypass_interval_seconds: float = 15
    max_waiting_messages: int = 32
    max_waiting_bytes: int = 64 * MIB
