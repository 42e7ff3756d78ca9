"""What an HTTP server allows, and what it counts. The defaults are the promised behaviour."""

from __future__ import annotations

import msgspec

from dapi.messages.sizes import MIB


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one server allows.

    ``deadline_seconds`` runs from a request's first byte until its answer, ``idle_seconds`` is how long a connection
    may stay quiet between requests. ``max_body_bytes`` is for one request, ``max_buffered_bytes`` for all bodies in
    memory together, ``max_connections_per_peer`` for one address, so that it alone cannot take all connections.
    ``linger_seconds`` is how long a refused client may go on sending, so that it reads the refusal, ``drain_seconds``
    how long requests under way may take to be answered once the server is stopped.
    """

    max_body_bytes: int = 64 * MIB
    max_buffered_bytes: int = 256 * MIB
    max_connections: int = 512
    max_connections_per_peer: int = 256
    deadline_seconds: float = 30.0
    idle_seconds: float = 60.0
    linger_seconds: float = 5.0
    drain_seconds: float = 2.0


class HttpCounts(msgspec.Struct):
    """What a server did since it was made: answers by status, and connections closed for being too many."""

    answers: dict[int, int] = msgspec.field(default_factory=dict)
    connections_refused: int = 0
