"""The bounds of an HTTP server, and what it counts. The defaults are the promised behaviour."""

from __future__ import annotations

import msgspec

from dapi.messages.sizes import MIB


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one server.

    A new connection has ``head_seconds`` to begin, and then as long again for the head of its request;
    ``deadline_seconds`` run from a request's first byte until its answer. A connection may stay quiet between requests
    for ``idle_seconds``. ``max_body_bytes`` is for one request, ``max_buffered_bytes`` for all bodies in memory
    together. ``max_connections`` are shared among addresses (see Shares), so that a few cannot use up all. A caller
    that is known may make ``max_requests_per_caller`` at once: a node makes one after the other. A refused client may
    go on sending for ``linger_seconds``, so that it reads the refusal. When the server stops, requests under way are
    answered within ``drain_seconds``.
    """

    max_body_bytes: int = 32 * MIB
    max_buffered_bytes: int = 128 * MIB
    max_connections: int = 1024
    max_requests_per_caller: int = 32
    head_seconds: float = 10.0
    deadline_seconds: float = 30.0
    idle_seconds: float = 60.0
    linger_seconds: float = 5.0
    drain_seconds: float = 2.0


class HttpCounts(msgspec.Struct):
    """Counts since the server was made: answers by status, and connections that were closed for being too many."""

    answers: dict[int, int] = msgspec.field(default_factory=dict)
    connections_refused: int = 0
