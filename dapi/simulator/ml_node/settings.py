"""The times and faults of a simulated ML node; they can be changed while it runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class MLNodeSettings:
    """Times and faults. The defaults are the times of a real node (docs/protocol/measured.md, 'Times of a real node').

    A change takes effect at once, except where a setting says otherwise.
    """

    walk_seconds: float = 5.0
    """From the end of one walk over the unsent batches to the start of the next."""
    ack_wait_seconds: float = 3.0
    """How long the sender waits for an ack before it sends the batch by HTTP."""
    deaf_seconds: float = 4.0
    """How long the node answers nothing, pings included, when it stops or restarts its PoW (3 to 6 on a real one)."""
    hung_stop_seconds: float = 5.0
    """How long stopping waits for a sender that is in the middle of an HTTP call."""
    close_seconds: float = 1.0
    """How long a shutdown waits for the client's answer to its close."""

    nonces_per_batch: int = 200
    """Nonces in each generated batch."""
    batches_per_walk: int = 1
    """Batches generated before each walk; 0 generates nothing."""
    load_seconds: float = 0.0
    """From an init until the model is loaded; nothing is generated or validated before. Read at the init."""

    websocket: bool = True
    """False: the node has no WebSocket and answers its path with 404."""
    websocket_ready: bool = True
    """False: a client is closed with 1008 ``WebSocket infrastructure not initialized``."""
    refuse_upgrade: int | Literal["junk", "silence"] | None = None
    """Answer an upgrade with this HTTP status, with junk, or never."""
    drop_every_seconds: float | None = None
    """Cut each connection, without a close frame, after so long. Read when it opens."""
    ignore_acks: bool = False
    """Ignore all acks: each batch that was offered over the WebSocket goes by HTTP as well."""
    double_every: int = 0
    """Lose the ack of every n-th batch that is offered over the WebSocket; 0: of none."""
    binary_frames: bool = False
    """Send binary instead of text frames."""
    nan_in_validated: bool = False
    """Compute NaN as the first distance of each validated batch."""

    http_delays: dict[str, float] = field(default_factory=dict)
    """By path (``/api/v1/…``; ``*`` for all): how many seconds the answer is late. The effect of the call is not."""
    http_failures: dict[str, int] = field(default_factory=dict)
    """By path (``*`` for all): the status with which a call fails, without effect."""
    inference_up_seconds: float = 0.0
    """How long inference takes to start."""
    inference_fails: bool = False
    """Inference fails to start: 500."""


def quick_settings(**changes: Any) -> MLNodeSettings:
    """Return settings for tests: every wait a fraction of the real one, small batches, with ``changes``."""
    quick = MLNodeSettings(
        walk_seconds=0.1, ack_wait_seconds=0.3, deaf_seconds=0.05, hung_stop_seconds=0.3, nonces_per_batch=5
    )
    return dataclasses.replace(quick, **changes)
