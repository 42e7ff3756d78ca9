"""The settings of the WebSocket to a node. The defaults are the promised behaviour."""

from __future__ import annotations

from dapi.messages.sizes import MIB
from dapi.websocket.settings import ConnectionSettings


class WebSocketSettings(ConnectionSettings, frozen=True, kw_only=True):
    """Times in seconds, sizes in bytes; the other settings, and ConfigError, are those of ConnectionSettings.

    A connection is replaced after ``idle_seconds`` without a batch. It is also replaced, once in
    ``bypass_interval_seconds`` at most, after a batch by HTTP whose upload began when the connection had been reading
    for more than ``bypass_grace_seconds``: the node walks its list every 5 s, and tries the WebSocket first
    (docs/protocol/node.md, 'How a node delivers'). Reading pauses while ``max_pending_messages`` or
    ``max_pending_bytes`` of a connection are on their way to the disk. A connection that brings more than
    ``max_bad_messages`` in a row is closed, for a time that grows; each MiB of one counts as one more.
    """

    idle_seconds: float = 60
    bypass_grace_seconds: float = 5
    bypass_interval_seconds: float = 15
    max_pending_messages: int = 256
    max_bad_messages: int = 64
    max_pending_bytes: int = 64 * MIB
